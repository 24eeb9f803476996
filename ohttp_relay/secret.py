"""A type for bytes that must not be printed, logged, pickled or compared in variable time."""

from __future__ import annotations

import hmac
from typing import NoReturn


class Secret:
    """Secret bytes.  `reveal()` returns them; everything else hides them."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = bytes(value)

    def reveal(self) -> bytes:
        """Return the bytes; the caller must not let them be printed, logged or stored by accident."""
        return self._value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and hmac.compare_digest(self._value, other._value)

    __hash__ = None  # type: ignore[assignment]  # a set or dict would compare secrets in variable time

    def __repr__(self) -> str:
        return f"{type(self).__name__}(<hidden>)"

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{type(self).__name__} is not picklable")
