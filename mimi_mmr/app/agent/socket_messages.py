"""Messages on the agent's socket: JSON, one request a line, one or more lines of answer.

    {"do": "room.send", "given": {"room": "friends", "text": "hello"}, "notices": true}

`do` is the name of a command, `given` holds its arguments. The agent answers with any number of
`{"progress": [done, total]}`, `{"item": …}` and `{"note": text}`, and then one
`{"result": …, "notices": [{"number": …, "text": …}, …]}` or `{"error": {"code": …, "message": …}}`; an error
with a hint of its own has the key `hint`, too.

A line of either side may have the key `bytes`: so many bytes of a file follow its line break. The agent opens no
file that a request names.

The agent takes nothing for read because it was sent: `room.shown` and `notices.shown` say what a person has seen.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mimi_mmr.app.commands.errors import BadRequest
from mimi_mmr.errors import MmrError

MAX_REQUEST = 1 << 20
MAX_ANSWER = 1 << 24
MAX_CONTENT = 64 << 20  # bytes of a file


@dataclass(frozen=True, slots=True)
class CommandRequest:
    """A command's name and its arguments, not checked yet. With `notices`, new notices come with the result.

    `size` is the number of bytes that follow the line.
    """

    command: str
    arguments: dict[str, Any]
    notices: bool = False
    size: int = 0

    def to_line(self) -> bytes:
        """Return the line that is sent."""
        line: dict[str, Any] = {"do": self.command, "given": self.arguments, "notices": self.notices}
        return to_line(line | {"bytes": self.size} if self.size else line)

    @classmethod
    def from_line(cls, data: bytes) -> CommandRequest:
        """Read one. Raise `BadRequest`."""
        found = read(data)
        command, arguments = found.get("do"), found.get("given", {})
        notices = found.get("notices", False)
        if not (isinstance(command, str) and isinstance(arguments, dict) and isinstance(notices, bool)):
            raise BadRequest('expected {"do": text, "given": object, "notices": true or false}')
        return cls(command, arguments, notices, content_size(found))


def to_line(value: Mapping[str, Any]) -> bytes:
    """Return one line of JSON, in ASCII."""
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def error_answer(error: MmrError) -> dict[str, Any]:
    """Return the answer that reports an error."""
    found = {"code": error.code, "message": str(error)}
    return {"error": found | {"hint": error.hint} if error.hint else found}


def content_size(line: Mapping[str, Any]) -> int:
    """Return how many bytes of a file follow a line. Raise `BadRequest`."""
    size = line.get("bytes", 0)
    if type(size) is not int or not 0 <= size <= MAX_CONTENT:
        raise BadRequest(f"expected at most {MAX_CONTENT} bytes of a file")
    return size


def read(data: bytes) -> dict[str, Any]:
    """Return the object that a line holds. Raise `BadRequest`."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise BadRequest("expected one line of JSON") from None
    if not isinstance(found, dict):
        raise BadRequest("expected a JSON object")
    return found
