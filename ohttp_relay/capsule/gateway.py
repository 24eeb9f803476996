"""The gateway's end: open encapsulated requests, seal their responses (RFC 9458, section 4)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any, Final

from ohttp_relay.capsule.format import HEADER_SIZE, REQUEST_LABEL, RESPONSE_LABEL, response_cipher
from ohttp_relay.errors import CapsuleError, TruncatedCapsule
from ohttp_relay.hpke.kem import PrivateKey
from ohttp_relay.hpke.recipient import RecipientContext, Schedule
from ohttp_relay.hpke.suites import TAG_SIZE
from ohttp_relay.keys.ring import KeyRing


class _Nonces:
    """Random bytes, each returned once, fetched 4096 at a time: a system call costs as much as an HMAC."""

    def __init__(self) -> None:
        self.forget()
        os.register_at_fork(after_in_child=self.forget)

    def forget(self) -> None:
        """Drop the fetched bytes: a child process must not return those of its parent."""
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


class OpenedRequest:
    """An opened request: Binary HTTP bytes, encapsulated key, and the context that seals the response."""

    __slots__ = ("_context", "enc", "request")

    def __init__(self, request: bytes, enc: bytes, context: RecipientContext) -> None:
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


def open_header(ring: KeyRing, data: bytes, label: bytes) -> tuple[bytes, RecipientContext]:
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


def decapsulate_request(ring: KeyRing, capsule: bytes) -> OpenedRequest:
    """Open an encapsulated request.  Raises TruncatedCapsule, UnknownKey or OpenFailed."""
    enc, context = open_header(ring, capsule, REQUEST_LABEL)
    return _open(capsule, enc, context)


def _open(capsule: bytes, enc: bytes, context: RecipientContext) -> OpenedRequest:
    ciphertext = capsule[HEADER_SIZE + len(enc) :]
    if len(ciphertext) < TAG_SIZE:
        raise TruncatedCapsule(f"a sealed request has at least {TAG_SIZE} bytes, got {len(ciphertext)}")
    return OpenedRequest(context.open(ciphertext), enc, context)


def decapsulate_requests(ring: KeyRing, capsules: Iterable[bytes]) -> list[OpenedRequest | CapsuleError]:
    """Open several requests; an error of `decapsulate_request` stands in place of its request.

    Each step runs for all requests before the next step, so that its code stays in the processor's caches.
    """

    def begin(capsule: bytes) -> tuple[PrivateKey, Schedule, bytes, bytes]:
        return *_read_header(ring, capsule, REQUEST_LABEL), capsule

    def agree(begun: tuple[PrivateKey, Schedule, bytes, bytes]) -> tuple[bytes, Schedule, bytes, bytes]:
        private, schedule, enc, capsule = begun
        return private.decapsulate(enc), schedule, enc, capsule

    def derive(agreed: tuple[bytes, Schedule, bytes, bytes]) -> tuple[bytes, bytes, RecipientContext]:
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
