"""One of a user's two devices has heard that a contact lost a device: whose state of the contact counts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mimi_mmr.client.devices.sharing import _newest
from mimi_mmr.client.storage.records import SavedContact
from mimi_mmr.protocol.connections import ConnectionKeyOffer
from tests.mimi_mmr.conftest import LiveWorld, connect

STOLEN = ConnectionKeyOffer(1 << 20, b"e" * 32, b"e" * 32)
RESET = replace(STOLEN, key_version=0)
NEXT = ConnectionKeyOffer(2, b"n" * 32, b"n" * 32)
LOST, OTHER = b"l" * 32, b"o" * 32


@pytest.fixture
async def saved(live: LiveWorld) -> SavedContact:
    alice, bob = await live.person("alice", "a.example"), await live.person("bob", "b.example")
    return SavedContact.of((await connect(alice, bob))[0])


async def test_who_has_heard_of_more_lost_devices_has_the_key_that_counts(saved: SavedContact) -> None:
    def theirs(offer: ConnectionKeyOffer | None, *removed: bytes) -> SavedContact:
        return replace(saved, theirs=offer, removed_devices=removed)

    assert _newest(STOLEN, (), theirs(NEXT, LOST)) == NEXT
    assert _newest(STOLEN, (), theirs(RESET, LOST)) == RESET
    assert _newest(NEXT, (LOST,), theirs(STOLEN)) == NEXT
    assert _newest(RESET, (LOST,), theirs(STOLEN)) == RESET
    assert _newest(NEXT, (LOST,), theirs(RESET, LOST)) == NEXT
    assert _newest(RESET, (LOST,), theirs(NEXT, LOST)) == NEXT
    assert _newest(NEXT, (LOST, OTHER), theirs(STOLEN, OTHER)) == NEXT
    assert _newest(NEXT, (), theirs(None)) == NEXT
