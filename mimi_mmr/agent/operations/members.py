"""Who is in a room, who comes, who goes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from mimi_mmr.agent.errors import AgentError, NotFound
from mimi_mmr.agent.naming import find_contact, user_names
from mimi_mmr.agent.operations.registry import operation
from mimi_mmr.agent.operations.rooms import the_room
from mimi_mmr.agent.views import member_view, room_view
from mimi_mmr.agent.wire import Given
from mimi_mmr.room import Whois

if TYPE_CHECKING:
    from mimi_mmr.agent.agent import Agent
    from mimi_mmr.agent.server import Say
    from mimi_mmr.client import Joined


@operation("room.add", changes=True)
async def add(agent: Agent, given: Given, _: Say) -> dict[str, Any]:
    """Add contacts."""
    joined = the_room(agent, given)
    contacts = [find_contact(agent.client, text) for text in given.texts("users")]
    for contact in contacts:
        if contact.blocked:
            raise AgentError(f"{contact.user} is blocked: mimi-mmr contact unblock")
        if contact.theirs is None:
            raise AgentError(
                f"{contact.user} has not sent a connection key yet, without which nobody can be added: try again"
                " when they have been online"
            )
    await agent.client.add(joined, contacts)
    return room_view(agent.client, joined)


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


def others(joined: Joined) -> int:
    """How many leaves beside one's own."""
    return len(joined.room.participants()) - 1
