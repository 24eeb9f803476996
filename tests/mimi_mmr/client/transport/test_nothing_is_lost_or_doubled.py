"""Whatever is cut at whatever byte, and whenever the consumer dies: each message is stored once, in order."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mimi_mmr.client.transport.following import QueueFollower
from mimi_mmr.client.transport.queues import Queues
from mimi_mmr.crypto.secret import AccessToken
from mimi_mmr.errors import PrivatePathFailed
from mimi_mmr.protocol.queues import QueuePage
from tests.mimi_mmr.client.transport.scissors import World, build, contents

PATIENCE = 30
# A handshake has some 500 bytes and an exchange 1,300 each way, so a cut falls before, into and between them.
CUT = st.one_of(st.integers(0, 1200), st.integers(0, 12_000))
CUTS = st.lists(CUT, max_size=6)


@dataclass
class Disk:
    """What outlives the consumer, written in one step."""

    acknowledged: int = 0
    messages: list[tuple[int, bytes]] = field(default_factory=list)


@dataclass(frozen=True)
class Life:
    """How a consumer collects, how many pages it stores before it dies, and how many it has then and drops."""

    by_socket: bool
    pages: int
    then_drops: int


LIVES = st.lists(st.builds(Life, st.booleans(), st.integers(0, 3), st.integers(0, 2)), max_size=4)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[asyncio.Runner, World]]:
    with asyncio.Runner() as runner:
        around = build(tmp_path_factory.mktemp("deliveries"))
        yield runner, runner.run(around.__aenter__())
        runner.run(around.__aexit__(None, None, None))


async def live(world: World, token: AccessToken, disk: Disk, life: Life, total: int) -> None:
    """Collect until everything is there, or this life is over."""
    stored = 0
    if not life.by_socket:
        while len(disk.messages) < total and stored < life.pages:
            page = await Queues(world.path).collect(token, disk.acknowledged, 5)
            disk.messages += contents(page)
            disk.acknowledged = max([disk.acknowledged, *(number for number, _ in contents(page))])
            stored += 1
        return
    async with QueueFollower(world.path, token, disk.acknowledged, spread=0) as pages:
        while len(disk.messages) < total:
            if stored >= life.pages:
                dropped = [contents(await anext(pages)) for _ in range(life.then_drops)]
                assert all(more[: len(one)] == one for one, more in pairwise(dropped))
                return
            page = await anext(pages)
            disk.messages += contents(page)
            pages.stored(page)
            disk.acknowledged = pages.acknowledged
            stored += 1


async def last_page(world: World, token: AccessToken, disk: Disk) -> QueuePage:
    """What there is after everything; connections that are still to be cut are cut first."""
    while True:
        with suppress(PrivatePathFailed):
            return await Queues(world.path).collect(token, disk.acknowledged, 0)


async def history(
    world: World, batches: list[int], cuts: tuple[list[int], list[int]], lives: list[Life]
) -> tuple[list[tuple[int, bytes]], list[tuple[int, bytes]]]:
    """Put messages while they are collected; gives what was put and what was stored."""
    token = await world.queue()
    total = sum(batches)
    put = [(number, b"message %d" % number) for number in range(1, total + 1)]
    for scissors, lengths in zip(world.scissors, cuts, strict=True):
        scissors.lengths = list(lengths)

    async def write() -> None:
        at = 0
        for batch in batches:
            await world.put(token, [message for _, message in put[at : at + batch]])
            at += batch
            await asyncio.sleep(0)

    disk = Disk()
    writing = asyncio.create_task(write())
    rest = [*lives, *[Life(True, total + 1, 0)] * 40]
    async with asyncio.timeout(PATIENCE):
        while len(disk.messages) < total:
            try:
                await live(world, token, disk, rest.pop(0), total)
            except PrivatePathFailed:
                continue  # the way was cut twice in a row: whoever collects decides what then; here, to go on
        await writing
        assert not (await last_page(world, token, disk)).messages
    for scissors in world.scissors:
        scissors.lengths.clear()
    return put, disk.messages


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, 5), min_size=1, max_size=5), st.tuples(CUTS, CUTS), LIVES)
@example([3, 3], ([0, 0, 0], [0, 0, 0]), [])
@example([5], ([], [2000, 2100, 2200, 2300, 2400]), [])
@example([5, 5], ([], []), [Life(True, 0, 2), Life(True, 1, 2), Life(False, 1, 0)])
def test_each_message_is_stored_once_in_order(
    running: tuple[asyncio.Runner, World],
    batches: list[int],
    cuts: tuple[list[int], list[int]],
    lives: list[Life],
) -> None:
    runner, world = running
    put, stored = runner.run(history(world, batches, cuts, lives))
    assert stored == put


def test_a_cut_at_every_place_of_an_exchange(running: tuple[asyncio.Runner, World]) -> None:
    """Not a sample: a cut every so many bytes from the handshake to the last page, on either side of the relay."""
    runner, world = running
    for side in (0, 1):
        for length in range(0, 6000, 150):
            cuts = ([length, length], []) if side == 0 else ([], [length, length])
            put, stored = runner.run(history(world, [2, 1], cuts, []))
            assert stored == put, (side, length)


def test_poll_and_socket_give_the_same(running: tuple[asyncio.Runner, World], tmp_path: Path) -> None:
    runner, world = running

    async def both() -> tuple[list[tuple[int, bytes]], list[tuple[int, bytes]]]:
        tokens = [await world.queue() for _ in range(2)]
        put = [b"%d" % number * (1 + number % 7 * 300) for number in range(200)]

        async def write() -> None:
            for message in put:
                for token in tokens:
                    await world.put(token, [message])

        async def poll(token: AccessToken) -> list[tuple[int, bytes]]:
            found: list[tuple[int, bytes]] = []
            while len(found) < len(put):
                found += contents(await Queues(world.path).collect(token, found[-1][0] if found else 0, 5))
            return found

        async def follow(token: AccessToken) -> list[tuple[int, bytes]]:
            found: list[tuple[int, bytes]] = []
            async with QueueFollower(world.path, token) as pages:
                while len(found) < len(put):
                    page = await anext(pages)
                    found += contents(page)
                    pages.stored(page)
            return found

        async with asyncio.timeout(PATIENCE):
            polled, followed, _ = await asyncio.gather(poll(tokens[0]), follow(tokens[1]), write())
        assert [message for _, message in polled] == put
        return polled, followed

    polled, followed = runner.run(both())
    assert polled == followed


def test_until_a_page_is_stored_it_comes_again(running: tuple[asyncio.Runner, World]) -> None:
    runner, world = running

    async def twice() -> None:
        token = await world.queue()
        await world.put(token, [b"a", b"b"])
        async with QueueFollower(world.path, token) as pages:
            first = await anext(pages)
            assert await anext(pages) == first
            pages.stored(first)
            await world.put(token, [b"c"])
            assert contents(await anext(pages)) == [(3, b"c")]
        async with QueueFollower(world.path, token, 2) as pages:
            assert contents(await anext(pages)) == [(3, b"c")]

    runner.run(twice())
