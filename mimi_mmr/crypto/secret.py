"""Types for secrets: hidden in repr, compared in constant time, never pickled."""

from __future__ import annotations

import hmac
import secrets
from typing import ClassVar, NoReturn, Self


class Secret:
    """Bytes that must not leak by accident. Only `reveal()` returns them."""

    __slots__ = ("_value",)
    SIZE: ClassVar[int | None] = 32

    def __init__(self, value: bytes) -> None:
        """Store `value`; if the class sets `SIZE`, it must have that many bytes."""
        if self.SIZE is not None and len(value) != self.SIZE:
            raise ValueError(f"{type(self).__name__} has {self.SIZE} bytes, got {len(value)}")
        self._value = bytes(value)

    @classmethod
    def generate(cls) -> Self:
        """Draw a new secret from the operating system."""
        return cls(secrets.token_bytes(cls.SIZE or 32))

    def reveal(self) -> bytes:
        """Return the bytes."""
        return self._value

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return hmac.compare_digest(self._value, other._value)

    __hash__ = None  # type: ignore[assignment]  # a secret is not a dictionary key

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{type(self).__name__} is not to be pickled")


class ConnectionKey(Secret):
    """A key that two users share; one made it for the other (one per contact and direction)."""


class IdentityLinkKey(Secret):
    """The key of one credential's identity link; it is drawn for this link and seals once."""


class WelcomeKey(Secret):
    """The key of the proof that a Welcome was made by whoever got the KeyPackage; derived from its link key."""


class EchoKey(Secret):
    """The key by which a client recognises messages that its own leaf sent; derived from the leaf's private key."""


class FetchToken(Secret):
    """The token that gives access to a shelf of KeyPackage sets; derived from a connection key."""


class AccessToken(Secret):
    """A bearer token for the client's own provider: for an account, a reply inbox or a queue."""
