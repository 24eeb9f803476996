"""Queues that lose nothing silently, shelves that give each set once."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.util import await_only

from mimi_mmr.crypto.signing import SigningKey
from mimi_mmr.errors import NotAllowed, QueueFull, UnknownQueue
from mimi_mmr.protocol.key_packages import (
    MAX_SET_LIFETIME,
    KeyPackageSet,
    SetEntry,
    SetUpload,
    SetUploadTBS,
    ShelfEntry,
    ShelfOrder,
    ShelfOrderKind,
    ShelfOrderTBS,
    ShelfReport,
    sign_order,
    sign_upload,
)
from mimi_mmr.provider.store import deliveries as deliveries_module
from mimi_mmr.provider.store import tables
from mimi_mmr.provider.store.database import insert_new
from mimi_mmr.provider.store.deliveries import MAX_QUEUE_AGE, TRANSACTION_LIFETIME, DeliveryStore
from ohttp_relay.server.budget import SMALL
from tests.mimi_mmr.provider.store.conftest import QUEUE_BYTES, Open, statements

NOW = 1000.0 * 86400
ONE, OTHER, NOWHERE = b"\1" * 32, b"\2" * 32, b"\3" * 32
SHELF = b"\7" * 32
KEY = SigningKey.generate()


@pytest.fixture
async def queues(deliveries: DeliveryStore) -> DeliveryStore:
    """With two empty queues, the second one a reply inbox."""
    await deliveries.create_queue(ONE, accepts_deposits=False)
    await deliveries.create_queue(OTHER, accepts_deposits=True)
    return deliveries


async def put(
    store: DeliveryStore, message: bytes, queues: list[bytes] | None = None, now: float = NOW
) -> list[bytes]:
    return await store.put(queues or [ONE], message, secrets.token_bytes(16), now)


async def content(
    store: DeliveryStore, queue: bytes = ONE, acknowledged: int = 0, limit: int = 100
) -> list[bytes]:
    return [one.message for one in (await store.collect(queue, acknowledged, limit)).messages]


# --- queues ------------------------------------------------------------------------------------------


async def test_a_page_says_up_to_where_the_queue_is_empty(queues: DeliveryStore) -> None:
    assert (await queues.collect(ONE, 0, 10)).acknowledged == 0
    for message in (b"one", b"two", b"three"):
        await put(queues, message)
    assert (await queues.collect(ONE, 0, 10)).acknowledged == 0
    assert (await queues.collect(ONE, 2, 10)).acknowledged == 2
    assert (await queues.collect(ONE, 0, 10)).acknowledged == 2  # as an older copy of the client asks
    await queues.expire(NOW + MAX_QUEUE_AGE + 1)
    page = await queues.collect(ONE, 2, 10)
    assert (page.acknowledged, page.lost, page.messages) == (3, 1, ())


@pytest.mark.parametrize("number", [3, 1 << 63, (1 << 64) - 1])
async def test_a_number_that_no_database_holds_acknowledges_what_is_there(
    queues: DeliveryStore, number: int
) -> None:
    await put(queues, b"one")
    assert (await queues.collect(ONE, number, 10)).acknowledged == 1
    await put(queues, b"two")
    assert await content(queues) == [b"two"]


async def test_messages_are_collected_in_order_until_they_are_acknowledged(queues: DeliveryStore) -> None:
    for number in range(5):
        assert await put(queues, b"%d" % number) == [ONE]
    page = await queues.collect(ONE, 0, 2)
    assert [(one.sequence, one.message) for one in page.messages] == [(1, b"0"), (2, b"1")]
    assert await content(queues) == [b"0", b"1", b"2", b"3", b"4"]
    assert await content(queues, acknowledged=2) == [b"2", b"3", b"4"]
    assert await content(queues) == [b"2", b"3", b"4"]
    assert await content(queues, acknowledged=99) == []
    await put(queues, b"5")
    page = await queues.collect(ONE, 0, 10)
    assert [(one.sequence, one.message) for one in page.messages] == [(6, b"5")]
    assert page.lost == 0


async def test_a_message_reaches_each_queue_once_for_a_transaction(queues: DeliveryStore) -> None:
    for _ in range(3):
        reached = await queues.put([ONE, OTHER, ONE, NOWHERE], b"hello", b"transaction", NOW)
    assert reached == []
    assert await content(queues, ONE) == await content(queues, OTHER) == [b"hello"]
    await queues.put([ONE], b"hello", b"another", NOW)
    assert await content(queues, ONE) == [b"hello", b"hello"]


async def test_a_redelivery_at_the_same_time_reaches_each_queue_once(
    queues: DeliveryStore, opened: Open
) -> None:
    """The hub tries again while the first attempt is still under way, at another worker."""
    stores = [queues, *[DeliveryStore(await opened(tables.deliveries)) for _ in range(3)]]
    results = await asyncio.gather(*(one.put([ONE, OTHER], b"hello", b"once", NOW) for one in stores * 2))
    assert sorted(map(len, results)) == [0] * 7 + [2]
    assert await content(queues, ONE) == await content(queues, OTHER) == [b"hello"]


async def test_concurrent_messages_keep_a_queues_numbers_whole(queues: DeliveryStore, opened: Open) -> None:
    stores = [queues, DeliveryStore(await opened(tables.deliveries))]
    orders = [[ONE, OTHER], [OTHER, ONE]]
    await asyncio.gather(*(put(stores[n % 2], b"%02d" % n, orders[n % 2]) for n in range(20)))
    for queue in (ONE, OTHER):
        page = await queues.collect(queue, 0, 100)
        assert [one.sequence for one in page.messages] == list(range(1, 21))
        assert sorted(one.message for one in page.messages) == [b"%02d" % n for n in range(20)]


async def test_a_full_queue_counts_what_it_refused(queues: DeliveryStore) -> None:
    half = bytes(QUEUE_BYTES // 2)
    assert await put(queues, half, [ONE, OTHER]) == [ONE, OTHER]
    assert await put(queues, half) == [ONE]
    assert await put(queues, b"x", [ONE, OTHER]) == [OTHER]
    assert await put(queues, half) == []
    assert await put(queues, b"") == [ONE]
    page = await queues.collect(ONE, 0, 100)
    assert (page.lost, len(page.messages)) == (2, 3)
    assert (await queues.collect(OTHER, 0, 100)).lost == 0


async def test_a_page_is_bounded_in_bytes_and_its_first_message_always_comes(opened: Open) -> None:
    store = DeliveryStore(await opened(tables.deliveries), max_page_bytes=250)
    await store.create_queue(ONE, accepts_deposits=False)
    for size in (100, 100, 100, 1000, 10):
        await put(store, bytes(size))
    pages, acknowledged = [], 0
    while page := (await store.collect(ONE, acknowledged, 256)).messages:
        pages.append([len(one.message) for one in page])
        acknowledged = page[-1].sequence
    assert pages == [[100, 100], [100], [1000], [10]]


async def test_reading_a_page_is_no_write_unless_something_is_acknowledged(queues: DeliveryStore) -> None:
    for number in range(2):
        await put(queues, b"%d" % number)
    with statements(queues._database) as given:
        await queues.collect(ONE, 0, 100)
        reading = list(given)
        await queues.collect(ONE, 1, 100)
    assert not [one for one in reading if not one.lower().startswith(("select", "begin", "rollback"))]
    assert not [one for one in reading if "for update" in one.lower() or "immediate" in one.lower()]
    assert [one for one in given if one.lower().startswith("delete")]  # the control


async def test_messages_are_not_read_inside_the_write_transaction(queues: DeliveryStore) -> None:
    for number in range(3):
        await put(queues, b"%d" % number)
    with statements(queues._database) as given:
        assert await content(queues, acknowledged=1) == [b"1", b"2"]
    writing = [n for n, one in enumerate(given) if one.lower().startswith(("delete", "update"))]
    reading = [n for n, one in enumerate(given) if ".message \n" in one or ".message\n" in one]
    assert writing and reading
    assert min(reading) > max(writing)


async def test_large_pages_wait_for_one_another(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    most = 3 * SMALL
    store = DeliveryStore(
        await opened(tables.deliveries), max_queue_bytes=most, max_page_bytes=most, max_pages_bytes=most
    )
    await store.create_queue(ONE, accepts_deposits=False)
    await put(store, bytes(2 * SMALL))
    at_once, read = [0], store._database.read

    @asynccontextmanager
    async def watched() -> AsyncIterator[AsyncConnection]:
        async with read() as connection:
            at_once.append(store._pages.held)
            yield connection

    monkeypatch.setattr(store._database, "read", watched)
    pages = await asyncio.gather(*(store.collect(ONE, 0, 10) for _ in range(5)))
    assert [len(page.messages) for page in pages] == [1] * 5
    assert 0 < max(at_once) <= most
    assert store._pages.held == 0


async def test_acknowledging_makes_room_again(queues: DeliveryStore) -> None:
    for _ in range(3):
        assert await put(queues, bytes(QUEUE_BYTES)) == [ONE]
        assert await put(queues, b"x") == []
        (message,) = (await queues.collect(ONE, 0, 10)).messages
        await queues.collect(ONE, message.sequence, 10)
    assert (await queues.collect(ONE, 0, 10)).lost == 3


async def test_what_is_too_old_goes_is_counted_and_makes_room(queues: DeliveryStore) -> None:
    await put(queues, bytes(QUEUE_BYTES // 2))
    await put(queues, bytes(QUEUE_BYTES // 2), now=NOW + MAX_QUEUE_AGE / 2)
    later = NOW + MAX_QUEUE_AGE + 10
    await queues.expire(NOW)
    assert len(await content(queues)) == 2
    await queues.expire(later)
    page = await queues.collect(ONE, 0, 10)
    assert [one.sequence for one in page.messages] == [2]
    assert page.lost == 1
    assert await put(queues, bytes(QUEUE_BYTES // 2), now=later) == [ONE]
    assert await put(queues, b"x", now=later) == []
    await queues.expire(later)
    assert (await queues.collect(ONE, 0, 10)).lost == 2


async def test_an_unknown_queue_is_told_to_its_collector_only(queues: DeliveryStore) -> None:
    assert await put(queues, b"hello", [NOWHERE]) == []
    with pytest.raises(UnknownQueue):
        await queues.collect(NOWHERE, 0, 10)
    await queues.delete_queue(ONE)
    with pytest.raises(UnknownQueue):
        await queues.collect(ONE, 0, 10)
    assert await put(queues, b"hello") == []


async def test_making_a_queue_again_keeps_what_is_in_it(queues: DeliveryStore) -> None:
    await put(queues, b"hello")
    await queues.create_queue(ONE, accepts_deposits=True)
    assert await content(queues) == [b"hello"]
    with pytest.raises(UnknownQueue):
        await queues.deposit(ONE, b"from nobody", NOW)


async def test_only_a_reply_inbox_takes_deposits_and_says_when_it_is_full(queues: DeliveryStore) -> None:
    await queues.deposit(OTHER, b"from nobody", NOW)
    assert await content(queues, OTHER) == [b"from nobody"]
    for wrong in (ONE, NOWHERE):
        with pytest.raises(UnknownQueue, match="no such reply inbox"):
            await queues.deposit(wrong, b"from nobody", NOW)
    with pytest.raises(QueueFull):
        await queues.deposit(OTHER, bytes(QUEUE_BYTES), NOW)
    assert await content(queues, OTHER) == [b"from nobody"]


async def test_a_transaction_is_remembered_for_a_while(queues: DeliveryStore) -> None:
    assert await queues.first_time(b"claim", NOW, NOW + 60)
    assert not await queues.first_time(b"claim", NOW + 59, NOW + 119)
    assert await queues.first_time(b"claim", NOW + 200, NOW + 260)
    await queues.put([ONE], b"hello", b"transaction", NOW)
    await queues.expire(NOW + TRANSACTION_LIFETIME / 2)
    assert await queues.put([ONE], b"hello", b"transaction", NOW) == []


async def test_of_one_claim_made_many_times_at_once_one_is_the_first(
    queues: DeliveryStore, opened: Open
) -> None:
    stores = [queues, *[DeliveryStore(await opened(tables.deliveries)) for _ in range(3)]]
    results = await asyncio.gather(*(one.first_time(b"claim", NOW, NOW + 60) for one in stores * 2))
    assert Counter(results) == {True: 1, False: 7}


async def test_a_provider_keeps_so_many_queues_however_many_are_made_at_once(opened: Open) -> None:
    stores = [DeliveryStore(await opened(tables.deliveries), max_queues=10) for _ in range(4)]
    wanted = [secrets.token_bytes(32) for _ in range(16)]

    async def make(number: int) -> None:
        await stores[number % 4].create_queue(wanted[number // 2], accepts_deposits=False)

    results = await asyncio.gather(*(make(number) for number in range(32)), return_exceptions=True)
    assert {type(one) for one in results} == {type(None), QueueFull}
    made = [queue for queue in wanted if await there(stores[0], queue)]
    assert len(made) == 10
    await stores[0].create_queue(made[0], accepts_deposits=False)  # which is there
    for _ in range(2):  # the second time there is nothing to delete, nor to count
        await stores[1].delete_queue(made[0])
    await stores[2].create_queue(secrets.token_bytes(32), accepts_deposits=False)
    with pytest.raises(QueueFull, match="at most 10"):
        await stores[3].create_queue(made[0], accepts_deposits=False)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)  # SQLite has one writer at a time
async def test_a_fresh_provider_refuses_no_queue_when_its_first_users_come_at_once(opened: Open) -> None:
    """The first queue is committed just when the second one's transaction has found no count to raise."""
    first, second = [await opened(tables.deliveries) for _ in range(2)]
    store = DeliveryStore(second)
    async with first._engine.connect() as connection:
        values = {"id": ONE, "accepts_deposits": False, "next_sequence": 1, "lost": 0, "size": 0}
        assert await insert_new(connection, tables.queues, values)
        assert await DeliveryStore(first)._count_one(connection)

        def commit_the_first(_connection: object, _cursor: object, statement: str, *_: object) -> None:
            if statement.startswith("UPDATE queue_count"):
                await_only(connection.commit())

        sa.event.listen(second._engine.sync_engine, "after_cursor_execute", commit_the_first)
        await store.create_queue(OTHER, accepts_deposits=False)
    assert await there(store, ONE) and await there(store, OTHER)
    assert await counted(store) == 2


async def there(store: DeliveryStore, queue: bytes) -> bool:
    try:
        await store.collect(queue, 0, 1)
    except UnknownQueue:
        return False
    return True


async def test_making_and_deleting_queues_at_once_keeps_the_count(opened: Open) -> None:
    stores = [DeliveryStore(await opened(tables.deliveries)) for _ in range(4)]
    names = [bytes([number]) * 32 for number in range(4)]

    async def shuffle(number: int) -> None:
        store, queue = stores[number % 4], names[number % 3]
        if number % 2:
            await store.delete_queue(queue)
        else:
            await store.create_queue(queue, accepts_deposits=False)
            await put(store, b"hello", names)
            if await there(store, queue):
                await store.collect(queue, 1, 10)

    results = await asyncio.gather(*(shuffle(number) for number in range(40)), return_exceptions=True)
    assert {type(one) for one in results} <= {type(None), UnknownQueue}
    left = sum([await there(stores[0], queue) for queue in names])
    assert await counted(stores[0]) == left


async def counted(store: DeliveryStore) -> int:
    async with store._database.read() as connection:
        return int(await connection.scalar(sa.select(tables.queue_count.c.count)) or 0)


async def test_queues_that_were_there_before_the_count_are_counted(queues: DeliveryStore) -> None:
    async with queues._database.write() as connection:
        await connection.execute(sa.delete(tables.queue_count))
    await queues.create_queue(NOWHERE, accepts_deposits=False)
    assert await counted(queues) == 3


# --- shelves -----------------------------------------------------------------------------------------


def upload_of(
    number: int,
    *,
    last_resort: bool = False,
    expiry: float = NOW + 86400,
    key: SigningKey = KEY,
    shelf: bytes = SHELF,
) -> SetUpload:
    entries = KeyPackageSet((SetEntry(b"package %d" % number, bytes(48)),))
    serial = number.to_bytes(16, "big")
    return sign_upload(SetUploadTBS(shelf, serial, last_resort, int(expiry), entries), key)


async def claim(store: DeliveryStore, now: float = NOW, shelf: bytes = SHELF) -> tuple[bytes, bool] | None:
    taken = await store.claim(shelf, KEY.public, now)
    return None if taken is None else (taken[0].entries[0].key_package, taken[1])


async def test_a_set_is_given_once(deliveries: DeliveryStore) -> None:
    assert await claim(deliveries) is None
    for number in range(3):
        await deliveries.upload(upload_of(number))
    taken = [await claim(deliveries) for _ in range(3)]
    assert {one for one in taken if one} == {(b"package %d" % number, False) for number in range(3)}
    assert await claim(deliveries) is None


@pytest.mark.parametrize(("sets", "claims"), [(5, 16), (8, 8), (1, 6)])
async def test_of_many_claims_at_once_each_set_has_one_winner(
    deliveries: DeliveryStore, opened: Open, sets: int, claims: int
) -> None:
    stores = [deliveries, *[DeliveryStore(await opened(tables.deliveries)) for _ in range(3)]]
    for number in range(sets):
        await deliveries.upload(upload_of(number))
    taken = await asyncio.gather(*(claim(stores[number % 4]) for number in range(claims)))
    won = [one[0] for one in taken if one is not None]
    assert sorted(won) == sorted(b"package %d" % number for number in range(sets))
    assert taken.count(None) == claims - sets


async def test_a_last_resort_stays_and_each_use_is_counted(deliveries: DeliveryStore) -> None:
    await deliveries.upload(upload_of(1, last_resort=True))
    await deliveries.upload(upload_of(2))
    assert await claim(deliveries) == (b"package 2", False)
    for _ in range(4):
        assert await claim(deliveries) == (b"package 1", True)
    assert await uses(deliveries) == {1: 4}


async def test_last_resorts_are_chosen_at_random_and_counted_at_once(
    deliveries: DeliveryStore, opened: Open
) -> None:
    stores = [deliveries, DeliveryStore(await opened(tables.deliveries))]
    for number in (1, 2, 3):
        await deliveries.upload(upload_of(number, last_resort=True))
    taken = await asyncio.gather(*(claim(stores[number % 2]) for number in range(24)))
    counted = Counter(one[0] for one in taken if one)
    assert counted.keys() == {b"package 1", b"package 2", b"package 3"}
    assert await uses(deliveries) == {number: counted[b"package %d" % number] for number in (1, 2, 3)}


def order(
    kind: ShelfOrderKind, *numbers: int, key: SigningKey = KEY, shelf: bytes = SHELF, issued: float = NOW
) -> ShelfOrder:
    serials = tuple(number.to_bytes(16, "big") for number in numbers)
    return sign_order(ShelfOrderTBS(shelf, int(issued), kind, serials), key)


async def give(store: DeliveryStore, kind: ShelfOrderKind, *numbers: int) -> ShelfReport:
    return await store.order(order(kind, *numbers), NOW + 600)


async def report(store: DeliveryStore) -> ShelfReport:
    return await give(store, ShelfOrderKind.REPORT)


async def uses(store: DeliveryStore) -> dict[int, int]:
    """Serial -> uses, as the owner is told."""
    return {number_of(entry): entry.uses for entry in (await report(store)).sets}


def number_of(entry: ShelfEntry) -> int:
    return int.from_bytes(entry.serial, "big")


async def test_an_expired_set_is_not_given(deliveries: DeliveryStore) -> None:
    await deliveries.upload(upload_of(1, expiry=NOW + 10))
    await deliveries.upload(upload_of(2, expiry=NOW + 10, last_resort=True))
    assert await claim(deliveries, NOW + 10) is None
    await deliveries.expire(NOW + 20)
    assert await uses(deliveries) == {}


async def test_a_shelf_is_its_first_keys(deliveries: DeliveryStore) -> None:
    await deliveries.upload(upload_of(1))
    with pytest.raises(NotAllowed, match="another key"):
        await deliveries.upload(upload_of(2, key=SigningKey.generate()))
    assert await deliveries.claim(SHELF, SigningKey.generate().public, NOW) is None
    for kind in ShelfOrderKind:
        with pytest.raises(NotAllowed, match="another key"):
            await deliveries.order(order(kind, key=SigningKey.generate()), NOW + 600)
    assert await claim(deliveries) == (b"package 1", False)
    assert await claim(deliveries) is None


async def test_a_closed_shelf_gives_nothing_and_takes_nothing(deliveries: DeliveryStore) -> None:
    """To the blocked contact it looks as if there were nothing, and never had been."""
    await deliveries.upload(upload_of(1))
    await deliveries.upload(upload_of(2, last_resort=True))
    other = b"\x08" * 32
    await deliveries.upload(upload_of(3, shelf=other))
    await give(deliveries, ShelfOrderKind.CLOSE)
    assert await claim(deliveries) is None
    with pytest.raises(NotAllowed, match="closed"):
        await deliveries.upload(upload_of(4))
    assert await claim(deliveries, shelf=other) == (b"package 3", False)


async def test_a_set_that_is_uploaded_again_is_there_once(deliveries: DeliveryStore) -> None:
    """A retry after a lost answer is no error; another set under the same serial is one."""
    await deliveries.upload(upload_of(1))
    await deliveries.upload(upload_of(1))
    different = sign_upload(
        SetUploadTBS(SHELF, (1).to_bytes(16, "big"), True, int(NOW) + 9, KeyPackageSet(())), KEY
    )
    with pytest.raises(NotAllowed, match="serial"):
        await deliveries.upload(different)
    assert await claim(deliveries) == (b"package 1", False)
    assert await claim(deliveries) is None


async def test_two_first_uploads_at_once_make_one_shelf(deliveries: DeliveryStore, opened: Open) -> None:
    stores = [deliveries, *[DeliveryStore(await opened(tables.deliveries)) for _ in range(3)]]
    await asyncio.gather(*(stores[number].upload(upload_of(number)) for number in range(4)))
    taken = [await claim(deliveries) for _ in range(5)]
    assert sum(one is not None for one in taken) == 4


async def test_a_shelf_has_a_bound(deliveries: DeliveryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliveries_module, "MAX_SETS", 2)
    await deliveries.upload(upload_of(1))
    await deliveries.upload(upload_of(2))
    with pytest.raises(QueueFull, match="at most 2"):
        await deliveries.upload(upload_of(3))


async def test_random_last_resorts_are_used_about_equally_often(deliveries: DeliveryStore) -> None:
    for number in (1, 2, 3):
        await deliveries.upload(upload_of(number, last_resort=True))
    for _ in range(120):
        await claim(deliveries)
    counted = await uses(deliveries)
    assert sum(counted.values()) == 120
    assert min(counted.values()) > 15  # by chance one time in ten million


async def test_the_owner_sees_what_is_left_and_what_was_used(deliveries: DeliveryStore) -> None:
    for number in (1, 2):
        await deliveries.upload(upload_of(number))
    await deliveries.upload(upload_of(3, last_resort=True, expiry=NOW + 50))
    for _ in range(5):
        await claim(deliveries)
    assert await report(deliveries) == ShelfReport(
        (ShelfEntry((3).to_bytes(16, "big"), True, 3, int(NOW) + 50),), ()
    )
    await deliveries.expire(NOW + 60)
    assert await report(deliveries) == ShelfReport((), ())


async def test_sets_that_are_taken_back_are_given_to_nobody_and_the_shelf_stays_open(
    deliveries: DeliveryStore,
) -> None:
    for number in (1, 2, 3):
        await deliveries.upload(upload_of(number))
    await deliveries.upload(upload_of(4, last_resort=True))
    other = b"\x08" * 32
    await deliveries.upload(upload_of(1, shelf=other))
    answer = await give(deliveries, ShelfOrderKind.TAKE_BACK, 1, 4, 99)
    assert [number_of(entry) for entry in answer.taken_back] == [1, 4]
    assert [number_of(entry) for entry in answer.sets] == [2, 3]
    assert await give(deliveries, ShelfOrderKind.TAKE_BACK, 1, 4) == ShelfReport(answer.sets, ())
    taken = [await claim(deliveries) for _ in range(3)]
    assert {one for one in taken if one} == {(b"package 2", False), (b"package 3", False)}
    await deliveries.upload(upload_of(5))
    assert await claim(deliveries) == (b"package 5", False)
    assert await claim(deliveries, shelf=other) == (b"package 1", False)


async def test_of_a_take_back_and_a_claim_at_once_one_gets_the_set(
    deliveries: DeliveryStore, opened: Open
) -> None:
    other = DeliveryStore(await opened(tables.deliveries))
    for number in range(10):
        await deliveries.upload(upload_of(number, last_resort=number % 2 == 1))
        taken, answer = await asyncio.gather(claim(deliveries), give(other, ShelfOrderKind.TAKE_BACK, number))
        if number % 2 == 0:
            assert (taken is None) == (len(answer.taken_back) == 1)
        else:  # a use is counted, or there was none
            assert [entry.uses for entry in answer.taken_back] == [int(taken is not None)]
        assert await claim(deliveries) is None


async def test_an_order_is_carried_out_once(deliveries: DeliveryStore) -> None:
    await deliveries.upload(upload_of(1))
    for kind in ShelfOrderKind:
        once = order(kind)
        await deliveries.order(once, NOW + 600)
        with pytest.raises(NotAllowed, match="given before"):
            await deliveries.order(once, NOW + 600)


async def test_an_unknown_and_a_closed_shelf_refuse_an_order_alike(deliveries: DeliveryStore) -> None:
    await deliveries.upload(upload_of(1))
    gone = await give(deliveries, ShelfOrderKind.CLOSE)
    assert [number_of(entry) for entry in gone.taken_back] == [1]
    assert await give(deliveries, ShelfOrderKind.CLOSE) == ShelfReport((), ())  # the answer was lost
    messages = set()
    for kind in (ShelfOrderKind.REPORT, ShelfOrderKind.TAKE_BACK):
        for shelf in (SHELF, b"\x09" * 32):
            with pytest.raises(NotAllowed) as refused:
                await deliveries.order(order(kind, shelf=shelf), NOW + 600)
            messages.add(str(refused.value))
    assert len(messages) == 1


async def test_a_shelf_that_was_closed_before_anything_lay_there_stays_closed(
    deliveries: DeliveryStore,
) -> None:
    """An upload of another device of the owner's may be on its way still."""
    await give(deliveries, ShelfOrderKind.CLOSE)
    with pytest.raises(NotAllowed, match="closed"):
        await deliveries.upload(upload_of(1))


async def test_a_shelfs_row_goes_when_nothing_signed_for_it_can_come_any_more(
    deliveries: DeliveryStore,
) -> None:
    """Until then a closed one stays closed; a later upload makes a new shelf of what was one long ago."""
    other = b"\x08" * 32
    await deliveries.upload(upload_of(1, expiry=NOW + 10))
    await deliveries.upload(upload_of(2, expiry=NOW + 5 * 86400))
    await deliveries.upload(upload_of(2, shelf=other, expiry=NOW + 10 * 86400))
    await deliveries.expire(NOW + 2 * 86400)
    assert await rows(deliveries) == {SHELF, other}
    await deliveries.expire(NOW + 7 * 86400)
    assert await rows(deliveries) == {other}
    await deliveries.order(order(ShelfOrderKind.CLOSE, shelf=other), NOW + 600)
    await deliveries.expire(NOW + MAX_SET_LIFETIME - 1)
    assert await rows(deliveries) == {other}
    with pytest.raises(NotAllowed, match="closed"):
        await deliveries.upload(upload_of(3, shelf=other, expiry=NOW + 2 * MAX_SET_LIFETIME))
    await deliveries.expire(NOW + MAX_SET_LIFETIME + 2 * 86400)
    assert await rows(deliveries) == set()


async def rows(store: DeliveryStore) -> set[bytes]:
    async with store._database.read() as connection:
        return set(await connection.scalars(sa.select(tables.shelves.c.id)))


@pytest.mark.parametrize("last_resort", [False, True])
async def test_a_replayed_upload_puts_nothing_back(deliveries: DeliveryStore, last_resort: bool) -> None:
    upload = upload_of(1, last_resort=last_resort)
    await deliveries.upload(upload)
    if not last_resort:
        assert await claim(deliveries) == (b"package 1", False)
    await give(deliveries, ShelfOrderKind.TAKE_BACK, 1)
    await deliveries.upload(upload)  # as after a lost answer: no error, and nothing there
    await deliveries.expire(NOW + 86000)
    await deliveries.upload(upload)
    assert await claim(deliveries) is None
    assert await report(deliveries) == ShelfReport((), ())


async def test_nobody_can_tell_a_closed_shelf_by_how_much_the_database_is_asked(
    deliveries: DeliveryStore,
) -> None:
    await deliveries.upload(upload_of(1))
    await give(deliveries, ShelfOrderKind.CLOSE)
    asked = {}
    for name, shelf in (("closed", SHELF), ("unknown", b"\x09" * 32)):
        with statements(deliveries._database) as asked[name]:
            assert await claim(deliveries, shelf=shelf) is None
    assert asked["closed"] == asked["unknown"]
    assert [one for one in asked["closed"] if one.startswith("SELECT")] == asked["closed"][-2:]


async def test_everybody_at_one_shelf_at_once_waits_for_nobody_in_a_circle(opened: Open) -> None:
    """Uploads, claims, orders and housekeeping, from several workers; each set ends up in one place."""
    stores = [DeliveryStore(await opened(tables.deliveries)) for _ in range(4)]
    uploads = {number: upload_of(number) for number in range(24)}
    last = [upload_of(number, last_resort=True) for number in (100, 101)]
    given: list[bytes] = []
    back: list[bytes] = []

    async def work(number: int) -> None:
        store = stores[number % 4]
        await store.upload(uploads[number])
        await store.upload(last[number % 2])
        taken = await claim(store)
        if taken is not None and not taken[1]:
            given.append(taken[0])
        if number % 3 == 0:
            answer = await give(store, ShelfOrderKind.TAKE_BACK, number, number + 1, 100 + number % 2)
            back.extend(entry.serial for entry in answer.taken_back if not entry.last_resort)
        if number % 5 == 0:
            await store.expire(NOW)
        await store.first_time(b"claim %d" % number, NOW, NOW + 60)

    await asyncio.wait_for(asyncio.gather(*(work(number) for number in range(24))), 120)
    left = [number_of(entry) for entry in (await report(stores[0])).sets if not entry.last_resort]
    ended = sorted(
        [int(one.removeprefix(b"package ")) for one in given]
        + [int.from_bytes(serial, "big") for serial in back]
        + left
    )
    assert ended == list(range(24))
