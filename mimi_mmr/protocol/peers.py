"""Peers: signed requests of one provider to another.

The signature is over the hash and the size of the body, and comes before it: in the HTTP field `Authorization`,
with the scheme `MIMI-MMR-Peer` and a `PeerRequest` in base64url without padding. So a provider reads no body of
somebody who is no peer.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import Annotated, ClassVar, Self

from mimi_mmr.crypto.signing import SigningKey
from mimi_mmr.errors import ParseError
from mimi_mmr.presentation import U32, U64, Fixed, Struct, Text

MAX_NOTIFY = 1 << 25
PEER_SCHEME = "MIMI-MMR-Peer"


@dataclass(frozen=True, slots=True)
class PeerRequestTBS(Struct):
    """A request of one provider to another; `issued` in seconds, the body's hash by SHA-256, its size in bytes."""

    sender: Annotated[str, Text(253)]
    recipient: Annotated[str, Text(253)]
    endpoint: Annotated[str, Text(64)]
    issued: Annotated[int, U64]
    body_size: Annotated[int, U32]
    body_hash: Annotated[bytes, Fixed(32)]

    @classmethod
    def of(cls, sender: str, recipient: str, endpoint: str, issued: int, body: bytes) -> Self:
        """Describe a request with this body."""
        return cls(sender, recipient, endpoint, issued, len(body), hashlib.sha256(body).digest())

    def is_of(self, body: bytes) -> bool:
        """Return whether the request is signed for this body."""
        return (self.body_size, self.body_hash) == (len(body), hashlib.sha256(body).digest())


@dataclass(frozen=True, slots=True)
class PeerRequest(Struct):
    """`PeerRequestTBS`, signed by the key in the sending provider's certificate."""

    LIMIT: ClassVar[int] = 1024
    content: PeerRequestTBS
    signature: Annotated[bytes, Fixed(64)]

    def to_text(self) -> str:
        """Return it as credentials of the HTTP field."""
        return base64.urlsafe_b64encode(self.to_bytes()).rstrip(b"=").decode()

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Read credentials of the HTTP field; raise `ParseError`."""
        try:
            data = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), b"-_", validate=True)
        except (UnicodeEncodeError, binascii.Error):
            raise ParseError("expected base64url", 0) from None
        return cls.from_bytes(data)


def sign_peer_request(content: PeerRequestTBS, key: SigningKey) -> PeerRequest:
    """Sign a request as its sender."""
    return PeerRequest(content, key.sign("PeerRequestTBS", content.to_bytes()))
