"""A further device whose agent dies on its way into the account enters from the same home, by another code."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from mimi_mmr.app.agent.agent import Agent
from mimi_mmr.app.agent.home import Home
from mimi_mmr.app.commands.context import Say
from mimi_mmr.app.commands.device import JoinAccount
from mimi_mmr.app.commands.errors import AgentError
from mimi_mmr.client import Client
from mimi_mmr.client.devices.inviting import DeviceInvitation
from mimi_mmr.client.storage.vault import Vault
from tests.mimi_mmr.app.cli.people import PASSPHRASE
from tests.mimi_mmr.conftest import LiveWorld

NOBODY = cast(Say, None)  # this command says nothing before its result


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
        command = JoinAccount.from_request({**self.where, "device": device, "code": invitation.code})
        return (await command.run(agent, NOBODY)).model_dump()


async def let_in(alice: Client, invitation: DeviceInvitation) -> None:
    while not await alice.devices.tend_invitation(invitation, wait=5):
        pass


@pytest.mark.parametrize("registered", [False, True])
async def test_a_device_that_died_on_its_way_in_enters_from_the_same_home(
    live: LiveWorld, tmp_path: Path, registered: bool
) -> None:
    alice = await live.person("alice", "a.example")
    tablet = Tablet(live, tmp_path / "tablet")
    invitation = await alice.devices.invite()
    async with asyncio.timeout(60):
        async with tablet.agent() as agent:
            agent.delete_state = nothing  # type: ignore[method-assign]  # what is killed tidies nothing up
            joining = asyncio.create_task(tablet.join(agent, invitation))
            letting = asyncio.create_task(let_in(alice, invitation))
            while agent.account.entering is None or agent.account.registered is not registered:  # noqa: ASYNC110
                await asyncio.sleep(0)
            for task in (joining, letting):
                task.cancel()
            await asyncio.wait({joining, letting})
        async with tablet.agent() as agent:
            assert agent.account.registered is registered
            with pytest.raises(AgentError, match="this was to become a device of"):
                await tablet.join(agent, invitation, "watch")
            invitation = await alice.devices.invite()
            view, _ = await asyncio.gather(tablet.join(agent, invitation), let_in(alice, invitation))
            assert view["device"] == "tablet"
            while agent.client.devices.names() != alice.devices.names():
                await agent.changed.wait(1)
            with pytest.raises(AgentError, match="an account in this home already"):
                await tablet.join(agent, invitation)


async def nothing() -> None:
    """What a killed process does."""
