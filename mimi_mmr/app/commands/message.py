"""`mimi-mmr room send, read`: the messages of a room."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field

from mimi_mmr.app.commands.context import AgentContext, Say
from mimi_mmr.app.commands.current import named_room
from mimi_mmr.app.commands.errors import NotFound, NothingYet
from mimi_mmr.app.commands.model import Argument, Command, Option, ShortText
from mimi_mmr.app.commands.names import find_room
from mimi_mmr.app.commands.result import NoResult, Result
from mimi_mmr.app.commands.room import Room
from mimi_mmr.errors import RemovedFromRoom
from mimi_mmr.uris import Kind, MimiUri

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mimi_mmr.client import Membership, Message

MAX_MESSAGE = 60_000  # bytes: a text is one MLS message, padded


class SenderResult(Result):
    """Who sent a message, and how sure that is."""

    user: str | None
    pseudonym: str
    standing: Literal["verified", "unverified", "hidden"]


class FileResult(Result):
    """What the sender of a file says about it; `size` in bytes."""

    name: str
    size: int


class MessageResult(Result):
    """A message; `received` in seconds since 1970. Only a message of a file has `asset`."""

    room: str
    number: int
    received: int
    own: bool
    from_: SenderResult = Field(serialization_alias="from", validation_alias="from")
    kind: str
    text: str
    asset: FileResult | None = None

    @classmethod
    def of(cls, room: MimiUri, message: Message) -> MessageResult:
        """Describe a message in a room."""
        from mimi_mmr.protocol.content import AssetReference, ContentKind  # slow to import

        sender = message.sender
        found = cls(
            room=str(room),
            number=message.number,
            received=message.received,
            own=message.own,
            from_=SenderResult(
                user=str(sender.member.device.user) if sender.member else None,
                pseudonym=str(sender.user),
                standing=sender.standing.value,
            ),
            kind=message.content.kind.name.lower(),
            text=message.text,
        )
        if message.content.kind is not ContentKind.ASSET:
            return found
        reference = AssetReference.from_bytes(message.content.body)
        return found.model_copy(update={"asset": FileResult(name=reference.name, size=reference.size)})


class SentResult(Result):
    """The room that a message was sent to."""

    room: str


class ReadResult(Result):
    """The room that was read, and how many messages were shown."""

    room: str
    told: int


def _sendable(text: str) -> str:
    size = len(text.encode(errors="replace"))
    if not 0 < size <= MAX_MESSAGE:
        raise ValueError(f"expected a text of 1 to {MAX_MESSAGE} bytes, got {size}")
    return text


class SendMessage(Command, name="room.send", result=SentResult):
    """Send a message."""

    room: Room
    text: Annotated[
        str,
        AfterValidator(_sendable),
        Argument("The message; - reads it from stdin.", metavar="TEXT", stdin=True),
    ]

    async def run(self, agent: AgentContext, say: Say) -> SentResult:
        """Send the text."""
        membership = await named_room(agent, self.room, say)
        await agent.client.rooms.send(membership, self.text)
        agent.changed.wake()
        return SentResult(room=str(membership.uri))


class ReadMessages(Command, name="room.read", result=ReadResult, item=MessageResult, only_waits=True):
    """Read what is new in a room. With --json: one line for each message."""

    room: Room
    follow: Annotated[bool, Option("--follow -f", "Show new messages as they come, until Ctrl-C.")] = False
    wait: Annotated[
        float | None,
        Field(ge=0),
        Option("--wait", "If there is nothing new, wait so many seconds for something."),
    ] = None
    everything: Annotated[
        bool, Option("--all", "Also show your own messages, and those that were read before.")
    ] = False

    async def run(self, agent: AgentContext, say: Say) -> ReadResult:
        """Report messages, each once. `ShownMessages` marks them read. Raise `NothingYet` if none came in time."""
        membership = await self._room(agent, say)
        last = 0

        async def tell(messages: Iterable[Message]) -> int:
            nonlocal last
            told = 0
            for message in messages:
                if message.number > last:
                    await say.item(MessageResult.of(membership.uri, message))
                    last, told = message.number, told + 1
            return told

        async def tell_more() -> int:
            _check_member(agent, membership)
            return await tell(list(membership.messages))

        messages = membership.messages
        told = await tell(list(messages.since(0) if self.everything else messages))
        while self.follow:
            await agent.changed.until(tell_more)
        if not told and self.wait:
            try:
                told = await agent.changed.until(tell_more, self.wait)
            except TimeoutError:
                raise NothingYet(f"no message within {self.wait:g} s") from None
        return ReadResult(room=str(membership.uri), told=told)

    async def _room(self, agent: AgentContext, say: Say) -> Membership:
        """Return the room. Wait for it: somebody may be adding this client to it right now."""

        async def look() -> Membership | None:
            try:
                return find_room(agent.client, self.room)
            except NotFound:
                return None

        if self.wait:
            with suppress(TimeoutError):
                await agent.changed.until(look, self.wait)
        return await named_room(agent, self.room, say)


def _check_member(agent: AgentContext, membership: Membership) -> None:
    if membership.room.removed or membership.uri not in agent.client.rooms:
        raise RemovedFromRoom("this client is not a member of the room any more")


class ShownMessages(Command, name="room.shown", line="", result=NoResult):
    """Note what a person has seen: the messages of a room up to a number are read."""

    room: Annotated[ShortText, Argument("The room's URI, as in a message.")]
    number: Annotated[int, Field(ge=1), Argument("The number of the last message that was written out.")]

    async def run(self, agent: AgentContext, say: Say) -> NoResult:
        """Mark them read; do nothing if the room was forgotten meanwhile."""
        membership = agent.client.rooms.get(MimiUri.parse(self.room, Kind.ROOM))
        if membership is not None:
            membership.messages.mark_read(self.number)
        return NoResult()


COMMANDS: tuple[type[Command], ...] = (SendMessage, ReadMessages, ShownMessages)
