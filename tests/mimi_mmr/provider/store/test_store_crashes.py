"""A provider that stops between any two statements loses nothing and does nothing twice.

Each piece of work is begun again and again, and stopped at its first, second, … statement, its commit included:
by a task that is cancelled, and by a connection that is gone.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
import sqlalchemy as sa

from mimi_mmr.errors import UnknownQueue
from mimi_mmr.protocol.key_packages import ShelfOrderKind
from mimi_mmr.protocol.queues import QueuePage
from mimi_mmr.provider.store import tables
from mimi_mmr.provider.store.database import Database
from mimi_mmr.provider.store.deliveries import DeliveryStore
from tests.mimi_mmr.provider.store.conftest import Open
from tests.mimi_mmr.provider.store.test_store_deliveries import KEY, NOW, order, upload_of

Work = Callable[[], Awaitable[object]]


@dataclass
class Fault:
    """Stops work at one of its statements; `reached` says which it stopped."""

    at: int
    kind: str
    statements: int = 0
    reached: str = ""

    def strike(self, connection: sa.Connection, statement: str) -> None:
        self.statements += 1
        if self.statements != self.at:
            return
        self.reached = statement
        if self.kind == "cancelled":
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            return
        if connection.dialect.name == "sqlite":
            raise sqlite3.OperationalError("disk I/O error")
        driver = connection.connection.driver_connection
        assert driver is not None
        driver.terminate()


@contextmanager
def struck(database: Database, fault: Fault) -> Iterator[None]:
    engine = database._engine.sync_engine

    def statement(connection: sa.Connection, _: object, text: str, *_more: object) -> None:
        fault.strike(connection, text)

    def commit(connection: sa.Connection) -> None:
        fault.strike(connection, "COMMIT")

    hooks = (("before_cursor_execute", statement), ("commit", commit))
    for name, hook in hooks:
        sa.event.listen(engine, name, hook)
    try:
        yield
    finally:
        for name, hook in hooks:
            sa.event.remove(engine, name, hook)


@dataclass
class Crashing:
    """A provider that fails, and the one that is there after it, on one database."""

    failing: DeliveryStore
    after: DeliveryStore
    kind: str
    stopped: list[str] = field(default_factory=list)

    async def every_time(self, prepare: Callable[[], Awaitable[Work]]) -> AsyncIterator[str]:
        """Do the same work until it is no longer stopped; each time say where it was."""
        for at in itertools.count(1):
            work, fault = await prepare(), Fault(at, self.kind)

            async def doing(work: Work = work) -> None:
                await work()

            with struck(self.failing._database, fault):
                (outcome,) = await asyncio.gather(asyncio.create_task(doing()), return_exceptions=True)
            if not fault.reached:
                assert outcome is None
                return
            if fault.reached != "COMMIT":
                assert outcome is not None
            self.stopped.append(fault.reached)
            await whole(self.after)
            yield fault.reached


async def whole(store: DeliveryStore) -> None:
    """What is said of queues is what is so."""
    async with store._database.read() as connection:
        there = (await connection.execute(sa.select(tables.queues))).all()
        messages = (await connection.execute(sa.select(tables.queue_messages))).all()
        counted = await connection.scalar(sa.select(tables.queue_count.c.count))
    assert (counted or 0) == len(there)
    for queue in there:
        inside = [one for one in messages if one.queue == queue.id]
        assert queue.size == sum(len(one.message) for one in inside)
        assert all(one.sequence < queue.next_sequence for one in inside)
    assert {one.queue for one in messages} <= {queue.id for queue in there}


@pytest.fixture(params=["cancelled", "dropped"])
async def crashing(opened: Open, request: pytest.FixtureRequest) -> Crashing:
    stores = [DeliveryStore(await opened(tables.deliveries)) for _ in range(2)]
    return Crashing(*stores, request.param)


async def new_queue(store: DeliveryStore, *messages: bytes) -> bytes:
    queue = secrets.token_bytes(32)
    await store.create_queue(queue, accepts_deposits=True)
    for message in messages:
        await store.put([queue], message, secrets.token_bytes(16), NOW)
    return queue


def numbered(page: QueuePage) -> list[tuple[int, bytes]]:
    return [(one.sequence, one.message) for one in page.messages]


async def test_a_notification_that_was_cut_off_arrives_once_when_it_is_sent_again(crashing: Crashing) -> None:
    transaction, targets = b"", [b""]

    async def prepare() -> Work:
        nonlocal transaction, targets
        transaction = secrets.token_bytes(16)
        targets = [await new_queue(crashing.after, b"first") for _ in range(2)]
        return lambda: crashing.failing.put(targets, b"hello", transaction, NOW)

    async for _ in crashing.every_time(prepare):
        for _ in range(2):
            await crashing.after.put(targets, b"hello", transaction, NOW)
        for queue in targets:
            page = await crashing.after.collect(queue, 0, 10)
            assert numbered(page) == [(1, b"first"), (2, b"hello")]
            assert page.lost == 0
    assert len(crashing.stopped) >= 8
    assert crashing.stopped[-1] == "COMMIT"


async def test_a_page_that_was_cut_off_is_there_when_it_is_asked_for_again(crashing: Crashing) -> None:
    queue, three = b"", [(1, b"a"), (2, b"bb"), (3, b"ccc")]

    async def prepare() -> Work:
        nonlocal queue
        queue = await new_queue(crashing.after, b"a", b"bb", b"ccc")
        return lambda: crashing.failing.collect(queue, 2, 10)

    async for _ in crashing.every_time(prepare):
        left = numbered(await crashing.after.collect(queue, 0, 10))
        # The acknowledgement has a transaction of its own, before the page is read.
        assert left in ([three, three[2:]] if "COMMIT" in crashing.stopped else [three])
        assert numbered(await crashing.after.collect(queue, 2, 10)) == three[2:]
        await crashing.after.put([queue], b"d", secrets.token_bytes(16), NOW)
        assert numbered(await crashing.after.collect(queue, 3, 10)) == [(4, b"d")]
    assert len(crashing.stopped) >= 6


async def test_a_deposit_that_was_cut_off_is_there_whole_or_not_at_all(crashing: Crashing) -> None:
    queue = b""

    async def prepare() -> Work:
        nonlocal queue
        queue = await new_queue(crashing.after)
        return lambda: crashing.failing.deposit(queue, b"hello", NOW)

    async for place in crashing.every_time(prepare):
        left = numbered(await crashing.after.collect(queue, 0, 10))
        assert left in ([[], [(1, b"hello")]] if place == "COMMIT" else [[]])


async def test_a_queue_that_was_cut_off_while_it_was_made_or_deleted_is_counted_right(
    crashing: Crashing,
) -> None:
    queue = b""

    async def prepare_new() -> Work:
        nonlocal queue
        queue = secrets.token_bytes(32)
        return lambda: crashing.failing.create_queue(queue, accepts_deposits=False)

    async def prepare_old() -> Work:
        nonlocal queue
        queue = await new_queue(crashing.after, b"hello")
        return lambda: crashing.failing.delete_queue(queue)

    async for _ in crashing.every_time(prepare_new):
        await crashing.after.create_queue(queue, accepts_deposits=False)
        await whole(crashing.after)
        assert numbered(await crashing.after.collect(queue, 0, 10)) == []
    async for _ in crashing.every_time(prepare_old):
        await crashing.after.delete_queue(queue)
        await whole(crashing.after)
        with pytest.raises(UnknownQueue):
            await crashing.after.collect(queue, 0, 10)


async def test_an_upload_that_was_cut_off_is_there_once_when_it_is_sent_again(crashing: Crashing) -> None:
    shelf = b""

    async def prepare() -> Work:
        nonlocal shelf
        shelf = secrets.token_bytes(32)
        return lambda: crashing.failing.upload(upload_of(1, shelf=shelf))

    async for _ in crashing.every_time(prepare):
        await crashing.after.upload(upload_of(1, shelf=shelf))
        given = [await crashing.after.claim(shelf, KEY.public, NOW) for _ in range(2)]
        assert given[0] is not None
        assert given[1] is None
        await crashing.after.upload(upload_of(1, shelf=shelf))
        assert await crashing.after.claim(shelf, KEY.public, NOW) is None
    assert len(crashing.stopped) >= 5


@pytest.mark.parametrize("last_resort", [False, True])
async def test_a_claim_that_was_cut_off_gave_nothing_away_or_counted_it(
    crashing: Crashing, last_resort: bool
) -> None:
    shelf = b""

    async def prepare() -> Work:
        nonlocal shelf
        shelf = secrets.token_bytes(32)
        await crashing.after.upload(upload_of(1, shelf=shelf, last_resort=last_resort))
        return lambda: crashing.failing.claim(shelf, KEY.public, NOW)

    async for place in crashing.every_time(prepare):
        report = await crashing.after.order(order(ShelfOrderKind.REPORT, shelf=shelf), NOW + 600)
        untouched = [entry.uses for entry in report.sets] == [0]
        assert untouched or place == "COMMIT"
        if not untouched:  # the claimer may have it: nobody else gets it, or it counts as used
            assert [entry.uses for entry in report.sets] == ([1] if last_resort else [])
        assert (await crashing.after.claim(shelf, KEY.public, NOW) is not None) == (untouched or last_resort)


@pytest.mark.parametrize("kind", [ShelfOrderKind.TAKE_BACK, ShelfOrderKind.CLOSE])
async def test_an_order_that_was_cut_off_is_carried_out_when_it_is_given_anew(
    crashing: Crashing, kind: ShelfOrderKind
) -> None:
    shelf, named = b"", (1,) if kind is ShelfOrderKind.TAKE_BACK else ()

    async def prepare() -> Work:
        nonlocal shelf
        shelf = secrets.token_bytes(32)
        await crashing.after.upload(upload_of(1, shelf=shelf))
        return lambda: crashing.failing.order(order(kind, *named, shelf=shelf), NOW + 600)

    async for place in crashing.every_time(prepare):
        report = await crashing.after.order(order(kind, *named, shelf=shelf), NOW + 600)
        assert report.sets == ()
        assert len(report.taken_back) == 1 or place == "COMMIT"
        assert await crashing.after.claim(shelf, KEY.public, NOW) is None


async def test_two_who_read_one_queue_at_once_miss_nothing_between_them(opened: Open) -> None:
    """Say, a client that was started again while its old request still waits; each acknowledges what it has."""
    stores = [DeliveryStore(await opened(tables.deliveries)) for _ in range(3)]
    queue = await new_queue(stores[0])
    seen: dict[int, bytes] = {}

    async def write() -> None:
        for number in range(30):
            await stores[0].put([queue], b"%d" % number, secrets.token_bytes(16), NOW)

    async def read(store: DeliveryStore) -> None:
        last = 0
        while len(seen) < 30:
            page = await store.collect(queue, last, 4)
            numbers = [one.sequence for one in page.messages]
            assert numbers == sorted(numbers)
            for one in page.messages:
                assert one.sequence > last
                assert seen.setdefault(one.sequence, one.message) == one.message
                last = one.sequence

    await asyncio.wait_for(asyncio.gather(write(), read(stores[1]), read(stores[2])), 60)
    assert seen == {number + 1: b"%d" % number for number in range(30)}
    await whole(stores[0])
