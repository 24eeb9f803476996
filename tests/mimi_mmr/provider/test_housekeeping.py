"""What a provider does by and by: it goes on after an error, and keys are signed anew before they expire."""

from __future__ import annotations

import asyncio
import secrets

import pytest

from mimi_mmr.client.transport.queues import Queues
from mimi_mmr.protocol.endpoints import NOTIFY
from mimi_mmr.provider import app as module
from mimi_mmr.provider.app import Provider
from mimi_mmr.provider.own_keys import KEYS_LIFETIME
from tests.mimi_mmr.conftest import LiveWorld
from tests.mimi_mmr.provider.test_peers_over_http import a_queue, notification, waiting


async def test_housekeeping_goes_on_after_an_error(live: LiveWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HOUSEKEEPING_SECONDS", 0.001)
    tidy, done, faults = Provider._tidy, asyncio.Event(), iter([RuntimeError("a bug"), OSError("a disk")])

    async def fragile(self: Provider, *parts: object) -> None:
        fault = next(faults, None)
        if fault is not None:
            raise fault
        await tidy(self, *parts)  # type: ignore[arg-type]
        done.set()

    monkeypatch.setattr(Provider, "_tidy", fragile)
    await live.stop("a.example")
    await live.start("a.example")
    await done.wait()


async def test_a_providers_keys_are_signed_anew(live: LiveWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HOUSEKEEPING_SECONDS", 0.001)
    tidy, done, later = Provider._tidy, asyncio.Event(), [0.0]

    async def watched(self: Provider, *parts: object) -> None:
        await tidy(self, *parts)  # type: ignore[arg-type]
        if later[0]:
            done.set()

    monkeypatch.setattr(Provider, "_tidy", watched)
    await live.stop("a.example")
    provider = await live.start("a.example")
    first, clock = provider.peers.own.keys.expiry, provider._clock
    later[0] = KEYS_LIFETIME / 2
    monkeypatch.setattr(provider, "_clock", lambda: clock() + later[0])
    await done.wait()
    done.clear()
    await done.wait()
    assert provider.peers.own.keys.expiry >= first + KEYS_LIFETIME // 2


async def test_deleted_rows_leave_the_databases_files_while_the_provider_runs(live: LiveWorld) -> None:
    alice = await live.person("alice", "a.example")
    token, delivery = await a_queue(alice)
    secret = secrets.token_bytes(40)
    peer, data = live.providers["b.example"].peers, live.world.providers["a.example"].directory / "data"
    await peer.send("a.example", NOTIFY, notification("b.example", delivery, message=secret))
    assert await waiting(alice, token) == [secret]
    await Queues(alice.path).collect(token, 1, 0)
    key = alice.account.keys.device.public
    await alice.account.delete()

    def found(content: bytes) -> list[str]:
        files = [path for path in data.iterdir() if ".sqlite" in path.name]
        return [path.name for path in files if content in path.read_bytes()]

    assert found(secret)  # the controls: deleted, and still there
    assert found(key)
    await live.providers["a.example"]._tidy()
    assert found(secret) == found(key) == []


async def test_what_is_in_the_way_of_emptying_the_logs_is_waited_for_and_said(
    live: LiveWorld, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    provider, tries = live.providers["a.example"], iter([False, True])
    for name, value in (("LOG_SECONDS", 0.0), ("LOG_ATTEMPTS", 2)):
        monkeypatch.setattr(module, name, value)

    async def sometimes() -> bool:
        return next(tries, False)

    monkeypatch.setattr(provider._databases["hub"], "empty_log", sometimes)
    await provider._empty_logs()
    assert not caplog.messages
    await provider._empty_logs()
    assert caplog.messages == ["database hub: what was deleted is still in its write-ahead log"]
