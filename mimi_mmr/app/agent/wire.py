"""Lines between a command and the agent: JSON, one request a line, one or more lines of answer.

    {"do": "room.send", "given": {"room": "friends", "text": "hello"}, "notices": true}

Then any number of `{"progress": [done, total]}` and `{"item": …}`, and one `{"result": …, "notices": [text, …]}` or
`{"error": {"code": …, "message": …, "hint": …}}`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mimi_mmr.app.agent.errors import BadRequest

MAX_REQUEST = 1 << 20
MAX_ANSWER = 1 << 24


@dataclass(frozen=True, slots=True)
class Given:
    """What came with a request, by name; each accessor raises `BadRequest` for what is of another type."""

    values: Mapping[str, Any]

    def text(self, name: str) -> str:
        """A text that must be there."""
        found: str = self._of(name, str, "a text")
        return found

    def text_or_none(self, name: str) -> str | None:
        """A text, if there is one."""
        return None if self.values.get(name) is None else self.text(name)

    def texts(self, name: str) -> list[str]:
        """A list of texts that must be there."""
        found: list[str] = self._of(name, list, "a list of texts")
        if not all(isinstance(entry, str) for entry in found):
            raise BadRequest(f"expected a list of texts as {name!r}")
        return found

    def flag(self, name: str) -> bool:
        """True or false; false if it is missing."""
        return False if self.values.get(name) is None else self._of(name, bool, "true or false")

    def number(self, name: str) -> float:
        """A number that must be there."""
        value = self.values.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise BadRequest(f"expected a number as {name!r}")
        return value

    def _of(self, name: str, kind: type, what: str) -> Any:
        value = self.values.get(name)
        if not isinstance(value, kind):
            raise BadRequest(f"expected {what} as {name!r}")
        return value


@dataclass(frozen=True, slots=True)
class Request:
    """What a command wants. `notices`: what its user has not been told yet comes with the result."""

    do: str
    given: Given
    notices: bool = False

    def to_line(self) -> bytes:
        """As it is sent."""
        return line({"do": self.do, "given": self.given.values, "notices": self.notices})

    @classmethod
    def from_line(cls, data: bytes) -> Request:
        """Read one; raises `BadRequest`."""
        found = read(data)
        do, given, notices = found.get("do"), found.get("given", {}), found.get("notices", False)
        if not isinstance(do, str) or not isinstance(given, dict) or not isinstance(notices, bool):
            raise BadRequest('expected {"do": text, "given": object, "notices": true or false}')
        return cls(do, Given(given), notices)


def line(value: Mapping[str, Any]) -> bytes:
    """One line of JSON, in ASCII."""
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def read(data: bytes) -> dict[str, Any]:
    """The object that a line holds; raises `BadRequest`."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise BadRequest("expected one line of JSON") from None
    if not isinstance(found, dict):
        raise BadRequest("expected a JSON object")
    return found
