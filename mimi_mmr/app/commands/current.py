"""The room that a command names, up to date: read first, if that was not done since the agent's start."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mimi_mmr.app.commands.context import AgentContext, Say
from mimi_mmr.app.commands.errors import NotFound
from mimi_mmr.app.commands.names import find_room, label

if TYPE_CHECKING:
    from mimi_mmr.client import Membership


async def named_room(agent: AgentContext, text: str, say: Say) -> Membership:
    """Return the room that is meant. Raise `NotFound` or `Ambiguous`.

    Waits a few seconds for the provider. If it can't be reached, a note says as of when the room is known.
    """
    try:
        membership = find_room(agent.client, text)
    except NotFound:
        await agent.background.first_look()  # somebody may have added this client while no agent was running
        membership = find_room(agent.client, text)
    if problem := await agent.background.read_now(membership):
        say.note(f"{label(agent.client, membership)} is not up to date: {problem}")
    return membership
