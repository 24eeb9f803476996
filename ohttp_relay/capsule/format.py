"""What both ends of an exchange share (RFC 9458, section 4): sizes, labels, the response's key.

A request is key id (1 byte), KEM, KDF and AEAD identifiers (2 bytes each), encapsulated key (Nenc bytes,
32 for X25519), ciphertext.  A response is a nonce of max(Nn, Nk) bytes (16 with AES-128-GCM, else 32)
and ciphertext.
"""

from __future__ import annotations

from typing import Final

from ohttp_relay.errors import UnknownKey
from ohttp_relay.hpke.hkdf import expand_info, extract, prf_two
from ohttp_relay.hpke.kem import KEMS
from ohttp_relay.hpke.suites import NONCE_SIZE, Aead, Cipher

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


def enc_size(header: bytes) -> int:
    """Return Nenc of the KEM that a request header names.  Raises UnknownKey."""
    kem = KEMS.get(header[1] << 8 | header[2])
    if kem is None:
        raise UnknownKey("the request's KEM is not supported")
    return kem.enc_size
