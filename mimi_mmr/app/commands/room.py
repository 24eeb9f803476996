"""`mimi-mmr room`: make rooms, list them, change them, leave them, join them by a link."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field

from mimi_mmr.app.commands.completion import RoomNames
from mimi_mmr.app.commands.context import AgentContext, Say
from mimi_mmr.app.commands.current import named_room
from mimi_mmr.app.commands.model import Argument, Command, Option, ShortText
from mimi_mmr.app.commands.names import all_rooms, contact_in, people_rooms, short_id
from mimi_mmr.app.commands.pasted import check_kind, is_reference, plain_name, unwrapped
from mimi_mmr.app.commands.result import Result

if TYPE_CHECKING:
    from mimi_mmr.client import Client, Membership
    from mimi_mmr.protocol.room.policy import Identities

SHOWN_PROBLEMS = 10
UNITS = {"m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
WhoSeesNames = Literal["everyone", "admins", "nobody"]
RoomState = Literal["joined", "desynchronised", "older-copy", "removed", "left"]


class RoomResult(Result):
    """A room. `with` is the contact of a direct room; `identities` says who sees members' names."""

    room: str
    id: str
    name: str
    kind: Literal["direct", "room"]
    with_: str | None = Field(serialization_alias="with", validation_alias="with")
    members: int
    identities: WhoSeesNames
    role: str
    unread: int
    lost: int
    state: RoomState
    problems: list[str]

    @classmethod
    def of(cls, client: Client, membership: Membership) -> RoomResult:
        """Describe a room of a client."""
        contact, room = contact_in(client, membership), membership.room
        pseudonym = membership.leaf.identity.credential.user_pseudonym
        policy = room.policy.policy
        return cls(
            room=str(membership.uri),
            id=short_id(membership.uri),
            name=room.members_only.state.name,
            kind="direct" if contact else "room",
            with_=str(contact.user) if contact else None,
            members=len({leaf.credential.user_pseudonym for leaf in room.members.identities.values()}),
            identities=next(name for name, kind in identity_policies().items() if kind == policy.identities),
            role=policy.role(pseudonym).name.lower(),
            unread=len(membership.messages),
            lost=membership.lost,
            state=_state(membership),
            problems=list(membership.problems[-SHOWN_PROBLEMS:]),
        )


def _state(membership: Membership) -> RoomState:
    if membership.left:
        return "left"
    if membership.room.removed:
        return "removed"
    if membership.desynchronised:
        return "desynchronised"
    return "older-copy" if membership.older_copy else "joined"


def identity_policies() -> dict[WhoSeesNames, Identities]:
    """Return the policy of each word for who sees members' names."""
    from mimi_mmr.protocol.room.policy import Identities  # slow to import

    return {
        "everyone": Identities.EVERYONE,
        "admins": Identities.ADMINS_ONLY,
        "nobody": Identities.NOBODY,
    }


class LeftResult(Result):
    """A room that was left; `forgotten` if it is gone from this device, too."""

    room: str
    forgotten: bool


class JoinLinkResult(Result):
    """A room, and the join link that was made for it; without `link`, its links were revoked."""

    room: str
    link: str | None = None


# --- arguments ----------------------------------------------------------------------------------------


Room = Annotated[
    ShortText,
    Argument(
        "Its name, the beginning of its id, or its URI; or a contact.", metavar="ROOM", completes=RoomNames
    ),
]


def _room_name(text: str) -> str:
    name = plain_name(text)
    if is_reference(name):
        raise ValueError(
            "expected a name that can't be mistaken for a room's id, a URI, a link or an address"
        )
    return name


RoomName = Annotated[ShortText, AfterValidator(_room_name)]


def _duration(text: str) -> str:
    if not re.fullmatch(r"\d{1,6}[mhdw]", text, re.ASCII):
        raise ValueError("expected a number and m, h, d or w, as in 1d")
    return text


# --- commands -----------------------------------------------------------------------------------------


class CreateRoom(Command, name="room.create", result=RoomResult, changes=True):
    """Make a room at your own provider."""

    name: Annotated[RoomName | None, Option("--name", "Its name; only members can read it.")] = None
    identities: Annotated[WhoSeesNames, Option("--identities", "Who sees members' names.")] = "everyone"

    async def run(self, agent: AgentContext, say: Say) -> RoomResult:
        """Make the room."""
        membership = await agent.client.rooms.create(
            identity_policies()[self.identities], name=self.name or ""
        )
        agent.changed.wake()
        return RoomResult.of(agent.client, membership)


class ListRooms(Command, name="room.list", result=list[RoomResult]):
    """List rooms, and how much is unread in them."""

    everything: Annotated[bool, Option("--all", "Also list rooms that you have left.")] = False

    async def run(self, agent: AgentContext, say: Say) -> list[RoomResult]:
        """Return the rooms, direct ones included."""
        rooms = (all_rooms if self.everything else people_rooms)(agent.client)
        return [RoomResult.of(agent.client, membership) for membership in rooms]


class RenameRoom(Command, name="room.rename", result=RoomResult):
    """Give a room another name."""

    room: Room
    name: Annotated[RoomName, Argument("Its new name.", metavar="NAME")]

    async def run(self, agent: AgentContext, say: Say) -> RoomResult:
        """Change the members-only state."""
        membership = await named_room(agent, self.room, say)
        await agent.client.rooms.rename(membership, self.name)
        return RoomResult.of(agent.client, membership)


class LeaveRoom(Command, name="room.leave", result=LeftResult, changes=True):
    """Leave a room: it is listed no more, and another member's device removes you when it is online.

    A room without another member is deleted here at once, with its messages.
    """

    room: Room
    forget: Annotated[
        bool, Option("--forget", "Drop it and its messages from this device, whether others know or not.")
    ] = False

    async def run(self, agent: AgentContext, say: Say) -> LeftResult:
        """Ask to be removed; forget a room that this client is not a member of any more."""
        membership = await named_room(agent, self.room, say)
        if membership.room.removed or self.forget:
            await agent.client.rooms.forget(membership)
        else:
            await agent.client.rooms.leave(membership)
        agent.changed.wake()
        return LeftResult(room=str(membership.uri), forgotten=membership.uri not in agent.client.rooms)


class LinkRoom(Command, name="room.link", result=JoinLinkResult):
    """Make a join link: whoever has it can join the room."""

    room: Room
    uses: Annotated[int, Field(ge=1, le=10_000), Option("--uses", "How many people may join with it.")] = 1
    expires: Annotated[
        str, AfterValidator(_duration), Option("--expires", "How long it is valid: 30m, 12h, 1d, 2w…")
    ] = "1d"
    revoke: Annotated[bool, Option("--revoke", "Make no link; end all links of this room.")] = False

    async def run(self, agent: AgentContext, say: Say) -> JoinLinkResult:
        """Make a link, or revoke all."""
        membership = await named_room(agent, self.room, say)
        if self.revoke:
            await agent.client.rooms.links.revoke(membership)
            return JoinLinkResult(room=str(membership.uri))
        lifetime = int(self.expires[:-1]) * UNITS[self.expires[-1]]
        made = await agent.client.rooms.links.create(membership, lifetime=lifetime, uses=self.uses)
        return JoinLinkResult(room=str(membership.uri), link=made.uri)


class JoinRoom(Command, name="room.join", result=RoomResult, changes=True):
    """Join a room by a link."""

    link: Annotated[ShortText, Argument("The join link.", metavar="LINK")]

    async def run(self, agent: AgentContext, say: Say) -> RoomResult:
        """Join."""
        link = unwrapped(self.link)
        check_kind(link, "mimi-join:")
        membership = await agent.client.rooms.join(link)
        agent.changed.wake()
        return RoomResult.of(agent.client, membership)


class RevealName(Command, name="room.reveal", result=RoomResult):
    """Show your name in a room that hides names. This can't be undone."""

    room: Room

    async def run(self, agent: AgentContext, say: Say) -> RoomResult:
        """Publish the identity link key of this client's leaf."""
        membership = await named_room(agent, self.room, say)
        await agent.client.rooms.reveal(membership)
        return RoomResult.of(agent.client, membership)


class HealRoom(Command, name="room.heal", result=RoomResult):
    """Replace this device's keys in a room. An admin also undoes a commit that nobody can follow."""

    room: Room

    async def run(self, agent: AgentContext, say: Say) -> RoomResult:
        """Commit fresh keys, or have the hub undo the last commit."""
        membership = await named_room(agent, self.room, say)
        if membership.blocked:
            await agent.client.rooms.reopen(membership)
        else:
            await agent.client.rooms.heal(membership)
        return RoomResult.of(agent.client, membership)


COMMANDS: tuple[type[Command], ...] = (
    CreateRoom,
    ListRooms,
    RenameRoom,
    LeaveRoom,
    LinkRoom,
    JoinRoom,
    RevealName,
    HealRoom,
)
