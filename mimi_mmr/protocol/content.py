"""The content of MLS application messages between members, padded to size buckets."""

from __future__ import annotations

import enum
import hashlib
from dataclasses import dataclass
from typing import Annotated

from mimi_mmr.crypto.aead import InvalidTag, OneTimeKey, open_once, seal_once
from mimi_mmr.crypto.sealing import pad, unpad
from mimi_mmr.errors import LinkRejected
from mimi_mmr.presentation import U64, Code, Fixed, Opaque, Struct, Text

PADDING = 256
MAX_TEXT = 1 << 16


class ContentKind(enum.IntEnum):
    """The type of a content's body."""

    TEXT = 1
    CONNECTION_KEY = 2
    ASSET = 3
    DEPARTURE = 4
    ADD_AGAIN = 5
    SHARED_STATE = 6
    PACKAGES_WANTED = 7
    PACKAGES_MADE = 8
    DEVICE_REMOVED = 9


@dataclass(frozen=True, slots=True)
class Content(Struct):
    """One message: UTF-8 text, a `ConnectionKeyOffer`, or an `AssetReference`."""

    kind: Annotated[ContentKind, Code(ContentKind)]
    body: Annotated[bytes, Opaque(MAX_TEXT)]

    def padded(self) -> bytes:
        """Encode the content and pad it for the MLS message."""
        return pad(self.to_bytes(), PADDING)

    @classmethod
    def from_padded(cls, data: bytes) -> Content:
        """Parse padded content from an MLS message; raise `ParseError` or `SealedBoxRejected`."""
        return cls.from_bytes(unpad(data))

    @classmethod
    def text(cls, text: str) -> Content:
        """Make a text message."""
        return cls(ContentKind.TEXT, text.encode())


@dataclass(frozen=True, slots=True)
class AssetReference(Struct):
    """The location of an encrypted asset and its key (a short form of draft-ietf-mimi-content's ExternalPart)."""

    url: Annotated[str, Text(1024)]
    name: Annotated[str, Text(256)]
    size: Annotated[int, U64]
    key: Annotated[bytes, Fixed(32)]
    sha256: Annotated[bytes, Fixed(32)]

    def open(self, ciphertext: bytes) -> bytes:
        """Decrypt the asset; raise `LinkRejected` if it is not the one that the sender stored."""
        if hashlib.sha256(ciphertext).digest() != self.sha256:
            raise LinkRejected("the asset is not the one that its sender described")
        try:
            return open_once(OneTimeKey(self.key), ciphertext)[: self.size]
        except InvalidTag:
            raise LinkRejected("the asset does not open with the sender's key") from None


def seal_asset(data: bytes) -> tuple[bytes, bytes]:
    """Seal an asset, padded to a multiple of 4,096 bytes; return (key, ciphertext)."""
    key = OneTimeKey.generate()
    return key.reveal(), seal_once(key, data + bytes(-len(data) % 4096))
