"""Clients whose vaults version 0.1.0 wrote go on with them, at providers whose databases it wrote."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mimi_mmr.client import Client, Membership
from mimi_mmr.client.storage.vault import Vault
from mimi_mmr.member.whois import Standing
from mimi_mmr.uris import MimiUri
from tests.fixtures import stored
from tests.mimi_mmr.client.devices.test_several_devices import running
from tests.mimi_mmr.conftest import LiveWorld
from tests.needs import needs

PATIENCE = 240.0  # on a machine that does much else at the same time


@dataclass
class OldWorld:
    """Providers and clients of version 0, started with today's code."""

    live: LiveWorld
    clients: dict[str, Client]

    def room(self, device: str, name: str) -> Membership:
        """A device's view of the room of this name."""
        client = self.clients[device]
        found = stored.facts()["vaults"].values()
        uris = {uri for facts in found for uri, room in facts["rooms"].items() if room["name"] == name}
        (uri,) = (MimiUri.parse(uri) for uri in uris)
        return client.rooms[uri]


@pytest.fixture
async def old(tmp_path: Path) -> AsyncIterator[OldWorld]:
    world = stored.world(tmp_path)
    async with AsyncExitStack() as stack:
        stack.callback(world.close)
        live = LiveWorld(world, {}, stack)
        for domain in world.providers:
            await live.start(domain)
            stack.push_async_callback(live.stop, domain)
        stack.callback(live.stopping)
        made = OldWorld(live, {})
        for name, facts in stored.facts()["vaults"].items():
            vault = stack.enter_context(Vault.open(stored.vault(name, tmp_path), stored.passphrase()))
            user, device = MimiUri.parse(facts["user"]), MimiUri.parse(facts["device"])
            url = world.providers[user.domain].url
            options: dict[str, Any] = {"vault": vault, **live.options()}
            client = Client(user.name, device.name, user.domain, url, stored.trust(), **options)
            live.clients.append(client)
            stack.push_async_callback(client.close)
            made.clients[name] = client
        yield made


async def test_what_waited_arrives_and_new_messages_reach_everybody(old: OldWorld) -> None:
    garden = {device: old.room(device, "garden") for device in old.clients}
    alice, bob = old.clients["alice-phone"], old.clients["bob-phone"]
    async with asyncio.timeout(PATIENCE), running(*old.clients.values()) as agents:
        for device, joined in garden.items():
            if device != "bob-phone":
                await agents.until_heard(joined, "Cathy will read this when her provider is back")
        for device, client in old.clients.items():
            await client.rooms.send(garden[device], f"{device} is here")
        for device in old.clients:
            for joined in garden.values():
                await agents.until_heard(joined, f"{device} is here")
        pending = old.room("alice-phone", "pending")
        await agents.until(lambda: pending.place.pending is None)
        await alice.rooms.send(pending, "settled")
        await agents.until_heard(old.room("bob-phone", "pending"), "settled")
        again = old.room("alice-phone", "again")
        await agents.until(lambda: again.uri in bob.rooms)
        await bob.rooms.send(bob.rooms[again.uri], "back again")
        await agents.until_heard(again, "back again")
        leaving = old.room("bob-phone", "leaving")
        await agents.until(lambda: len({who.user for who in bob.rooms.who(leaving)}) == 2)
        await agents.until(lambda: len({joined.room.tree_hash for joined in garden.values()}) == 1)
    for device, client in old.clients.items():
        assert {entry.standing for entry in client.rooms.who(garden[device])} == {Standing.VERIFIED}
    assert alice.devices.names() == ["alice-phone", "alice-tablet"]


@pytest.mark.nightly
@needs("faketime")
@pytest.mark.parametrize("later", ["+400d", "+9y"])
def test_the_files_of_version_0_are_as_good_in_years(later: str) -> None:
    """The test above, at another time: nothing in the files expires that it needs."""
    test = f"{__file__}::{test_what_waited_arrives_and_new_messages_reach_everybody.__name__}"
    command = ["faketime", "--exclude-monotonic", "-f", later, sys.executable, "-m", "pytest", "-q", test]
    # Without this its condition variables wait for ever (glibc 2.36, libfaketime 0.9.10).
    environment = os.environ | {"FAKETIME_FORCE_MONOTONIC_FIX": "0", "NO_FAKE_STAT": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=300)
    assert "1 passed" in done.stdout, done.stdout
