"""Secrets as types: never printed, never pickled, compared in constant time."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from typing import NoReturn, Self

SECRET_SIZE = 32
ROOM_NAME_LIMIT = 64
ROOM_SECRETS_LIMIT = 64
Rng = Callable[[int], bytes]


class Secret:
    """32 secret bytes. Two secrets are equal only if they have the same type.

    Python can't wipe memory: drop every reference. Raises ValueError for any other size.
    """

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        if len(value) != SECRET_SIZE:
            raise ValueError(f"{type(self).__name__}: expected {SECRET_SIZE} bytes, got {len(value)}")
        self._value = bytes(value)

    @classmethod
    def generate(cls, rng: Rng = secrets.token_bytes) -> Self:
        """Draw a new one from a source of random bytes."""
        return cls(rng(SECRET_SIZE))

    def reveal(self) -> bytes:
        """Return the 32 bytes. There is no other way to read them."""
        return self._value

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other) or not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value, other._value)

    __hash__ = None  # type: ignore[assignment]  # a hash would leak through timing and sizes of tables

    def __repr__(self) -> str:
        return f"{type(self).__name__}(...)"

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{type(self).__name__}: must not be pickled or copied")


class LeafSecret(Secret):
    """The secret of one leaf. Every member reads it."""


class EpochSecret(Secret):
    """MLS-Exporter("TreeWrap", group_id, 32) of one epoch (RFC 9420, section 8.5)."""


class RoomSecret(Secret):
    """A named secret of the whole room, kept in the root: 1 to 64 bytes of name, at most 64 in a room."""


class RootKey(Secret):
    """The key of the root node. A join link's seal holds it; it is the only secret that a light tree holds."""
