"""The hub's store of join links: uses are counted once each, and nothing outlives a removal; the state beside."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
import sqlalchemy as sa

from mimi_mmr.errors import JoinRefused, NotAllowed, UnknownRoom, WrongEpoch
from mimi_mmr.hub.links import HubLink
from mimi_mmr.hub.mode import HubMode
from mimi_mmr.hub.state import EpochId, Outgoing, outgoing
from mimi_mmr.protocol.room.deliveries import NotifyRequest
from mimi_mmr.protocol.room.events import EventKind, FanoutMessage
from mimi_mmr.protocol.room.link_orders import MAX_LINKS
from mimi_mmr.protocol.room.members_only import MembersOnlyState
from mimi_mmr.provider.store import tables
from mimi_mmr.provider.store.hub import HubStore
from mimi_mmr.uris import Kind, MimiUri
from tests.mimi_mmr.bench import DAY, HUB, RoomBench
from tests.mimi_mmr.provider.store.conftest import Open

NOW = 1000.0
LINK = HubLink(bytes(32), bytes(range(32)), 5000, 2)


@pytest.fixture
async def bench(hub: HubStore) -> RoomBench:
    """Alice with Bob, in the store as on the bench."""
    made = RoomBench()
    await hub.create(HubMode(HUB).create(made.created, made.now))
    await advance(made, hub, add=["bob"])
    return made


async def advance(bench: RoomBench, store: HubStore, **changes: object) -> None:
    pending = bench.stage("alice", **changes)  # type: ignore[arg-type]
    accepted = HubMode(HUB).update(await store.load(bench.uri), pending.request, bench.now)
    await store.advance(accepted, bench.now)
    bench.settle("alice", pending)


def knock(bench: RoomBench) -> tuple[Outgoing, ...]:
    return outgoing(bench.state.members.values(), EventKind.JOIN_REQUEST, b"somebody")


async def knocks(store: HubStore) -> int:
    """How many requests to join wait for the providers of members."""
    count = 0
    for domain in await store.destinations():
        for item in await store.pending(domain, limit=1000):
            event = FanoutMessage.from_bytes(NotifyRequest.from_bytes(item.body).message)
            count += event.kind is EventKind.JOIN_REQUEST
    return count


async def test_a_link_is_kept_and_counted(hub: HubStore, bench: RoomBench) -> None:
    assert await hub.link(bench.uri, LINK.id) is None
    await hub.create_link(bench.uri, bench.state.id, LINK, NOW)
    assert await hub.link(bench.uri, LINK.id) == LINK
    for number in (1, 2):
        digest = bytes([number]) * 32
        assert not await hub.passed_on(bench.uri, LINK.id, digest)
        await hub.join(bench.uri, bench.state.id, LINK.id, digest, knock(bench), NOW)
        assert await hub.passed_on(bench.uri, LINK.id, digest)
    assert await hub.link(bench.uri, LINK.id) == replace(LINK, uses_left=0)
    with pytest.raises(JoinRefused):
        await hub.join(bench.uri, bench.state.id, LINK.id, bytes(32), knock(bench), NOW)
    assert not await hub.passed_on(bench.uri, LINK.id, bytes(32))
    assert await knocks(hub) == 4  # two requests, each to the providers of Alice and Bob


async def test_a_request_counts_once(hub: HubStore, bench: RoomBench) -> None:
    await hub.create_link(bench.uri, bench.state.id, LINK, NOW)
    for _ in range(3):
        await hub.join(bench.uri, bench.state.id, LINK.id, bytes(32), knock(bench), NOW)
    assert await hub.link(bench.uri, LINK.id) == replace(LINK, uses_left=1)
    assert await knocks(hub) == 2


async def test_of_many_requests_at_once_as_many_pass_as_there_are_uses(
    hub: HubStore, bench: RoomBench, opened: Open
) -> None:
    other = HubStore(await opened(tables.hub), HUB)
    await hub.create_link(bench.uri, bench.state.id, LINK, NOW)
    asked = [
        store.join(bench.uri, bench.state.id, LINK.id, bytes([number]) * 32, knock(bench), NOW)
        for number, store in enumerate((hub, other) * 4)
    ]
    results = await asyncio.gather(*asked, return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["JoinRefused"] * 6 + ["NoneType"] * 2
    assert await knocks(hub) == 4


async def test_an_expired_link_lets_nobody_ask(hub: HubStore, bench: RoomBench) -> None:
    await hub.create_link(bench.uri, bench.state.id, LINK, NOW)
    with pytest.raises(JoinRefused):
        await hub.join(bench.uri, bench.state.id, LINK.id, bytes(32), knock(bench), LINK.expiry)
    assert await knocks(hub) == 0


async def test_a_revoked_link_comes_back_by_no_old_order(hub: HubStore, bench: RoomBench) -> None:
    await hub.create_link(bench.uri, bench.state.id, LINK, NOW)
    await hub.revoke_link(bench.uri, bench.state.id, LINK.id)
    with pytest.raises(JoinRefused):
        await hub.join(bench.uri, bench.state.id, LINK.id, bytes(32), knock(bench), NOW)
    with pytest.raises(NotAllowed, match="has been revoked"):
        await hub.create_link(bench.uri, bench.state.id, LINK, NOW)
    await hub.revoke_link(bench.uri, bench.state.id, b"x" * 32)


async def test_orders_are_for_the_rooms_epoch(hub: HubStore, bench: RoomBench) -> None:
    now = bench.state.id
    for epoch in (now._replace(number=0), now._replace(number=2), now._replace(commit_hash=bytes(32))):
        for order in (
            hub.create_link(bench.uri, epoch, LINK, NOW),
            hub.revoke_link(bench.uri, epoch, LINK.id),
            hub.join(bench.uri, epoch, LINK.id, bytes(32), knock(bench), NOW),
        ):
            with pytest.raises(WrongEpoch):
                await order
    with pytest.raises(UnknownRoom):
        await hub.create_link(MimiUri(HUB, Kind.ROOM, "nowhere"), bench.state.id, LINK, NOW)


async def test_a_room_has_so_many_links_and_expired_ones_make_way(hub: HubStore, bench: RoomBench) -> None:
    for number in range(MAX_LINKS):
        await hub.create_link(bench.uri, bench.state.id, replace(LINK, id=bytes([number]) * 32), NOW)
    await hub.join(bench.uri, bench.state.id, LINK.id, bytes(32), knock(bench), NOW)
    more = replace(LINK, id=b"x" * 32, expiry=9000)
    with pytest.raises(NotAllowed, match="at most 64 join links"):
        await hub.create_link(bench.uri, bench.state.id, more, NOW)
    await hub.create_link(bench.uri, bench.state.id, more, LINK.expiry)
    assert await hub.link(bench.uri, LINK.id) is None
    assert not await hub.passed_on(bench.uri, LINK.id, bytes(32))
    assert await hub.link(bench.uri, more.id) == more


async def test_a_removal_ends_the_links_of_its_room_and_no_other_commit_does(
    hub: HubStore, bench: RoomBench
) -> None:
    elsewhere = MimiUri(HUB, Kind.ROOM, "elsewhere")
    other = RoomBench(world=bench.world)
    other_room = HubMode(HUB).create(other.created, other.now)
    await hub.create(replace(other_room, state=replace(other_room.state, room=elsewhere)))
    live = replace(LINK, expiry=int(bench.now) + DAY)
    await hub.create_link(elsewhere, EpochId(0, b""), live, bench.now)
    await hub.create_link(bench.uri, bench.state.id, live, bench.now)
    await hub.join(bench.uri, bench.state.id, LINK.id, bytes(32), knock(bench), bench.now)
    await advance(bench, hub, add=["cathy"])
    await advance(bench, hub)
    assert await hub.link(bench.uri, LINK.id) == replace(live, uses_left=1)
    await advance(bench, hub, remove=["bob"])
    assert await hub.link(bench.uri, LINK.id) is None
    assert not await hub.passed_on(bench.uri, LINK.id, bytes(32))
    assert await hub.link(elsewhere, LINK.id) == live


async def test_the_members_only_state_is_kept_as_of_each_epoch(hub: HubStore, bench: RoomBench) -> None:
    assert (await hub.load(bench.uri)).sealed_state is None
    await advance(bench, hub, state=MembersOnlyState(name="Tea"))
    tea = bench.state.sealed_state
    await advance(bench, hub)
    await advance(bench, hub, state=MembersOnlyState(name="Coffee"))
    coffee = bench.state.sealed_state
    kept = [(await hub.snapshot(bench.uri, epoch)).sealed_state for epoch in range(5)]
    assert kept == [None, None, tea, tea, coffee]
    assert tea not in (None, coffee)


async def test_a_reopened_room_has_the_state_of_before(hub: HubStore, bench: RoomBench) -> None:
    await advance(bench, hub, state=MembersOnlyState(name="Tea"))
    tea = bench.state.sealed_state
    await advance(bench, hub, state=MembersOnlyState(name="Coffee"))
    await hub.reopen(bench.uri, bench.state.id, (await hub.snapshot(bench.uri, 2)).id, (), NOW)
    assert (await hub.load(bench.uri)).sealed_state == tea


async def test_tables_of_links_name_nobody(opened: Open) -> None:
    await opened(tables.hub)
    columns = {column.name for table in (tables.join_links, tables.join_requests) for column in table.c}
    assert columns == {"room", "id", "link", "digest", "public_key", "expiry", "uses_left"}
    assert isinstance(tables.join_links, sa.Table)
