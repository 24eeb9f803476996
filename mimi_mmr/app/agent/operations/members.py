"""Who is in a room, who comes, who goes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from mimi_mmr.app.agent.errors import AgentError, NotFound
from mimi_mmr.app.agent.naming import find_contact, user_names
from mimi_mmr.app.agent.operations.registry import operation
from mimi_mmr.app.agent.operations.rooms import the_room
from mimi_mmr.app.agent.views import address, member_view, room_view
from mimi_mmr.app.agent.wire import Given
from mimi_mmr.errors import NoKeyPackages
from mimi_mmr.member.whois import Whois

if TYPE_CHECKING:
    from mimi_mmr.app.agent.agent import Agent
    from mimi_mmr.app.agent.server import Say
    from mimi_mmr.client import Client, Contact, Joined

RETRY_SECONDS = 2.0


@operation("room.add", changes=True)
async def add(agent: Agent, given: Given, _: Say) -> dict[str, Any]:
    """Add contacts; `wait` so many seconds for one who has left no KeyPackages yet."""
    joined = the_room(agent, given)
    contacts = [find_contact(agent.client, text) for text in given.texts("users")]
    blocked = next((contact for contact in contacts if contact.blocked), None)
    if blocked is not None:
        raise AgentError(
            f"{address(blocked.user)} is blocked: mimi-mmr contact unblock {address(blocked.user)}"
        )
    end = agent.clock() + given.number("wait")
    while True:
        try:
            await _add(agent.client, joined, contacts)
        except NoKeyPackages:
            # Of several, those who have some would lose a set with every try.
            if len(contacts) > 1 or agent.clock() > end:
                raise
            await agent.happened.wait(RETRY_SECONDS)
        else:
            return room_view(agent.client, joined)


async def _add(client: Client, joined: Joined, contacts: Sequence[Contact]) -> None:
    for contact in contacts:
        if contact.theirs is None:
            raise NoKeyPackages(
                f"{address(contact.user)} has not sent the key yet that KeyPackages are fetched with"
            )
    await client.add(joined, contacts)


@operation("room.remove")
async def remove(agent: Agent, given: Given, _: Say) -> dict[str, Any]:
    """Remove people, or single leaves where names are hidden."""
    joined = the_room(agent, given)
    members = agent.client.who(joined)
    leaves = sorted({leaf for text in given.texts("who") for leaf in _leaves(members, text)})
    if joined.room.own_leaf in leaves:
        raise AgentError("nobody removes themselves: mimi-mmr room leave")
    await agent.client.remove(joined, leaves)
    return room_view(agent.client, joined) | {"removed": leaves}


def _leaves(members: Iterable[Whois], text: str) -> list[int]:
    """Whom a person means: a leaf's number, a name, or a pseudonym."""
    found = [
        entry.leaf
        for entry in members
        if text in (str(entry.leaf), str(entry.user))
        or (entry.member is not None and text in user_names(entry.member.device.user))
    ]
    if not found:
        raise NotFound("no member of this name, pseudonym or leaf: mimi-mmr room who shows those there are")
    return found


@operation("room.admin")
async def admin(agent: Agent, given: Given, _: Say) -> dict[str, Any]:
    """Make a member an admin, or none."""
    joined = the_room(agent, given)
    members = agent.client.who(joined)
    leaf = _leaves(members, given.text("who"))[0]
    user = next(entry.user for entry in members if entry.leaf == leaf)
    await agent.client.make_admin(joined, user, admin=not given.flag("revoke"))
    return room_view(agent.client, joined)


@operation("room.who")
async def who(agent: Agent, given: Given, say: Say) -> dict[str, Any]:
    """Every member; what can't be verified, and what is hidden, apart."""
    joined = the_room(agent, given)
    members = agent.client.who(joined, say.progress)
    views = [member_view(entry, joined.room.own_leaf) for entry in members]
    found: dict[str, Any] = {"room": room_view(agent.client, joined)}
    for standing in ("verified", "unverified", "hidden"):
        found[standing] = [view for view in views if view["standing"] == standing]
    return found
