"""Devices of one user: listed, added with a code, removed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from mimi_mmr.app.agent.errors import NothingYet
from mimi_mmr.app.agent.operations.account import begin
from mimi_mmr.app.agent.operations.registry import operation
from mimi_mmr.app.agent.views import account_view
from mimi_mmr.app.agent.wire import Given

if TYPE_CHECKING:
    from mimi_mmr.app.agent.agent import Agent
    from mimi_mmr.app.agent.server import Say


@operation("device.list")
async def devices(agent: Agent, _: Given, __: Say) -> list[dict[str, Any]]:
    """Those of this user."""
    own = agent.client.device.name
    return [{"device": name, "own": name == own} for name in agent.client.devices()]


@operation("device.add", only_waits=True, changes=True)
async def add(agent: Agent, given: Given, say: Say) -> dict[str, Any]:
    """A code as an item; then, once the device that it was typed on is in, its name."""
    invitation = await agent.client.invite_device()
    agent.background.await_device(invitation)
    await say.item({"code": invitation.code, "expires": invitation.expiry})
    try:
        async with asyncio.timeout(given.number("wait")):
            while not invitation.device:
                await agent.happened.wait()
    except TimeoutError:
        raise NothingYet("no device has come with this code yet; it is good for an hour") from None
    return {"device": invitation.device}


@operation("device.join", changes=True)
async def join(agent: Agent, given: Given, _: Say) -> dict[str, Any]:
    """Be a further device of a user, by the code that an existing one shows."""
    client = begin(agent, given, agent.entering, entering=True)
    await agent.background.stop()
    try:
        await client.join_account(given.text("code"))
    finally:
        if client.registered:
            agent.begun()
        else:  # a code is good for one try, and so is this
            await agent.abandon()
    return account_view(client)


@operation("device.remove", changes=True)
async def remove(agent: Agent, given: Given, _: Say) -> dict[str, Any]:
    """Shut a device out: of the account, of every room, of every key it knew."""
    name = given.text("device")
    await agent.client.remove_device(name)
    agent.happened.ring()
    return {"device": name}
