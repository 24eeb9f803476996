"""A client whose vault is an older copy of itself: it notices, sends nothing, and gets on with fresh keys."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from mimi_mmr.client import Client, Membership
from mimi_mmr.client.storage.sent import MAX_SENT, SentMessages
from mimi_mmr.client.storage.vault import Vault
from mimi_mmr.errors import OlderCopy
from mimi_mmr.uris import Kind, random_uri
from tests.mimi_mmr.conftest import LiveWorld, connect

Use = Callable[[Client, Membership, Client, Membership], Awaitable[None]]


def copied(vault: Vault) -> Vault:
    """What a copy of the file holds."""
    copy = Vault.in_memory()
    for name in vault.names():
        copy.table(name).update(vault.table(name))
    return copy


async def heard(client: Client, joined: Membership) -> str:
    while not joined.messages:
        await client.rooms.sync(joined, wait=5)
    return joined.messages.popleft().text


async def sends_one(alice: Client, at_alice: Membership, bob: Client, at_bob: Membership) -> None:
    await alice.rooms.send(at_alice, "from the newer copy")
    assert await heard(bob, at_bob) == "from the newer copy"


async def sends_and_reads_its_own(
    alice: Client, at_alice: Membership, bob: Client, at_bob: Membership
) -> None:
    await sends_one(alice, at_alice, bob, at_bob)
    while not await alice.rooms.sync(at_alice, wait=5):
        pass
    await alice.rooms.read_all(at_alice)  # which acknowledges it


async def reads_one(alice: Client, at_alice: Membership, bob: Client, at_bob: Membership) -> None:
    await bob.rooms.send(at_bob, "for the newer copy")
    assert await heard(alice, at_alice) == "for the newer copy"
    await alice.rooms.read_all(at_alice)


@pytest.mark.parametrize("use", [sends_one, sends_and_reads_its_own, reads_one])
async def test_an_older_copy_of_a_home_does_not_lose_its_first_message_silently(
    live: LiveWorld, use: Use
) -> None:
    alice, bob = await live.person("alice", "a.example"), await live.person("bob", "b.example")
    to_bob, _ = await connect(alice, bob)
    assert to_bob.room is not None
    at_alice, at_bob = alice.rooms[to_bob.room], bob.rooms[to_bob.room]
    await alice.rooms.read_all(at_alice)
    alice = live.restarted(alice)  # not an older copy: the same vault
    at_alice = alice.rooms[at_alice.uri]
    await alice.rooms.send(at_alice, "after a restart")
    assert await heard(bob, at_bob) == "after a restart"
    older = copied(alice.vault)
    alice = live.restarted(alice)
    at_alice = alice.rooms[at_alice.uri]
    await use(alice, at_alice, bob, at_bob)

    alice = live.with_vault(older)
    at_alice = alice.rooms[at_alice.uri]
    with pytest.raises(OlderCopy, match="an older copy"):
        await alice.rooms.send(at_alice, "lost")
    assert any("an older copy" in notice.text for notice in alice.notices)
    alice = live.restarted(alice)  # it is known after a restart, too
    at_alice = alice.rooms[at_alice.uri]
    with pytest.raises(OlderCopy):
        await alice.rooms.send(at_alice, "lost")
    await alice.rooms.heal(at_alice)
    await alice.rooms.send(at_alice, "not lost")
    assert await heard(bob, at_bob) == "not lost"


def test_copies_of_what_this_vault_sent_are_known_also_if_there_are_too_many_to_note() -> None:
    sent = SentMessages(Vault.in_memory(), random_uri("a.example", Kind.ROOM, bytes(16)))
    hashes = [number.to_bytes(32, "big") for number in range(MAX_SENT + 2)]
    for message in hashes[:MAX_SENT]:
        sent.add(message, 7)
    for message in hashes[MAX_SENT:]:
        sent.add(message, 7)
    assert all(sent.came_back(message, 7) for message in hashes)
    sent.note_new_epoch()
    assert not sent.came_back(hashes[0], 8)
    sent.add(b"\xff" * 32, 8)
    assert sent.came_back(b"\xff" * 32, 8)
    assert not sent.came_back(b"\xee" * 32, 8)


def test_a_copy_that_comes_again_is_known_until_the_epoch_ends() -> None:
    """Any member can submit a message again."""
    sent = SentMessages(Vault.in_memory(), random_uri("a.example", Kind.ROOM, bytes(16)))
    came, late = bytes(32), b"\x01" * 32
    sent.add(came, 7)
    sent.add(late, 7)
    for _ in range(3):
        assert sent.came_back(came, 7)
    sent.note_new_epoch()
    assert not sent.came_back(came, 7)
    assert sent.came_back(late, 7)  # its copy was still on its way
