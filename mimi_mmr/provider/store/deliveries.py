"""A provider's data without accounts: queues, shelves of KeyPackage sets, and hashes of requests seen before."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from mimi_mmr.errors import NotAllowed, QueueFull, UnknownQueue
from mimi_mmr.protocol.key_packages import (
    MAX_SET_LIFETIME,
    MAX_SETS,
    KeyPackageSet,
    SetUpload,
    SetUploadTBS,
    ShelfEntry,
    ShelfOrder,
    ShelfOrderKind,
    ShelfReport,
)
from mimi_mmr.protocol.queues import QueuedMessage, QueuePage
from mimi_mmr.provider.store.database import Database, Row, insert_new, insert_or_lock
from mimi_mmr.provider.store.tables import (
    key_package_sets,
    queue_count,
    queue_messages,
    queues,
    shelves,
    transactions,
)
from ohttp_relay.server.budget import ByteBudget

DAY = 86400
MAX_QUEUE_BYTES = 64 << 20
MAX_QUEUES = 1_000_000
MAX_QUEUE_AGE = 30 * DAY
MAX_SEQUENCE = (1 << 63) - 1  # the largest number that a database holds
MAX_PAGE_BYTES = 4 << 20
MAX_PAGES_BYTES = 64 << 20
ENTRY_BYTES = 16  # number and length of a message in a page, at most
TRANSACTION_LIFETIME = 7 * DAY


@dataclass(frozen=True, slots=True)
class _Extent:
    """A page of a queue before it is read: its last number, its bytes, and whether older messages are to go.

    `gone` is the number up to which the queue has no message any more.
    """

    lost: int
    last: int
    size: int
    acknowledged: bool
    gone: int


class DeliveryStore:
    """Queues and shelves of one provider."""

    def __init__(
        self,
        database: Database,
        max_queue_bytes: int = MAX_QUEUE_BYTES,
        max_queues: int = MAX_QUEUES,
        max_page_bytes: int = MAX_PAGE_BYTES,
        max_pages_bytes: int = MAX_PAGES_BYTES,
    ) -> None:
        """Store deliveries in `database`, which holds nothing else.

        `max_page_bytes` bounds one page of a queue, `max_pages_bytes` all large pages that are read at once.
        """
        self._database = database
        self._max_queues = max_queues
        self._max_queue_bytes = max_queue_bytes
        self._max_page_bytes = max_page_bytes
        self._pages = ByteBudget(max_pages_bytes)

    async def close(self) -> None:
        """Close the database."""
        await self._database.close()

    # --- queues --------------------------------------------------------------------------------------

    async def create_queue(self, queue: bytes, *, accepts_deposits: bool) -> None:
        """Create an empty queue; repeating it changes nothing. Raise `QueueFull` above the provider's limit."""
        values = {"id": queue, "accepts_deposits": accepts_deposits, "next_sequence": 1, "lost": 0, "size": 0}
        async with self._database.write() as connection:
            if await insert_new(connection, queues, values) and not await self._count_one(connection):
                raise QueueFull(f"this provider keeps at most {self._max_queues} queues")

    async def _count_one(self, connection: AsyncConnection) -> bool:
        """Count a queue that was just created; return False if there are too many.

        Here and in `delete_queue` the count is locked after the queue and as the last step of the transaction. So a
        transaction that holds this lock waits for no other, and there is no deadlock.
        """
        more = sa.update(queue_count).values(count=queue_count.c.count + 1)
        more = more.where(queue_count.c.count < self._max_queues)
        if (await connection.execute(more)).rowcount:
            return True
        if await connection.scalar(sa.select(queue_count.c.count)) is None:
            there = await connection.scalar(sa.select(sa.func.count()).select_from(queues)) or 0
            await insert_new(
                connection, queue_count, {"row": 1, "count": there - 1}
            )  # this one is counted below
        # Another transaction may have inserted the row since the first try; if not, the limit is reached.
        return (await connection.execute(more)).rowcount == 1

    async def delete_queue(self, queue: bytes) -> None:
        """Delete a queue and its messages; do nothing if there is no such queue."""
        async with self._database.write() as connection:
            this = queues.c.id == queue
            # Every transaction locks a queue before its messages, so that there is no deadlock.
            if await connection.scalar(sa.select(queues.c.id).where(this).with_for_update()) is None:
                return
            await connection.execute(sa.delete(queue_messages).where(queue_messages.c.queue == queue))
            await connection.execute(sa.delete(queues).where(this))
            await connection.execute(sa.update(queue_count).values(count=queue_count.c.count - 1))

    async def put(
        self, wanted: Sequence[bytes], message: bytes, transaction: bytes, now: float
    ) -> list[bytes]:
        """Put one message into several queues, once for each `transaction`; return the queues that took it.

        A full queue counts the message as lost, so that its collector learns of the loss.
        """
        async with self._database.write() as connection:
            if not await _first_time(connection, transaction, now + TRANSACTION_LIFETIME):
                return []
            unique = sorted(set(wanted))  # sorted, so that two transactions can't deadlock
            return [queue for queue in unique if await self._append(connection, queue, message, now)]

    async def deposit(self, queue: bytes, message: bytes, now: float) -> None:
        """Put an anonymous deposit into a reply inbox; raise `UnknownQueue` or `QueueFull`."""
        async with self._database.write() as connection:
            row = (await connection.execute(sa.select(queues).where(queues.c.id == queue))).one_or_none()
            if row is None or not row.accepts_deposits:
                raise UnknownQueue("no such reply inbox")
            if not await self._append(connection, queue, message, now):
                raise QueueFull("the reply inbox is full")

    async def _append(self, connection: AsyncConnection, queue: bytes, message: bytes, now: float) -> bool:
        row = (
            await connection.execute(sa.select(queues).where(queues.c.id == queue).with_for_update())
        ).one_or_none()
        if row is None:
            return False
        change = sa.update(queues).where(queues.c.id == queue)
        if row.size + len(message) > self._max_queue_bytes:
            await connection.execute(change.values(lost=row.lost + 1))
            return False
        values = {"queue": queue, "sequence": row.next_sequence, "message": message, "received": int(now)}
        await connection.execute(sa.insert(queue_messages).values(values))
        await connection.execute(
            change.values(next_sequence=row.next_sequence + 1, size=row.size + len(message))
        )
        return True

    async def collect(self, queue: bytes, acknowledged: int, limit: int) -> QueuePage:
        """Delete acknowledged messages, return the next ones, oldest first; raise `UnknownQueue`.

        A page has at most `limit` messages and, unless its first one alone is larger, at most the store's
        `max_page_bytes`. It is read outside of write transactions. Raises `Overloaded` if too much is being read.
        """
        acknowledged = min(acknowledged, MAX_SEQUENCE)
        extent = await self._extent(queue, acknowledged, limit)
        if extent.acknowledged:
            await self._acknowledge(queue, acknowledged)
        if not extent.size:
            return QueuePage(extent.lost, (), extent.gone)
        table = queue_messages.c
        which = (table.queue == queue, table.sequence > acknowledged, table.sequence <= extent.last)
        query = sa.select(table.sequence, table.message).where(*which).order_by(table.sequence)
        async with self._pages.taken(extent.size), self._database.read() as connection:
            found = await connection.execute(query)
            messages = tuple(QueuedMessage(number, message) for number, message in found)
            return QueuePage(extent.lost, messages, extent.gone)

    async def _extent(self, queue: bytes, acknowledged: int, limit: int) -> _Extent:
        """Measure the next page without reading its messages; raise `UnknownQueue`."""
        table = queue_messages.c
        old = sa.exists().where(table.queue == queue, table.sequence <= acknowledged)
        sizes = sa.select(table.sequence, sa.func.length(table.message))
        sizes = sizes.where(table.queue == queue, table.sequence > acknowledged)
        following = sa.select(sa.func.min(table.sequence)).where(
            table.queue == queue, table.sequence > acknowledged
        )
        # in one statement: what is lost, and what is gone, are of one moment
        first = sa.func.coalesce(following.scalar_subquery(), queues.c.next_sequence)
        async with self._database.read() as connection:
            this = sa.select(queues.c.lost, old.label("old"), first.label("first")).where(
                queues.c.id == queue
            )
            row = (await connection.execute(this)).one_or_none()
            if row is None:
                raise UnknownQueue("no such queue")
            last = size = 0
            for number, length in await connection.execute(sizes.order_by(table.sequence).limit(limit)):
                if size and size + length > self._max_page_bytes:
                    break
                last, size = number, size + length + ENTRY_BYTES
            return _Extent(row.lost, last, size, row.old, row.first - 1)

    async def _acknowledge(self, queue: bytes, acknowledged: int) -> None:
        """Delete the messages up to this number."""
        table = queue_messages.c
        old = sa.and_(table.queue == queue, table.sequence <= acknowledged)
        this = queues.c.id == queue
        async with self._database.write() as connection:
            await connection.execute(sa.select(queues.c.id).where(this).with_for_update())
            freed = await connection.scalar(sa.select(sa.func.sum(sa.func.length(table.message))).where(old))
            if freed is not None:
                await connection.execute(sa.delete(queue_messages).where(old))
                await connection.execute(sa.update(queues).where(this).values(size=queues.c.size - freed))

    # --- shelves -------------------------------------------------------------------------------------

    async def upload(self, upload: SetUpload) -> None:
        """Put a verified upload on its shelf. Repeating it changes nothing, even after the set is gone.

        Raises `NotAllowed` if the shelf has another key or is closed.
        """
        content = upload.content
        async with self._database.write() as connection:
            shelf = await _lock_or_make(connection, content.shelf, upload.upload_public_key)
            _check_shelf(shelf, upload.upload_public_key)
            await _keep_until(connection, content.shelf, content.expiry)
            # Remembered until the set expires: a set that was given out or taken back can't be uploaded again.
            if not await _first_time(connection, b"upload" + content.to_bytes(), content.expiry):
                return
            count = sa.select(sa.func.count()).where(key_package_sets.c.shelf == content.shelf)
            if (await connection.scalar(count) or 0) >= MAX_SETS:
                raise QueueFull(f"a shelf holds at most {MAX_SETS} KeyPackage sets")
            await self._put_set(connection, content)

    async def _put_set(self, connection: AsyncConnection, content: SetUploadTBS) -> None:
        given = {
            "key_packages": content.key_packages.to_bytes(),
            "last_resort": content.last_resort,
            "expiry": content.expiry,
        }
        key = {"shelf": content.shelf, "serial": content.serial, "uses": 0}
        if await insert_new(connection, key_package_sets, key | given):
            return
        same = _same_set(content.shelf, content.serial)
        row = (await connection.execute(sa.select(key_package_sets).where(same))).one()
        if any(getattr(row, name) != value for name, value in given.items()):
            raise NotAllowed("another set lies on the shelf under this serial")

    async def order(self, order: ShelfOrder, expiry: float) -> ShelfReport:
        """Carry out a verified order, at most once until `expiry`; report the shelf's sets afterwards.

        Raises `NotAllowed` for a repeated order, and for a shelf that is unknown, closed or kept by another key.
        CLOSE alone is allowed on an unknown or closed shelf.
        """
        content, key = order.content, order.upload_public_key
        closing = content.kind is ShelfOrderKind.CLOSE
        async with self._database.write() as connection:
            lock = (
                _lock_or_make(connection, content.shelf, key) if closing else _lock(connection, content.shelf)
            )
            _check_shelf(await lock, key, may_be_closed=closing)
            if not await _first_time(connection, b"order" + content.to_bytes(), expiry):
                raise NotAllowed("this order was given before; a new one is needed each time")
            here = key_package_sets.c.shelf == content.shelf
            taken: tuple[ShelfEntry, ...] = ()
            if closing:
                taken = await _take_back(connection, here)
                await _close(connection, content.shelf, content.issued + MAX_SET_LIFETIME)
            elif content.kind is ShelfOrderKind.TAKE_BACK:
                named = key_package_sets.c.serial.in_(content.serials)
                taken = await _take_back(connection, sa.and_(here, named))
            return ShelfReport(_entries(await connection.execute(sa.select(*_ENTRY).where(here))), taken)

    async def claim(
        self, shelf: bytes, upload_public_key: bytes, now: float
    ) -> tuple[KeyPackageSet, bool] | None:
        """Take and delete a set; without one return a random last resort and count its use; without that, None.

        The shelf must belong to the upload key that the claim names. For an unknown, closed or empty shelf the same
        statements run and find nothing.
        """
        table = key_package_sets
        keeper = sa.select(shelves.c.id).where(
            shelves.c.upload_public_key == upload_public_key, shelves.c.open
        )
        valid = sa.and_(table.c.shelf == shelf, table.c.shelf.in_(keeper), table.c.expiry > now)
        async with self._database.write() as connection:
            single = sa.select(table).where(valid, table.c.last_resort.is_(False)).limit(1)
            row = (await connection.execute(single.with_for_update(skip_locked=True))).one_or_none()
            if row is not None:
                await connection.execute(sa.delete(table).where(_same_set(row.shelf, row.serial)))
                return KeyPackageSet.from_bytes(row.key_packages), False
            serials = list(
                await connection.scalars(sa.select(table.c.serial).where(valid, table.c.last_resort))
            )
            secrets.SystemRandom().shuffle(serials)
            for serial in serials:  # tries the next one only if the owner just took this one back
                counted = sa.update(table).where(_same_set(shelf, serial)).values(uses=table.c.uses + 1)
                given = await connection.scalar(counted.returning(table.c.key_packages))
                if given is not None:
                    return KeyPackageSet.from_bytes(given), True
            return None

    async def first_time(self, what: bytes, now: float, expiry: float) -> bool:
        """Return whether `what` was not seen before; remember its hash until `expiry`."""
        async with self._database.write() as connection:
            await _purge(
                connection,
                transactions,
                sa.select(transactions.c.digest).where(transactions.c.expiry < int(now)),
            )
            return await _first_time(connection, what, expiry)

    async def expire(self, now: float) -> None:
        """Delete expired messages, sets, shelves and hashes; expired messages count as lost."""
        async with self._database.write() as connection:
            await self._expire_messages(connection, queue_messages.c.received < int(now) - MAX_QUEUE_AGE)
        async with self._database.write() as connection:
            table = key_package_sets.c
            old = sa.select(table.shelf, table.serial).where(table.expiry < int(now))
            await _purge(connection, key_package_sets, old)
            filled = sa.exists().where(table.shelf == shelves.c.id)
            old = sa.select(shelves.c.id).where(shelves.c.expiry < int(now), ~filled)
            await _purge(connection, shelves, old)
            old = sa.select(transactions.c.digest).where(transactions.c.expiry < int(now))
            await _purge(connection, transactions, old)

    async def _expire_messages(self, connection: AsyncConnection, old: sa.ColumnElement[bool]) -> None:
        table = queue_messages.c
        affected = await connection.scalars(
            sa.select(table.queue).where(old).distinct().order_by(table.queue)
        )
        for queue in list(affected):
            this = queues.c.id == queue
            await connection.execute(sa.select(queues.c.id).where(this).with_for_update())
            gone = sa.and_(table.queue == queue, old)
            totals = sa.select(sa.func.count(), sa.func.sum(sa.func.length(table.message))).where(gone)
            count, freed = (await connection.execute(totals)).one()
            await connection.execute(sa.delete(queue_messages).where(gone))
            change = {"lost": queues.c.lost + count, "size": queues.c.size - (freed or 0)}
            await connection.execute(sa.update(queues).where(this).values(change))


_ENTRY = tuple(key_package_sets.c[name] for name in ("serial", "last_resort", "uses", "expiry"))


async def _lock(connection: AsyncConnection, shelf: bytes) -> Row | None:
    """Lock a shelf, so that no set is put on it while it is being closed."""
    query = sa.select(shelves).where(shelves.c.id == shelf).with_for_update()
    return (await connection.execute(query)).one_or_none()


async def _lock_or_make(connection: AsyncConnection, shelf: bytes, key: bytes) -> Row | None:
    values = {"id": shelf, "upload_public_key": key, "open": True, "expiry": 0}
    return await insert_or_lock(connection, shelves, values)


def _check_shelf(shelf: Row | None, key: bytes, *, may_be_closed: bool = False) -> None:
    if (
        shelf is None
        or not (shelf.open or may_be_closed)
        or not hmac.compare_digest(shelf.upload_public_key, key)
    ):
        raise NotAllowed("the shelf is unknown or closed, or its sets are signed by another key")


async def _close(connection: AsyncConnection, shelf: bytes, remembered: int) -> None:
    await connection.execute(sa.update(shelves).where(shelves.c.id == shelf).values(open=False))
    await _keep_until(connection, shelf, remembered)


async def _keep_until(connection: AsyncConnection, shelf: bytes, moment: int) -> None:
    """Keep a shelf's row until the end of the day of `moment`, at least."""
    day = -(-moment // DAY) * DAY
    later = sa.update(shelves).where(shelves.c.id == shelf, shelves.c.expiry < day)
    await connection.execute(later.values(expiry=day))


async def _take_back(connection: AsyncConnection, which: sa.ColumnElement[bool]) -> tuple[ShelfEntry, ...]:
    return _entries(await connection.execute(sa.delete(key_package_sets).where(which).returning(*_ENTRY)))


def _entries(rows: Iterable[Any]) -> tuple[ShelfEntry, ...]:
    return tuple(sorted((ShelfEntry(*row) for row in rows), key=lambda entry: (entry.expiry, entry.serial)))


async def _purge(connection: AsyncConnection, table: sa.Table, old: sa.Select[Any]) -> None:
    """Delete these rows by primary key; skip rows that are locked, since waiting for them could deadlock."""
    which = sa.tuple_(*table.primary_key.columns).in_(old.with_for_update(skip_locked=True))
    await connection.execute(sa.delete(table).where(which))


def _same_set(shelf: bytes, serial: bytes) -> sa.ColumnElement[bool]:
    return sa.and_(key_package_sets.c.shelf == shelf, key_package_sets.c.serial == serial)


async def _first_time(connection: AsyncConnection, what: bytes, expiry: float) -> bool:
    values = {"digest": hashlib.sha256(what).digest(), "expiry": int(expiry)}
    return await insert_new(connection, transactions, values)
