"""`mimi-mmr room send, read`: the messages of a room."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field

from mimi_mmr.app.commands.context import AgentContext, Say
from mimi_mmr.app.commands.errors import NotFound, NothingYet
from mimi_mmr.app.commands.model import Argument, Command, Option
from mimi_mmr.app.commands.names import find_room
from mimi_mmr.app.commands.result import Result
from mimi_mmr.app.commands.room import Room
from mimi_mmr.errors import RemovedFromRoom, RoomError

if TYPE_CHECKING:
    from mimi_mmr.client import Membership, Message
    from mimi_mmr.uris import MimiUri

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
        raise RoomError(f"expected a text of 1 to {MAX_MESSAGE} bytes, got {size}")
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
        membership = find_room(agent.client, self.room)
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
        """Report messages; each is marked read once it was reported. Raise `NothingYet` if none came in time."""
        membership = await self._room(agent)
        told = await (_tell_all if self.everything else _tell_unread)(membership, say)

        async def tell_more() -> int:
            _check_member(agent, membership)
            return await _tell_unread(membership, say)

        while self.follow:
            await agent.changed.until(tell_more)
        if not told and self.wait:
            try:
                told = await agent.changed.until(tell_more, self.wait)
            except TimeoutError:
                raise NothingYet(f"no message within {self.wait:g} s") from None
        return ReadResult(room=str(membership.uri), told=told)

    async def _room(self, agent: AgentContext) -> Membership:
        """Return the room. Wait for it: somebody may be adding this client to it right now."""

        async def look() -> Membership | None:
            try:
                return find_room(agent.client, self.room)
            except NotFound:
                return None

        try:
            return await agent.changed.until(look, self.wait or 0.0)
        except TimeoutError:
            return find_room(agent.client, self.room)


async def _tell_all(membership: Membership, say: Say) -> int:
    messages = list(membership.messages.since(0))
    for message in messages:
        await say.item(MessageResult.of(membership.uri, message))
    membership.messages.mark_read(2**63)
    return len(messages)


async def _tell_unread(membership: Membership, say: Say) -> int:
    unread = list(membership.messages)
    for message in unread:
        await say.item(MessageResult.of(membership.uri, message))
        membership.messages.mark_read(message.number)
    return len(unread)


def _check_member(agent: AgentContext, membership: Membership) -> None:
    if membership.room.removed or membership.uri not in agent.client.rooms:
        raise RemovedFromRoom("this client is not a member of the room any more")


COMMANDS: tuple[type[Command], ...] = (SendMessage, ReadMessages)
