"""`mimi-mmr asset`: files that are sent to a room."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from mimi_mmr.app.commands.context import AgentContext, Say
from mimi_mmr.app.commands.current import named_room
from mimi_mmr.app.commands.errors import NotFound
from mimi_mmr.app.commands.model import AbsolutePath, Argument, Command, Option, ShortText
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


class FileToFetch(Result):
    """A file before it is fetched: its name, which leads to no other directory, and its size in bytes."""

    name: str
    size: int


class PutAsset(Command, name="asset.put", result=SentFileResult):
    """Send a file to a room, encrypted."""

    room: Room
    file: Annotated[
        AbsolutePath, Argument("The file or pipe, of at most 64 MiB.", metavar="FILE", existing="file")
    ]
    name: Annotated[
        ShortText | None,
        Field(min_length=1),
        Option("--name", "The name that the room gets. Default: the file's own."),
    ] = None

    async def run(self, agent: AgentContext, say: Say) -> SentFileResult:
        """Upload the file that came with the command to the provider's asset host; send the room a reference."""
        membership = await named_room(agent, self.room, say)
        name = (self.name or self.file.name)[:MAX_NAME]
        reference = await agent.client.rooms.assets.send(membership, name, say.content)
        agent.changed.wake()
        return SentFileResult(room=str(membership.uri), name=reference.name, size=reference.size)


class GetAsset(Command, name="asset.get", result=FetchedFileResult, only_waits=True):
    """Fetch a file from a room. Nothing is overwritten."""

    room: Room
    number: Annotated[int, Argument("The file's number, as `room read` shows it.", metavar="N")]
    out: Annotated[
        AbsolutePath,
        Option(
            "--out",
            "File or directory to write to; - is standard output. Default: here, with the name that its sender gave"
            " it.",
            local=True,
            stdout=True,
        ),
    ] = Field(default_factory=Path.cwd)

    async def run(self, agent: AgentContext, say: Say) -> FetchedFileResult:
        """Report the file's name, then fetch and send its content; whoever asked writes the file."""
        from mimi_mmr.protocol.content import AssetReference  # slow to import

        membership = await named_room(agent, self.room, say)
        message = _file_message(membership, self.number)
        reference = AssetReference.from_bytes(message.content.body)
        name = safe_name(reference.name)
        await say.item(FileToFetch(name=name, size=reference.size))
        await say.file(await agent.client.rooms.assets.fetch(membership, message))
        return FetchedFileResult(room=str(membership.uri), number=self.number, file=name, size=reference.size)


def _file_message(membership: Membership, number: int) -> Message:
    from mimi_mmr.protocol.content import ContentKind  # slow to import

    message = membership.messages.get(number)
    if message is None or message.content.kind is not ContentKind.ASSET:
        raise NotFound(f"message {number} of this room is not a file").with_hint(
            "`mimi-mmr room read ROOM --all` shows all numbers"
        )
    return message


def safe_name(name: str) -> str:
    """Return a file name for the one that a sender gave: in no other directory, not hidden, printable."""
    last = name.replace("\\", "/").rpartition("/")[2]
    safe = "".join(letter if letter.isprintable() else "_" for letter in last).strip().lstrip(".- ")
    return safe.encode()[:MAX_NAME].decode(errors="ignore") or "file"


COMMANDS: tuple[type[Command], ...] = (PutAsset, GetAsset)
