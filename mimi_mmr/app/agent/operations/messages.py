"""Messages: sent, read, waited for."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from mimi_mmr.app.agent.errors import NotFound, NothingYet
from mimi_mmr.app.agent.operations.registry import operation
from mimi_mmr.app.agent.operations.rooms import the_room
from mimi_mmr.app.agent.views import message_view
from mimi_mmr.app.agent.wire import Given
from mimi_mmr.errors import RemovedFromRoom, RoomError

if TYPE_CHECKING:
    from mimi_mmr.app.agent.agent import Agent
    from mimi_mmr.app.agent.server import Say
    from mimi_mmr.client import Joined

MAX_TEXT = 60_000  # bytes: a message is one MLS message, padded


@operation("room.send")
async def send(agent: Agent, given: Given, _: Say) -> dict[str, Any]:
    """Send a text."""
    joined, text = the_room(agent, given), given.text("text")
    size = len(text.encode(errors="replace"))
    if not 0 < size <= MAX_TEXT:
        raise RoomError(f"expected a text of 1 to {MAX_TEXT} bytes, got {size}")
    await agent.client.send(joined, text)
    agent.happened.ring()
    return {"room": str(joined.uri)}


@operation("room.read", only_waits=True)
async def read(agent: Agent, given: Given, say: Say) -> dict[str, Any]:
    """Messages that were not read, as items; each is marked read once it is out.

    `all`: those that were read as well, and one's own. `wait`: seconds to wait for the first, `follow`: for ever.
    """
    wait = given.number("wait") if given.values.get("wait") is not None else 0.0
    joined = await _the_room_soon(agent, given, wait)
    told = 0
    if given.flag("all"):
        for message in list(joined.messages.since(0)):
            await say.item(message_view(joined.uri, message))
            told += 1
        joined.messages.mark_read(2**63)
    else:
        told = await _tell_unread(joined, say)
    if given.flag("follow"):
        while True:
            rung = agent.happened.rung
            _check_there(agent, joined)
            if not await _tell_unread(joined, say):
                await agent.happened.wait(after=rung)
    if not told and wait:
        told = await _wait_for(agent, joined, say, wait)
    return {"room": str(joined.uri), "told": told}


async def _the_room_soon(agent: Agent, given: Given, seconds: float) -> Joined:
    """The room; one that somebody is adding this client to may take a moment to be there."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while True:
                try:
                    return the_room(agent, given)
                except NotFound:
                    await agent.happened.wait()
    return the_room(agent, given)


async def _wait_for(agent: Agent, joined: Joined, say: Say, seconds: float) -> int:
    try:
        async with asyncio.timeout(seconds):
            while True:
                await agent.happened.wait()
                _check_there(agent, joined)
                if told := await _tell_unread(joined, say):
                    return told
    except TimeoutError:
        raise NothingYet(f"no message within {seconds:g} s") from None


async def _tell_unread(joined: Joined, say: Say) -> int:
    unread = list(joined.messages)
    for message in unread:
        await say.item(message_view(joined.uri, message))
        joined.messages.mark_read(message.number)
    return len(unread)


def _check_there(agent: Agent, joined: Joined) -> None:
    if joined.room.removed or joined.uri not in agent.client.rooms:
        raise RemovedFromRoom("this client is not in the room any more")
