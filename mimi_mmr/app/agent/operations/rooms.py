"""Rooms: made, listed, renamed, left, joined by a link."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mimi_mmr.app.agent.errors import BadRequest
from mimi_mmr.app.agent.naming import find_room, people_rooms
from mimi_mmr.app.agent.operations.registry import operation
from mimi_mmr.app.agent.views import IDENTITIES, room_view
from mimi_mmr.app.agent.wire import Given

if TYPE_CHECKING:
    from mimi_mmr.app.agent.agent import Agent
    from mimi_mmr.app.agent.server import Say
    from mimi_mmr.client import Joined


def the_room(agent: Agent, given: Given) -> Joined:
    """The room that a command means."""
    return find_room(agent.client, given.text("room"))


@operation("room.create", changes=True)
async def create(agent: Agent, given: Given, _: Say) -> dict[str, Any]:
    """A new room on one's own provider."""
    identities = IDENTITIES.get(given.text("identities"))
    if identities is None:
        raise BadRequest(f"expected one of {', '.join(IDENTITIES)} as 'identities'")
    joined = await agent.client.create_room(identities, name=given.text_or_none("name") or "")
    agent.happened.ring()
    return room_view(agent.client, joined)


@operation("room.list")
async def rooms(agent: Agent, _: Given, __: Say) -> list[dict[str, Any]]:
    """Every room, those of two included."""
    return [room_view(agent.client, joined) for joined in people_rooms(agent.client)]


@operation("room.leave", changes=True)
async def leave(agent: Agent, given: Given, _: Say) -> dict[str, Any]:
    """Leave, which another member has to commit, a little later; forget a room that one is out of."""
    joined = the_room(agent, given)
    if joined.room.removed or given.flag("forget"):
        await agent.client.forget(joined)
    else:
        await agent.client.leave(joined)
    agent.happened.ring()
    return {"room": str(joined.uri), "forgotten": joined.uri not in agent.client.rooms}


@operation("room.rename")
async def rename(agent: Agent, given: Given, _: Say) -> dict[str, Any]:
    """Another name, that members alone can read."""
    joined = the_room(agent, given)
    await agent.client.rename(joined, given.text("name"))
    return room_view(agent.client, joined)


@operation("room.reveal")
async def reveal(agent: Agent, given: Given, _: Say) -> dict[str, Any]:
    """Show who one is, in a room that hides it."""
    joined = the_room(agent, given)
    await agent.client.reveal(joined)
    return room_view(agent.client, joined)


@operation("room.heal")
async def heal(agent: Agent, given: Given, _: Say) -> dict[str, Any]:
    """Fresh keys; and if nobody can follow the last commit, have the hub undo it."""
    joined = the_room(agent, given)
    if joined.unprocessed is not None:
        await agent.client.reopen(joined)
    else:
        await agent.client.update(joined)
    return room_view(agent.client, joined)


@operation("room.link")
async def link(agent: Agent, given: Given, _: Say) -> dict[str, Any]:
    """A link that lets whoever has it in."""
    joined = the_room(agent, given)
    made = await agent.client.create_link(
        joined, lifetime=given.number("lifetime"), uses=int(given.number("uses"))
    )
    return {"room": str(joined.uri), "link": made.uri}


@operation("room.revoke-links")
async def revoke_links(agent: Agent, given: Given, _: Say) -> dict[str, Any]:
    """No link of this room lets anybody in any more."""
    joined = the_room(agent, given)
    await agent.client.revoke_links(joined)
    return {"room": str(joined.uri)}


@operation("room.join", changes=True)
async def join(agent: Agent, given: Given, _: Say) -> dict[str, Any]:
    """Come in by a link."""
    joined = await agent.client.join_by_link(given.text("link"))
    agent.happened.ring()
    return room_view(agent.client, joined)
