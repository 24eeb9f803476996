"""`mimi-mmr asset`: files that are sent to a room."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from mimi_mmr.app.commands.context import AgentContext, Say
from mimi_mmr.app.commands.errors import AgentError, NotFound
from mimi_mmr.app.commands.model import AbsolutePath, Argument, Command, Option
from mimi_mmr.app.commands.names import find_room
from mimi_mmr.app.commands.result import Result
from mimi_mmr.app.commands.room import Room

if TYPE_CHECKING:
    from mimi_mmr.client import Membership, Message

MAX_ASSET = 64 << 20
MAX_NAME = 200


class SentFileResult(Result):
    """A file that was sent to a room; `size` in bytes."""

    room: str
    name: str
    size: int


class FetchedFileResult(Result):
    """A file that was fetched from a room, and the path where it is now; `size` in bytes."""

    room: str
    number: int
    file: str
    size: int


class PutAsset(Command, name="asset.put", result=SentFileResult):
    """Send a file to a room, encrypted."""

    room: Room
    file: Annotated[AbsolutePath, Argument("The file, of at most 64 MiB.", metavar="FILE", existing="file")]

    async def run(self, agent: AgentContext, say: Say) -> SentFileResult:
        """Upload the file to the provider's asset host, and send the room a reference to it."""
        membership = find_room(agent.client, self.room)
        size = self.file.stat().st_size
        if size > MAX_ASSET or not self.file.is_file():
            raise AgentError(f"expected a file of at most {MAX_ASSET >> 20} MiB, got {size} bytes")
        name, data = self.file.name[:MAX_NAME], self.file.read_bytes()
        reference = await agent.client.rooms.assets.send(membership, name, data)
        agent.changed.wake()
        return SentFileResult(room=str(membership.uri), name=reference.name, size=reference.size)


class GetAsset(Command, name="asset.get", result=FetchedFileResult):
    """Fetch a file from a room. Nothing is overwritten."""

    room: Room
    number: Annotated[int, Argument("The file's number, as `room read` shows it.", metavar="N")]
    out: Annotated[
        AbsolutePath,
        Option(
            "--out", "File or directory to write to. Default: here, with the name that its sender gave it."
        ),
    ] = Field(default_factory=Path.cwd)

    async def run(self, agent: AgentContext, say: Say) -> FetchedFileResult:
        """Fetch the file into a new file."""
        from mimi_mmr.protocol.content import AssetReference  # slow to import

        membership = find_room(agent.client, self.room)
        message = _file_message(membership, self.number)
        reference = AssetReference.from_bytes(message.content.body)
        target = self.out / safe_name(reference.name) if self.out.is_dir() else self.out
        if target.exists():
            raise AgentError(f"{target} exists, and nothing is overwritten: name another file with --out")
        _write_new(target, await agent.client.rooms.assets.fetch(membership, message))
        return FetchedFileResult(
            room=str(membership.uri), number=self.number, file=str(target), size=reference.size
        )


def _file_message(membership: Membership, number: int) -> Message:
    from mimi_mmr.protocol.content import ContentKind  # slow to import

    message = membership.messages.get(number)
    if message is None or message.content.kind is not ContentKind.ASSET:
        raise NotFound(
            f"message {number} of this room is not a file: mimi-mmr room read --all shows all numbers"
        )
    return message


def safe_name(name: str) -> str:
    """Return a file name for the one that a sender gave: in no other directory, not hidden, printable."""
    last = name.replace("\\", "/").rpartition("/")[2]
    safe = "".join(letter if letter.isprintable() else "_" for letter in last).strip().lstrip(".- ")
    return safe.encode()[:MAX_NAME].decode(errors="ignore") or "file"


def _write_new(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


COMMANDS: tuple[type[Command], ...] = (PutAsset, GetAsset)
