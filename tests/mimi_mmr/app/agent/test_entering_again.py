"""A further device whose agent dies on its way into the account enters from the same home, by another code."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from mimi_mmr.app.agent.agent import Agent
from mimi_mmr.app.agent.errors import AgentError
from mimi_mmr.app.agent.home import Home
from mimi_mmr.app.agent.operations.devices import join
from mimi_mmr.app.agent.server import Say
from mimi_mmr.app.agent.wire import Given
from mimi_mmr.client import Client
from mimi_mmr.client.devices.enrolling import DeviceInvitation
from mimi_mmr.client.storage.vault import Vault
from tests.mimi_mmr.app.cli.people import PASSPHRASE
from tests.mimi_mmr.conftest import LiveWorld

NOBODY = cast(Say, None)  # this operation says nothing before its result


class Tablet:
    """Where the further device is to be."""

    def __init__(self, live: LiveWorld, path: Path) -> None:
        self.home = Home(path)
        self.home.make()
        self.where = {
            "user": "alice",
            "domain": "a.example",
            "provider": live.world.providers["a.example"].url,
            "trust": str(live.world.trust_dir),
            "tls_ca": str(live.world.ca_file),
            "key_package_slot": 0.05,
        }

    @asynccontextmanager
    async def agent(self) -> AsyncIterator[Agent]:
        open_ = Vault.open if self.home.state.exists() else Vault.create
        agent = Agent(self.home, open_(self.home.state, PASSPHRASE))
        try:
            agent.open()
            yield agent
        finally:
            await agent.close()

    async def join(
        self, agent: Agent, invitation: DeviceInvitation, device: str = "tablet"
    ) -> dict[str, Any]:
        given = Given({**self.where, "device": device, "code": invitation.code})
        return await join(agent, given, NOBODY)


async def let_in(alice: Client, invitation: DeviceInvitation) -> None:
    while not await alice.tend_invitation(invitation, wait=5):
        pass


@pytest.mark.parametrize("registered", [False, True])
async def test_a_device_that_died_on_its_way_in_enters_from_the_same_home(
    live: LiveWorld, tmp_path: Path, registered: bool
) -> None:
    alice = await live.person("alice", "a.example")
    tablet = Tablet(live, tmp_path / "tablet")
    invitation = await alice.invite_device()
    async with asyncio.timeout(60):
        async with tablet.agent() as agent:
            agent.abandon = nothing  # type: ignore[method-assign]  # what is killed tidies nothing up
            joining = asyncio.create_task(tablet.join(agent, invitation))
            letting = asyncio.create_task(let_in(alice, invitation))
            while agent.entering is None or agent.has_account is not registered:  # noqa: ASYNC110
                await asyncio.sleep(0)
            for task in (joining, letting):
                task.cancel()
            await asyncio.wait({joining, letting})
        async with tablet.agent() as agent:
            assert agent.has_account is registered
            with pytest.raises(AgentError, match="this was to become a device of"):
                await tablet.join(agent, invitation, "watch")
            invitation = await alice.invite_device()
            view, _ = await asyncio.gather(tablet.join(agent, invitation), let_in(alice, invitation))
            assert view["device"] == "tablet"
            while agent.client.devices() != alice.devices():
                await agent.happened.wait(1)
            with pytest.raises(AgentError, match="an account in this home already"):
                await tablet.join(agent, invitation)


async def nothing() -> None:
    """What a killed process does."""
