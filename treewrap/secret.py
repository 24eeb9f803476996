"""Secrets as types: not printed, not pickled, compared in constant time."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from typing import NoReturn, Self

SECRET_SIZE = 32
Rng = Callable[[int], bytes]


class Secret:
    """32 secret bytes. Python can't promise to wipe them from memory: drop every reference.

    Raises ValueError for any other size. Two secrets are equal only if they are of one type.
    """

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        if len(value) != SECRET_SIZE:
            raise ValueError(f"{type(self).__name__}: expected {SECRET_SIZE} bytes, got {len(value)}")
        self._value = bytes(value)

    @classmethod
    def generate(cls, rng: Rng = secrets.token_bytes) -> Self:
        """Draw a fresh one."""
        return cls(rng(SECRET_SIZE))

    def reveal(self) -> bytes:
        """Give the 32 bytes: the one way to get at them."""
        return self._value

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other) or not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value, other._value)

    __hash__ = None  # type: ignore[assignment]  # a hash would leak through timing and sizes of tables

    def __repr__(self) -> str:
        return f"{type(self).__name__}(...)"

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{type(self).__name__} is not to be pickled or copied")


class LeafSecret(Secret):
    """What one leaf keeps, for all members to read."""


class EpochSecret(Secret):
    """MLS-Exporter("TreeWrap", group_id, 32) of one epoch (RFC 9420, section 8.5)."""


class RoomSecret(Secret):
    """A named secret of the whole room, kept in the root."""


class RootKey(Secret):
    """The key of one root node: what a join link's seal holds, and all that a light tree holds."""
