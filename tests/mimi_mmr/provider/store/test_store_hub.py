"""The hub's store: one commit an epoch, old epochs as they were, an outbox that loses and doubles nothing."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from mimi_mmr.errors import NotAllowed, TreeMismatch, UnknownRoom, WrongEpoch
from mimi_mmr.hub.mode import AcceptedCommit, HubMode, NewRoom
from mimi_mmr.hub.state import EpochId, HubRoom
from mimi_mmr.member.room import Room
from mimi_mmr.protocol.content import Content
from mimi_mmr.protocol.room.deliveries import NotifyRequest
from mimi_mmr.protocol.room.events import CommitEvent, EventKind, FanoutMessage
from mimi_mmr.provider.store import hub as hub_module
from mimi_mmr.provider.store import tables
from mimi_mmr.provider.store.database import Database
from mimi_mmr.provider.store.hub import HubStore, OutboxItem, to_snapshot
from mimi_mmr.uris import Kind, MimiUri
from tests.mimi_mmr.bench import HUB, RoomBench
from tests.mimi_mmr.provider.store.conftest import Open
from treewrap import Blank

PROVIDERS = ("a.example", "b.example", "c.example")


def created(bench: RoomBench) -> NewRoom:
    return HubMode(HUB).create(bench.created, bench.now)


async def advance(
    bench: RoomBench, store: HubStore, sender: str, add: list[str] | None = None, **changes: object
) -> None:
    """A commit that goes through store and bench."""
    pending = bench.stage(sender, add=add or [], **changes)  # type: ignore[arg-type]
    state = await store.load(bench.uri)
    accepted = HubMode(HUB).update(state, pending.request, bench.now)
    await store.advance(accepted, bench.now)
    bench.settle(sender, pending, add or [])


@pytest.fixture
async def bench(hub: HubStore) -> RoomBench:
    """Alice with Bob and Cathy, in the store as on the bench; nothing waits in the outbox."""
    made = RoomBench()
    await hub.create(created(made))
    await advance(made, hub, "alice", ["bob", "cathy"])
    await advance(made, hub, "alice")
    for domain in await hub.destinations():
        for item in await hub.pending(domain):
            await hub.delivered(item)
    return made


def same(one: HubRoom, other: HubRoom) -> bool:
    return (one.epoch, one.members, to_snapshot(one), one.ratchet.tree_hash(), one.wrap.tree_hash) == (
        other.epoch,
        other.members,
        to_snapshot(other),
        other.ratchet.tree_hash(),
        other.wrap.tree_hash,
    )


async def waiting(store: HubStore) -> dict[str, list[FanoutMessage]]:
    found = {}
    for domain in await store.destinations():
        items = await store.pending(domain, limit=1000)
        found[domain] = [
            FanoutMessage.from_bytes(NotifyRequest.from_bytes(one.body).message) for one in items
        ]
    return found


# --- rooms -------------------------------------------------------------------------------------------


async def test_a_room_comes_back_as_it_was_stored(hub: HubStore, bench: RoomBench) -> None:
    assert same(await hub.load(bench.uri), bench.state)
    assert await hub.epoch(bench.uri) == bench.state.id


async def test_a_restart_loses_nothing(hub: HubStore, bench: RoomBench, opened: Open) -> None:
    again = HubStore(await opened(tables.hub), HUB)
    assert same(await again.load(bench.uri), bench.state)
    await advance(bench, again, "bob", ["dave"])
    assert same(await hub.load(bench.uri), bench.state)


async def test_a_room_that_is_not_there_is_unknown(hub: HubStore) -> None:
    nowhere = MimiUri(HUB, Kind.ROOM, "nowhere")
    for look in (hub.load(nowhere), hub.epoch(nowhere), hub.snapshot(nowhere, 0)):
        with pytest.raises(UnknownRoom):
            await look
    with pytest.raises((UnknownRoom, WrongEpoch)):
        await hub.submit(nowhere, EpochId(0, b""), (), 0)


async def test_a_leafs_key_is_found_in_the_epochs_in_which_it_is_a_member(
    hub: HubStore, bench: RoomBench
) -> None:
    bob, stranger = bench.leaves["bob"].key.public, bytes(32)
    index = next(leaf for leaf, member in bench.state.members.items() if member.signature_key == bob)
    await advance(bench, hub, "alice", remove=["bob"])
    assert (await hub.epoch(bench.uri)).number == 3
    assert [await hub.has_leaf_key(bench.uri, bob, epoch) for epoch in range(4)] == [False, True, True, False]
    assert not any([await hub.has_leaf_key(bench.uri, stranger, epoch) for epoch in range(4)])
    assert [await hub.leaf_key(bench.uri, index, epoch) for epoch in range(4)] == [None, bob, bob, None]
    assert await hub.leaf_key(bench.uri, index) is None
    assert await hub.leaf_key(bench.uri, 0) == bench.leaves["alice"].key.public
    for epoch in (4, (1 << 64) - 1):
        with pytest.raises(WrongEpoch):
            await hub.has_leaf_key(bench.uri, bob, epoch)
        with pytest.raises(WrongEpoch):
            await hub.leaf_key(bench.uri, index, epoch)
    with pytest.raises(UnknownRoom):
        await hub.has_leaf_key(MimiUri(HUB, Kind.ROOM, "nowhere"), bob, 0)


async def test_a_uri_is_one_rooms(hub: HubStore, bench: RoomBench) -> None:
    before = await hub.load(bench.uri)
    with pytest.raises(NotAllowed, match="a room of this URI exists"):
        await hub.create(created(RoomBench(creator="bob", world=bench.world)))
    assert same(await hub.load(bench.uri), before)


async def test_of_two_rooms_made_at_once_under_one_uri_one_is_there(hub: HubStore, opened: Open) -> None:
    other = HubStore(await opened(tables.hub), HUB)
    rooms = [created(RoomBench()) for _ in range(2)]
    results = await asyncio.gather(hub.create(rooms[0]), other.create(rooms[1]), return_exceptions=True)
    assert {type(one) for one in results} == {type(None), NotAllowed}
    winner = rooms[results.index(None)]
    assert same(await hub.load(winner.state.room), winner.state)


async def test_a_refused_commit_leaves_no_trace_in_the_store(hub: HubStore, bench: RoomBench) -> None:
    before = await hub.load(bench.uri)
    pending = bench.stage("bob", add=["dave"])
    hostile = bench.with_changes("bob", pending, [Blank(0)])
    with pytest.raises(TreeMismatch):
        HubMode(HUB).update(await hub.load(bench.uri), hostile, bench.now)
    assert same(await hub.load(bench.uri), before)
    assert await waiting(hub) == {}


# --- the race ----------------------------------------------------------------------------------------


def accepted_by(state: HubRoom, bench: RoomBench, sender: str) -> AcceptedCommit:
    return HubMode(HUB).update(state, bench.stage(sender).request, bench.now)


async def test_of_two_commits_at_once_exactly_one_wins(hub: HubStore, bench: RoomBench, opened: Open) -> None:
    """Two workers, each with its own connection, and each sure that its commit is good."""
    other = HubStore(await opened(tables.hub), HUB)
    first = accepted_by(await hub.load(bench.uri), bench, "bob")
    second = accepted_by(await other.load(bench.uri), bench, "cathy")
    results = await asyncio.gather(
        hub.advance(first, bench.now), other.advance(second, bench.now), return_exceptions=True
    )
    assert {type(one) for one in results} == {type(None), WrongEpoch}
    (lost,) = [one for one in results if one is not None]
    assert isinstance(lost, WrongEpoch)
    assert lost.current_epoch == 3
    winner = (first, second)[results.index(None)]
    sender = winner.state.members
    assert sender.keys() == {0, 1, 2}
    winner.commit()
    assert same(await other.load(bench.uri), winner.state)
    told = [message for messages in (await waiting(hub)).values() for message in messages]
    senders = {CommitEvent.from_bytes(one.event).auth.content.sender for one in told}
    assert len(senders) == 1
    assert {one.event for one in told} == {event.event for event in winner.events}
    assert {one.sequence for one in told} == {3}


async def test_of_many_commits_at_once_exactly_one_wins(
    hub: HubStore, bench: RoomBench, opened: Open
) -> None:
    stores = [hub, *[HubStore(await opened(tables.hub), HUB) for _ in range(3)]]
    one = accepted_by(await hub.load(bench.uri), bench, "bob")
    results = await asyncio.gather(
        *(store.advance(one, bench.now) for store in stores * 2), return_exceptions=True
    )
    assert [type(result) for result in results].count(type(None)) == 1
    assert sum(isinstance(result, WrongEpoch) for result in results) == len(results) - 1
    told = await waiting(hub)
    assert {domain: len(messages) for domain, messages in told.items()} == {"a.example": 1, "c.example": 1}


async def test_a_message_that_a_commit_overtook_is_refused(hub: HubStore, bench: RoomBench) -> None:
    sent = bench.rooms["bob"].encrypt(Content.text("hello"))
    epoch, events = bench.state.id, bench.mode.submit(bench.state, sent)
    await advance(bench, hub, "cathy")
    with pytest.raises(WrongEpoch) as late:
        await hub.submit(bench.uri, epoch, events, bench.now)
    assert late.value.current_epoch == 3
    told = [message for messages in (await waiting(hub)).values() for message in messages]
    assert {message.kind for message in told} == {EventKind.COMMIT}


# --- old epochs --------------------------------------------------------------------------------------


async def test_every_epoch_is_served_as_it_was(hub: HubStore) -> None:
    """Through growth, blanks, shrinking, reuse of leaves and heals that touch no Tree Wrap node."""
    bench = RoomBench(arity=2)
    await hub.create(created(bench))
    await advance(bench, hub, "alice", ["bob", "cathy", "dave"])
    await advance(bench, hub, "cathy")
    await advance(bench, hub, "alice", remove=["bob", "dave"])
    await advance(bench, hub, "alice", ["erin"])
    await advance(bench, hub, "alice", remove=["cathy", "erin"])
    await advance(bench, hub, "alice", ["frank", "gwen", "heidi"])
    for epoch, snapshot in enumerate(bench.snapshots):
        assert to_snapshot(await hub.snapshot(bench.uri, epoch)) == snapshot
    for wrong in (-1, len(bench.snapshots), 2**40):
        with pytest.raises(WrongEpoch) as refused:
            await hub.snapshot(bench.uri, wrong)
        assert refused.value.current_epoch == len(bench.snapshots) - 1
    bench.check_agreement()


async def test_epochs_that_are_too_old_are_not_served(
    hub: HubStore, bench: RoomBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "SNAPSHOT_EPOCHS", 1)
    assert (await hub.snapshot(bench.uri, 1)).epoch == 1
    with pytest.raises(WrongEpoch):
        await hub.snapshot(bench.uri, 0)


# --- the outbox --------------------------------------------------------------------------------------


async def say(hub: HubStore, bench: RoomBench, text: str) -> None:
    sent = bench.rooms["alice"].encrypt(Content.text(text))
    await hub.submit(bench.uri, bench.state.id, bench.mode.submit(bench.state, sent), bench.now)


async def test_events_wait_in_the_order_in_which_they_were_accepted(hub: HubStore, bench: RoomBench) -> None:
    for number in range(5):
        await say(hub, bench, str(number))
    await advance(bench, hub, "bob")
    await say(hub, bench, "last")
    told = await waiting(hub)
    assert [one.sequence for one in told["b.example"]] == [
        3,
        4,
        5,
        6,
        7,
        9,
    ]  # his own commit is not told to Bob
    assert [one.sequence for one in told["c.example"]] == [3, 4, 5, 6, 7, 8, 9]
    assert [one.kind for one in told["c.example"]][-2:] == [EventKind.COMMIT, EventKind.APPLICATION]


async def test_what_is_not_confirmed_is_given_again_unchanged(hub: HubStore, bench: RoomBench) -> None:
    await say(hub, bench, "hello")
    await say(hub, bench, "again")
    first = await hub.pending("b.example")
    assert await hub.pending("b.example") == first
    await hub.delivered(first[0])
    await hub.delivered(first[0])  # a second confirmation is no error
    assert await hub.pending("b.example") == first[1:]
    assert len(await hub.pending("c.example")) == 2
    await hub.delivered(first[1])
    assert sorted(await hub.destinations()) == ["a.example", "c.example"]


async def test_a_transaction_is_fresh_for_every_notification(hub: HubStore, bench: RoomBench) -> None:
    for _ in range(4):
        await say(hub, bench, "hello")
    items: list[OutboxItem] = [item for domain in PROVIDERS for item in await hub.pending(domain)]
    bodies = [NotifyRequest.from_bytes(item.body) for item in items]
    assert len({body.transaction for body in bodies}) == len(bodies) == 12
    assert {body.hub for body in bodies} == {HUB}


async def test_the_outbox_is_taken_in_pages_oldest_first(hub: HubStore, bench: RoomBench) -> None:
    for _ in range(5):
        await say(hub, bench, "hello")
    page = await hub.pending("b.example", limit=2)
    whole = await hub.pending("b.example", limit=100)
    assert page == whole[:2]
    assert [item.id for item in whole] == sorted(item.id for item in whole)


async def test_the_outbox_is_taken_in_pages_that_are_bounded_in_bytes(
    hub: HubStore, bench: RoomBench
) -> None:
    for _ in range(5):
        await say(hub, bench, "hello")
    whole = await hub.pending("b.example", limit=100)
    one = len(whole[0].body)
    assert await hub.pending("b.example", most=2 * one) == whole[:2]
    assert await hub.pending("b.example", most=one - 1) == whole[:1]  # what is larger alone comes alone


async def test_rooms_do_not_disturb_each_other(hub: HubStore, bench: RoomBench) -> None:
    other = RoomBench(world=bench.world)
    other.uri = MimiUri(HUB, Kind.ROOM, "other")
    leaf = other.leaves["alice"] = bench.world.leaf(other.person("alice"))
    other.rooms["alice"], request = Room.create(other.uri, leaf)
    new = HubMode(HUB).create(request, bench.now)
    before = await hub.load(bench.uri)
    await hub.create(new)
    await say(hub, bench, "hello")
    assert same(await hub.load(bench.uri), before)
    assert same(await hub.load(other.uri), new.state)
    assert await hub.epoch(other.uri) == EpochId(0, b"")


async def test_a_transaction_that_fails_leaves_nothing(hub: HubStore, bench: RoomBench) -> None:
    """The events are written first; what fails after them takes them along."""
    database: Database = hub._database
    accepted = accepted_by(await hub.load(bench.uri), bench, "bob")
    rows = type(accepted.rows)({0: object()}, {}, accepted.rows.wrap_header)  # type: ignore[dict-item]
    broken = replace(accepted, rows=rows)
    with pytest.raises(Exception, match="object"):
        await hub.advance(broken, bench.now)
    assert await hub.epoch(bench.uri) == bench.state.id
    assert await waiting(hub) == {}
    assert database.is_sqlite in (True, False)
    await hub.advance(accepted, bench.now)
