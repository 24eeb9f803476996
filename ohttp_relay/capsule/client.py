"""The client's end: encapsulate a request, open its response (RFC 9458, section 4).  Bytes in, bytes out."""

from __future__ import annotations

from dataclasses import dataclass

from ohttp_relay.capsule.format import REQUEST_LABEL, RESPONSE_LABEL, response_cipher
from ohttp_relay.errors import NoUsableKey, TruncatedCapsule
from ohttp_relay.hpke.kem import KEMS, KemId, KemSecret
from ohttp_relay.hpke.sender import SenderContext, start_sending
from ohttp_relay.hpke.suites import TAG_SIZE, AeadId, Suite, open_sealed
from ohttp_relay.keys.configuration import KeyConfig


@dataclass(frozen=True, slots=True, repr=False)
class ResponseOpener:
    """The client's end of one exchange, which opens the response."""

    _context: SenderContext
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


def start_request(
    config: KeyConfig, suite: Suite | None, label: bytes, ephemeral: KemSecret | None = None
) -> tuple[bytes, bytes, SenderContext]:
    """Return (header, enc, fresh context) for a request to the key of `config`.  Raises NoUsableKey."""
    chosen = suite or config.choose()
    if config.kem_id not in KEMS or chosen is None or not chosen.supported:
        raise NoUsableKey("the key configuration has no KEM, KDF and AEAD supported here")
    ids = b"".join(part.to_bytes(2, "big") for part in (config.kem_id, chosen.kdf, chosen.aead))
    header = config.key_id.to_bytes(1, "big") + ids
    kem, aead, info = KemId(config.kem_id), AeadId(chosen.aead), label + b"\x00" + header
    try:
        enc, context = start_sending(kem, aead, config.public_key, info, ephemeral)
    except ValueError:
        raise NoUsableKey("the key configuration's public key is not one of its KEM") from None
    return header, enc, context


def encapsulate_request(
    config: KeyConfig, request: bytes, suite: Suite | None = None, *, ephemeral: KemSecret | None = None
) -> tuple[bytes, ResponseOpener]:
    """Return the encapsulated request, and the opener of its response.

    Each call makes a fresh HPKE context; a retry must be a new call.  Raises NoUsableKey.
    """
    header, enc, context = start_request(config, suite, REQUEST_LABEL, ephemeral)
    return header + enc + context.seal(request), ResponseOpener(context, enc)
