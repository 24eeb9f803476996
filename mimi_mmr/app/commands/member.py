"""`mimi-mmr room add, remove, admin, who`: the members of a room."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from mimi_mmr.app.commands.completion import UserNames
from mimi_mmr.app.commands.context import AgentContext, Say
from mimi_mmr.app.commands.current import named_room
from mimi_mmr.app.commands.errors import Ambiguous, NotFound
from mimi_mmr.app.commands.model import MAX_LIST, Argument, Command, Option, ShortText
from mimi_mmr.app.commands.names import address, find_contact, users_called
from mimi_mmr.app.commands.pasted import quoted, unwrapped
from mimi_mmr.app.commands.result import Result
from mimi_mmr.app.commands.room import Room, RoomResult
from mimi_mmr.errors import NoKeyPackages, RoomError

if TYPE_CHECKING:
    from mimi_mmr.client import Client, Contact, Membership
    from mimi_mmr.member.whois import Whois
    from mimi_mmr.uris import MimiUri

RETRY_SECONDS = 2.0


class MemberResult(Result):
    """A member's device in a room; `why` says what failed for one that is unverified."""

    leaf: int
    user: str | None
    device: str | None
    pseudonym: str
    role: str
    standing: Literal["verified", "unverified", "hidden"]
    why: str
    own: bool

    @classmethod
    def of(cls, entry: Whois, own_leaf: int) -> MemberResult:
        """Describe a member."""
        return cls(
            leaf=entry.leaf,
            user=str(entry.member.device.user) if entry.member else None,
            device=entry.member.device.device.name if entry.member else None,
            pseudonym=str(entry.user),
            role=entry.role.name.lower(),
            standing=entry.standing.value,
            why=entry.why,
            own=entry.leaf == own_leaf,
        )


class MembersResult(Result):
    """A room's members, by how sure it is who they are."""

    room: RoomResult
    verified: list[MemberResult]
    unverified: list[MemberResult]
    hidden: list[MemberResult]


class AddedResult(RoomResult):
    """A room, and the users who were added to it: nobody who was in it already."""

    added: list[str]


class RemovedResult(RoomResult):
    """A room, and the leaves that were removed from it."""

    removed: list[int]


class AddMembers(Command, name="room.add", result=AddedResult, changes=True):
    """Add contacts to a room."""

    room: Room
    users: Annotated[
        list[ShortText],
        Field(min_length=1, max_length=MAX_LIST),
        Argument("Contacts.", metavar="USER…", completes=UserNames),
    ]
    wait: Annotated[
        float, Field(ge=0), Option("--wait", "Seconds to wait for somebody who has just become a contact.")
    ] = 30.0

    async def run(self, agent: AgentContext, say: Say) -> AddedResult:
        """Add those who are no members yet. Wait for KeyPackages of a single contact who has published none."""
        client, end = agent.client, time.monotonic() + self.wait
        membership = await named_room(agent, self.room, say)
        contacts = [find_contact(client, text) for text in self.users]
        _check_connected(contacts)
        while True:
            try:
                added = await _add(client, membership, contacts, say)
            except NoKeyPackages:
                # With several contacts, each try would use up a KeyPackage of those who have some.
                if len(contacts) > 1 or time.monotonic() > end:
                    raise
                await agent.changed.wait(RETRY_SECONDS)
            else:
                about = dict(RoomResult.of(client, membership))
                return AddedResult(**about, added=[str(user) for user in added])


def _check_connected(contacts: Sequence[Contact]) -> None:
    for contact in contacts:
        name = address(contact.user)
        if contact.blocked:
            raise RoomError(f"{name} is blocked").with_hint(f"`mimi-mmr contact unblock {name}`")
        if contact.room is None:
            raise RoomError(f"you are not connected with {name} any more: a block has ended that").with_hint(
                "`mimi-mmr contact add CODE`, with their contact code, connects you again"
            )


async def _add(
    client: Client, membership: Membership, contacts: Sequence[Contact], say: Say
) -> list[MimiUri]:
    for contact in contacts:
        if contact.theirs is None:
            raise NoKeyPackages(
                f"{address(contact.user)} has not yet sent the key with which KeyPackages are fetched"
            )
    return await client.rooms.add(membership, contacts, lambda error: say.note(f"waiting: {error}"))


class RemoveMembers(Command, name="room.remove", result=RemovedResult):
    """Remove people from a room."""

    room: Room
    who: Annotated[
        list[ShortText],
        Field(min_length=1, max_length=MAX_LIST),
        Argument("A name, pseudonym, or leaf as `who` shows it.", metavar="USER|LEAF…"),
    ]

    async def run(self, agent: AgentContext, say: Say) -> RemovedResult:
        """Remove every leaf that is meant."""
        membership = await named_room(agent, self.room, say)
        members = agent.client.rooms.who(membership)
        leaves = sorted({leaf for text in self.who for leaf in _leaves(members, text)})
        if membership.room.own_leaf in leaves:
            raise RoomError("you can't remove yourself").with_hint("`mimi-mmr room leave ROOM`")
        await agent.client.rooms.remove(membership, leaves)
        return RemovedResult(**dict(RoomResult.of(agent.client, membership)), removed=leaves)


def _leaves(members: Iterable[Whois], text: str) -> list[int]:
    """Return the leaves of the member who is meant: by leaf number, name, or pseudonym.

    Raise `NotFound`; `Ambiguous` for a name of several people, or the number of one and the name of another.
    """
    wanted, members = unwrapped(text), list(members)
    if pseudonymous := [entry.leaf for entry in members if wanted == str(entry.user)]:
        return pseudonymous
    users = {entry.leaf: entry.member.device.user for entry in members if entry.member is not None}
    named = users_called(set(users.values()), wanted)
    leaves = [entry.leaf for entry in members if wanted == str(entry.leaf) or users.get(entry.leaf) in named]
    if not leaves:
        raise NotFound(f"no member has the name, pseudonym or leaf {quoted(text)}").with_hint(
            "`mimi-mmr room who ROOM` shows all members"
        )
    if len({users.get(leaf) for leaf in leaves}) > 1:
        which = ", ".join(f"leaf {leaf} ({_called(users.get(leaf))})" for leaf in leaves)
        raise Ambiguous(f"several members are called like this: {which}; use a whole name or a pseudonym")
    return leaves


def _called(user: MimiUri | None) -> str:
    return "?" if user is None else address(user)


class ChangeAdmin(Command, name="room.admin", result=RoomResult):
    """Make a member an admin."""

    room: Room
    who: Annotated[ShortText, Argument("A name, pseudonym, or leaf.", metavar="USER|LEAF")]
    revoke: Annotated[bool, Option("--revoke", "Make them an ordinary member.")] = False

    async def run(self, agent: AgentContext, say: Say) -> RoomResult:
        """Change the role of the member's user pseudonym."""
        membership = await named_room(agent, self.room, say)
        members = agent.client.rooms.who(membership)
        leaf = _leaves(members, self.who)[0]
        user = next(entry.user for entry in members if entry.leaf == leaf)
        await agent.client.rooms.make_admin(membership, user, admin=not self.revoke)
        return RoomResult.of(agent.client, membership)


class ShowMembers(Command, name="room.who", result=MembersResult):
    """Show the members of a room: verified, unverified, hidden."""

    room: Room

    async def run(self, agent: AgentContext, say: Say) -> MembersResult:
        """Verify every member; report the progress."""
        membership = await named_room(agent, self.room, say)
        members = [
            MemberResult.of(entry, membership.room.own_leaf)
            for entry in agent.client.rooms.who(membership, say.progress)
        ]
        return MembersResult(
            room=RoomResult.of(agent.client, membership),
            verified=[member for member in members if member.standing == "verified"],
            unverified=[member for member in members if member.standing == "unverified"],
            hidden=[member for member in members if member.standing == "hidden"],
        )


COMMANDS: tuple[type[Command], ...] = (AddMembers, RemoveMembers, ChangeAdmin, ShowMembers)
