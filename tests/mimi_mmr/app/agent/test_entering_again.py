"""A first try that was lost in the middle is finished by the same words: what was begun supplies its names."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from mimi_mmr.app.agent.account import default_device
from mimi_mmr.app.agent.agent import Agent
from mimi_mmr.app.agent.home import Home
from mimi_mmr.app.agent.server import AnswerLines
from mimi_mmr.app.cli.files import read_trust
from mimi_mmr.app.commands.account import CreateAccount, NewDevice
from mimi_mmr.app.commands.device import JoinAccount
from mimi_mmr.app.commands.errors import AgentError, NotBegun, Unfinished
from mimi_mmr.client import Client
from mimi_mmr.client.devices.inviting import DeviceInvitation
from mimi_mmr.client.storage.vault import Vault
from mimi_mmr.client.transport.private_path import PrivatePath
from mimi_mmr.errors import DeviceRefused, NotAllowed, NotReached, PeerError, QueueFull
from mimi_mmr.provider.store import accounts as account_store
from tests.mimi_mmr.app.cli.people import PASSPHRASE
from tests.mimi_mmr.conftest import LiveWorld

NOBODY = cast(asyncio.StreamWriter, None)  # these commands say nothing before their result


class NewHome:
    """Where a new device is to be, with the arguments that have to be given."""

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

    async def join(self, agent: Agent, invitation: DeviceInvitation, **given: object) -> dict[str, Any]:
        command = JoinAccount.from_request({**self.where, **given, "code": invitation.code})
        return (await command.run(agent, self.with_certificates(command))).model_dump()

    async def create(self, agent: Agent, **given: object) -> dict[str, Any]:
        command = CreateAccount.from_request({**self.where, **given})
        return (await command.run(agent, self.with_certificates(command))).model_dump()

    @staticmethod
    def with_certificates(command: NewDevice) -> AnswerLines:
        """What comes with such a command from the command line, which reads the files."""
        return AnswerLines(NOBODY, read_trust(command.trust, command.tls_ca))


async def let_in(alice: Client, invitation: DeviceInvitation) -> None:
    while not await alice.devices.tend_invitation(invitation, wait=5):
        pass


async def test_nothing_is_kept_of_an_account_that_has_not_reached_its_provider(
    live: LiveWorld, tmp_path: Path
) -> None:
    new = NewHome(live, tmp_path / "home")
    async with new.agent() as agent:
        with pytest.raises(NotBegun, match="TLS"):
            await new.create(agent, tls_ca=None)
    assert not new.home.state.exists()
    async with new.agent() as agent:  # with other arguments than those before
        await new.create(agent, user="anna")
        assert str(agent.client.user) == "mimi://a.example/u/anna"


async def test_what_was_asked_before_is_kept_if_the_provider_is_then_not_reached(
    live: LiveWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = NewHome(live, tmp_path / "home")
    async with new.agent() as agent:

        async def unreached(self: PrivatePath, domain: str) -> None:
            raise NotReached(f"{domain} can't be asked")

        with monkeypatch.context() as patch:
            patch.setattr(PrivatePath, "provider", unreached)  # after the registration
            with pytest.raises(PeerError) as caught:
                await new.create(agent)
        assert not isinstance(caught.value, NotReached)
        async with live.hanging_up("a.example"):
            with pytest.raises(NotReached):
                await new.create(agent)
        with pytest.raises(Unfinished, match=r"alice@a\.example was begun here"):
            _ = agent.client
        with pytest.raises(AgentError, match="with --device") as refused:
            await new.create(agent, device="phone" if default_device() != "phone" else "other")
        assert "account delete" in refused.value.hint
        await new.create(agent)


@pytest.mark.parametrize("registered", [False, True])
async def test_a_device_that_died_on_its_way_in_enters_from_the_same_home(
    live: LiveWorld, tmp_path: Path, registered: bool
) -> None:
    alice = await live.person("alice", "a.example")
    tablet = NewHome(live, tmp_path / "tablet")
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
            with pytest.raises(AgentError, match=f"a further device of .*, with --device {default_device()}"):
                await tablet.join(agent, invitation, device="watch")
            with pytest.raises(AgentError, match="already" if registered else "is not finished"):
                await tablet.create(agent)
            invitation = await alice.devices.invite()
            view, _ = await asyncio.gather(tablet.join(agent, invitation), let_in(alice, invitation))
            assert view["device"] == default_device()
            while agent.client.devices.names() != alice.devices.names():
                await agent.changed.wait(1)
            with pytest.raises(AgentError, match="an account in this home already"):
                await tablet.join(agent, invitation)


async def test_an_account_whose_first_answer_was_lost_is_made_by_the_same_words(
    live: LiveWorld, tmp_path: Path
) -> None:
    home = NewHome(live, tmp_path / "phone")
    async with home.agent() as agent:
        async with live.forgetting("a.example"):
            for _ in range(2):
                with pytest.raises(PeerError):
                    await home.create(agent)
        begun = agent.account.unfinished
        assert begun is not None
        with pytest.raises(AgentError) as refused:
            await home.create(agent, device="watch", domain="b.example", tls_ca=None)
        assert f"--domain a.example, --device {begun.device.name}" in str(refused.value)
        assert "--provider" not in str(refused.value)
        assert "certificates" not in str(refused.value)
        with pytest.raises(AgentError, match="other certificates in --tls-ca"):
            await home.create(agent, tls_ca=str(live.world.trust_dir / "b.example.pem"))
        assert (await home.create(agent))["device"] == begun.device.name == default_device()


async def test_an_account_that_was_made_is_not_thrown_away_when_something_fails_afterwards(
    live: LiveWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name would be taken for good, and nobody would have its keys."""
    monkeypatch.setattr(account_store, "MAX_PACKAGES", 1)
    home = NewHome(live, tmp_path / "phone")
    async with home.agent() as agent:
        with pytest.raises(QueueFull):
            await home.create(agent)
        assert agent.client.device.name == default_device()
    assert home.home.state.exists()


async def test_an_account_whose_answer_after_the_registration_was_lost_is_made_by_the_same_words(
    live: LiveWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = NewHome(live, tmp_path / "phone")
    monkeypatch.setattr(account_store, "MAX_PACKAGES", 1)
    async with home.agent() as agent:
        with pytest.raises(QueueFull):
            await home.create(agent)
    monkeypatch.undo()
    async with home.agent() as agent:
        with pytest.raises(
            AgentError, match=r"already \(with --device .*\); another one needs another --home"
        ):
            await home.create(agent, device="watch")
        for _ in range(2):
            assert (await home.create(agent))["device"] == default_device()


async def test_a_refused_account_leaves_nothing(live: LiveWorld, tmp_path: Path) -> None:
    await live.person("alice", "a.example")
    home = NewHome(live, tmp_path / "phone")
    async with home.agent() as agent:
        with pytest.raises(NotAllowed, match="user name is taken"):
            await home.create(agent)
    assert not home.home.state.exists()


async def test_a_new_device_is_told_at_once_why_it_is_not_added(live: LiveWorld, tmp_path: Path) -> None:
    """And the code is good for another try: with a name that is free, and as the right person."""
    alice = await live.person("alice", "a.example")
    await live.person("dave", "a.example")
    home = NewHome(live, tmp_path / "tablet")
    invitation = await alice.devices.invite()
    alice.devices.known.learn("alice-phone", alice.account.keys.device.public)
    async with asyncio.timeout(60):
        letting = asyncio.create_task(let_in(alice, invitation))
        for given, why in (({"device": "alice-phone"}, "another name"), ({"user": "dave"}, "user name")):
            async with home.agent() as agent:
                with pytest.raises(DeviceRefused, match=why):
                    await home.join(agent, invitation, **given)
            assert not home.home.state.exists()
        async with home.agent() as agent:
            await asyncio.gather(home.join(agent, invitation, device="tablet"), letting)
    assert alice.devices.names() == ["alice-phone", "tablet"]


async def nothing() -> None:
    """What a killed process does."""
