"""Encapsulated requests and responses, whole (RFC 9458, section 4).  Bytes in, bytes out.

A request is key id (1 byte), KEM, KDF and AEAD identifiers (2 bytes each), encapsulated key (Nenc bytes,
32 for X25519), ciphertext.  A response is a nonce of max(Nn, Nk) bytes (16 with AES-128-GCM, else 32)
and ciphertext.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from .errors import CapsuleError, NoUsableKey, TruncatedCapsule, UnknownKey
from .hkdf import expand_info, extract, prf_two
from .hpke import NONCE_SIZE, TAG_SIZE, Aead, Cipher, Context, Schedule, Suite, open_sealed
from .kem import KEMS, KemSecret, PrivateKey
from .keyconfig import KeyConfig
from .keys import KeyRing

REQUEST_TYPE: Final = "message/ohttp-req"
RESPONSE_TYPE: Final = "message/ohttp-res"
REQUEST_LABEL: Final = b"message/bhttp request"
RESPONSE_LABEL: Final = b"message/bhttp response"
HEADER_SIZE: Final = 7

_EXPANDED: Final = expand_info(b"key"), expand_info(b"nonce")


def response_cipher(aead: Aead, secret: bytes, enc: bytes, response_nonce: bytes) -> tuple[Cipher, bytes]:
    """Return the cipher and base nonce of a response (RFC 9458, section 4.4, steps 3 to 5)."""
    key, nonce = prf_two(extract(enc + response_nonce, secret), *_EXPANDED)
    return aead.make(key[: aead.key_size]), nonce[:NONCE_SIZE]


class _Nonces:
    """Random bytes, each given once, fetched by the page: a system call each costs as much as an HMAC."""

    def __init__(self) -> None:
        self.forget()
        os.register_at_fork(after_in_child=self.forget)

    def forget(self) -> None:
        """Drop what was fetched: a child process must not give what its parent gives."""
        self._page, self._at = b"", 0

    def take(self, size: int) -> bytes:
        """Return `size` fresh bytes."""
        start = self._at
        nonce = self._page[start : start + size]
        if len(nonce) < size:
            self._page = os.urandom(4096)
            start, nonce = 0, self._page[:size]
        self._at = start + size
        return nonce


_NONCES: Final = _Nonces()


@dataclass(frozen=True, slots=True, repr=False)
class ResponseOpener:
    """The client's end: opens the response to one request."""

    _context: Context
    _enc: bytes

    def open(self, capsule: bytes) -> bytes:
        """Return the response's bytes.  Raises TruncatedCapsule or OpenFailed."""
        aead = self._context.aead
        size = aead.entropy_size
        if len(capsule) < size + TAG_SIZE:
            raise TruncatedCapsule(
                f"an encapsulated response has at least {size + TAG_SIZE} bytes, got {len(capsule)}"
            )
        secret = self._context.export(RESPONSE_LABEL, size)
        cipher, base = response_cipher(aead, secret, self._enc, capsule[:size])
        return open_sealed(cipher, base, capsule[size:], b"")


class OpenedRequest:
    """A request taken out of its capsule, at the gateway: Binary HTTP bytes, encapsulated key, and the way back."""

    __slots__ = ("_context", "enc", "request")

    def __init__(self, request: bytes, enc: bytes, context: Context) -> None:
        self.request = request
        self.enc = enc
        self._context = context

    def seal(self, response: bytes, nonce: bytes | None = None) -> bytes:
        """Return the encapsulated response.  `nonce` is for vectors only."""
        aead = self._context.aead
        nonce = nonce or _NONCES.take(aead.entropy_size)
        secret = self._context.export(RESPONSE_LABEL, aead.entropy_size)
        cipher, base = response_cipher(aead, secret, self.enc, nonce)
        return nonce + cipher.encrypt(base, response, None)


def start_request(
    config: KeyConfig, suite: Suite | None, label: bytes, ephemeral: KemSecret | None = None
) -> tuple[bytes, bytes, Context]:
    """Return (header, enc, fresh context) for a request to the key of `config`.  Raises NoUsableKey."""
    chosen = suite or config.choose()
    kem = KEMS.get(config.kem_id)
    if kem is None or chosen is None or not chosen.supported:
        raise NoUsableKey("the key configuration has no KEM, KDF and AEAD supported here")
    ids = b"".join(part.to_bytes(2, "big") for part in (config.kem_id, chosen.kdf, chosen.aead))
    header = config.key_id.to_bytes(1, "big") + ids
    try:
        shared, enc = kem.encapsulate(config.public_key, ephemeral)
    except ValueError:
        raise NoUsableKey("the key configuration's public key is not one of its KEM") from None
    return header, enc, Schedule(config.kem_id, chosen, label + b"\x00" + header).context(shared)


def encapsulate_request(
    config: KeyConfig, request: bytes, suite: Suite | None = None, *, ephemeral: KemSecret | None = None
) -> tuple[bytes, ResponseOpener]:
    """Return the encapsulated request and what opens its response.

    Each call makes a fresh HPKE context; a retry must be a new call.  Raises NoUsableKey.
    """
    header, enc, context = start_request(config, suite, REQUEST_LABEL, ephemeral)
    return header + enc + context.seal(request), ResponseOpener(context, enc)


def open_header(ring: KeyRing, data: bytes, label: bytes) -> tuple[bytes, Context]:
    """Return (enc, context) of a request whose first bytes are `data`.

    Raises TruncatedCapsule, UnknownKey, or OpenFailed for an impossible encapsulated key.
    """
    private, schedule, enc = _read_header(ring, data, label)
    return enc, schedule.context(private.decapsulate(enc))


def _read_header(ring: KeyRing, data: bytes, label: bytes) -> tuple[PrivateKey, Schedule, bytes]:
    header = data[:HEADER_SIZE]
    if len(header) < HEADER_SIZE:
        raise TruncatedCapsule(f"a request header has {HEADER_SIZE} bytes, got {len(data)}")
    private, schedule, size = ring.prepare(header, label)
    enc = data[HEADER_SIZE : HEADER_SIZE + size]
    if len(enc) < size:
        raise TruncatedCapsule(f"an encapsulated key has {size} bytes, got {len(enc)}")
    return private, schedule, enc


def enc_size(header: bytes) -> int:
    """Return Nenc of the KEM that a request header names.  Raises UnknownKey."""
    kem = KEMS.get(header[1] << 8 | header[2])
    if kem is None:
        raise UnknownKey("the request's KEM is not supported")
    return kem.enc_size


def decapsulate_request(ring: KeyRing, capsule: bytes) -> OpenedRequest:
    """Open an encapsulated request.  Raises TruncatedCapsule, UnknownKey or OpenFailed."""
    enc, context = open_header(ring, capsule, REQUEST_LABEL)
    return _open(capsule, enc, context)


def _open(capsule: bytes, enc: bytes, context: Context) -> OpenedRequest:
    ciphertext = capsule[HEADER_SIZE + len(enc) :]
    if len(ciphertext) < TAG_SIZE:
        raise TruncatedCapsule(f"a sealed request has at least {TAG_SIZE} bytes, got {len(ciphertext)}")
    return OpenedRequest(context.open(ciphertext), enc, context)


def decapsulate_requests(ring: KeyRing, capsules: Iterable[bytes]) -> list[OpenedRequest | CapsuleError]:
    """Do as `decapsulate_request` for several; an error stands where it would be raised.

    Each step is taken for all of them before the next: steps push each other's code out of a processor's caches.
    """

    def begin(capsule: bytes) -> tuple[PrivateKey, Schedule, bytes, bytes]:
        return *_read_header(ring, capsule, REQUEST_LABEL), capsule

    def agree(begun: tuple[PrivateKey, Schedule, bytes, bytes]) -> tuple[bytes, Schedule, bytes, bytes]:
        private, schedule, enc, capsule = begun
        return private.decapsulate(enc), schedule, enc, capsule

    def derive(agreed: tuple[bytes, Schedule, bytes, bytes]) -> tuple[bytes, bytes, Context]:
        shared, schedule, enc, capsule = agreed
        return capsule, enc, schedule.context(shared)

    found: list[Any] = list(capsules)
    steps: tuple[Callable[[Any], object], ...] = (begin, agree, derive, lambda derived: _open(*derived))
    for step in steps:
        for at, one in enumerate(found):
            if not isinstance(one, CapsuleError):
                try:
                    found[at] = step(one)
                except CapsuleError as error:
                    found[at] = error
    return found
