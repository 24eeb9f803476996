"""What a provider does by and by: it goes on after an error, and keys are signed anew before they expire."""

from __future__ import annotations

import asyncio

import pytest

from mimi_mmr.provider import app as module
from mimi_mmr.provider.app import Provider
from mimi_mmr.provider.own_keys import KEYS_LIFETIME
from tests.mimi_mmr.conftest import LiveWorld


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
