"""How the agent and the client in it are, and names for a shell to complete."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from mimi_mmr.app.agent.naming import people_rooms, room_names
from mimi_mmr.app.agent.operations.registry import operation
from mimi_mmr.app.agent.views import account_view, address, short_id
from mimi_mmr.app.agent.wire import Given

if TYPE_CHECKING:
    from mimi_mmr.app.agent.agent import Agent
    from mimi_mmr.app.agent.server import Say


@operation("status")
async def status(agent: Agent, _: Given, __: Say) -> dict[str, Any]:
    """All of it; the notices are then told, and gone."""
    client = agent.client
    rooms = people_rooms(client)
    return {
        "account": account_view(client),
        "pid": os.getpid(),
        "rooms": len(rooms),
        "unread": sum(len(joined.messages) for joined in rooms),
        "contacts": sum(1 for contact in client.contacts.values() if not contact.blocked),
        "requests_in": len(agent.requests),
        "requests_out": len(client.outgoing),
        "notices": [{"when": notice.when, "text": notice.text} for notice in client.notices.take()],
        "trouble": dict(agent.background.trouble),
        "refused": list(client.refused[-10:]),
    }


@operation("ping")
async def ping(agent: Agent, _: Given, __: Say) -> dict[str, Any]:
    """That it is there."""
    return {"pid": os.getpid(), "account": str(agent.client.user) if agent.has_account else None}


@operation("stop")
async def stop(agent: Agent, _: Given, __: Say) -> dict[str, Any]:
    """End; nothing is lost."""
    agent.stopping.set()
    return {"pid": os.getpid()}


@operation("tend")
async def tend(agent: Agent, _: Given, __: Say) -> dict[str, Any]:
    """Have the client do what is due, now."""
    agent.client  # noqa: B018  # raises while there is none
    await agent.background.tend()
    agent.wanted.ring()
    return {}


@operation("complete.rooms")
async def complete_rooms(agent: Agent, _: Given, __: Say) -> list[str]:
    """What rooms may be called by; of several with one name, their ids."""
    rooms = people_rooms(agent.client)
    names = [name for joined in rooms for name in room_names(agent.client, joined)]
    once = {name for name in names if names.count(name) == 1 and "://" not in name}
    return sorted(once | {short_id(joined.uri) for joined in rooms})


@operation("complete.users")
async def complete_users(agent: Agent, _: Given, __: Say) -> list[str]:
    """Contacts and those who ask or were asked."""
    client = agent.client
    asking = (incoming.device.user for incoming in agent.requests)
    return sorted({address(user) for user in (*client.contacts, *client.outgoing, *asking)})
