"""Whatever is done to queues and shelves, and in whatever order: they hold what a plain list would hold."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mimi_mmr.crypto.signing import SigningKey
from mimi_mmr.errors import NotAllowed, QueueFull, UnknownQueue
from mimi_mmr.protocol.key_packages import (
    MAX_SET_LIFETIME,
    KeyPackageSet,
    SetEntry,
    SetUpload,
    SetUploadTBS,
    ShelfEntry,
    ShelfOrderKind,
    ShelfOrderTBS,
    sign_order,
    sign_upload,
)
from mimi_mmr.provider.store import tables
from mimi_mmr.provider.store.database import Database
from mimi_mmr.provider.store.deliveries import MAX_QUEUE_AGE, TRANSACTION_LIFETIME, DeliveryStore
from tests.mimi_mmr.provider.store.test_store_crashes import whole

DAY = 86400
START = 1000 * DAY
MAX_QUEUES, QUEUE_BYTES = 3, 20
KEY = SigningKey.from_seed(bytes(32))
SHELVES = [b"\1" * 32, b"\2" * 32]
QUEUES = [bytes([number]) * 32 for number in range(4)]
_T = TypeVar("_T")

some_queue = st.sampled_from(QUEUES)
some_shelf = st.sampled_from(SHELVES)
some_serial = st.integers(0, 15)


@dataclass
class Queue:
    """A queue as one would write it down."""

    accepts_deposits: bool
    next: int = 1
    lost: int = 0
    messages: list[tuple[int, bytes, int]] = field(default_factory=list)

    def put(self, message: bytes, now: int) -> bool:
        if sum(len(text) for _, text, _ in self.messages) + len(message) > QUEUE_BYTES:
            return False
        self.messages.append((self.next, message, now))
        self.next += 1
        return True


Sets = dict[int, tuple[bool, int, int]]


@dataclass
class Shelf:
    """A shelf as one would write it down: serial -> last resort, uses, expiry; and every upload's expiry."""

    open: bool = True
    sets: Sets = field(default_factory=dict)
    uploads: dict[int, int] = field(default_factory=dict)
    kept_until: int = 0

    def keep_until(self, moment: int) -> None:
        self.kept_until = max(self.kept_until, -(-moment // DAY) * DAY)


class Deliveries(RuleBasedStateMachine):
    """A store, and time that passes."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.directory = tempfile.TemporaryDirectory()
        url = f"sqlite:///{self.directory.name}/deliveries.db"
        self.database = self.run(Database.open(url, tables.deliveries))
        self.store = DeliveryStore(self.database, max_queue_bytes=QUEUE_BYTES, max_queues=MAX_QUEUES)
        self.now = START

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        return self.runner.run(work)

    def teardown(self) -> None:
        self.run(self.database.close())
        self.runner.close()
        self.directory.cleanup()

    def refused(self, work: Coroutine[Any, Any, object], error: type[Exception]) -> None:
        try:
            self.run(work)
        except error:
            return
        raise AssertionError(f"expected {error.__name__}")

    def forget_old(self) -> None:
        """What the model drops when the store is tidied."""

    @rule(seconds=st.sampled_from([1, 1, DAY, 40 * DAY]))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @rule()
    def expire(self) -> None:
        self.run(self.store.expire(self.now))
        self.forget_old()


class Queues(Deliveries):
    """Queues, and what they should hold."""

    def __init__(self) -> None:
        super().__init__()
        self.queues: dict[bytes, Queue] = {}
        self.transactions: dict[bytes, int] = {}

    def forget_old(self) -> None:
        self.transactions = {one: end for one, end in self.transactions.items() if end >= self.now}
        for queue in self.queues.values():
            old = [one for one in queue.messages if one[2] < self.now - MAX_QUEUE_AGE]
            queue.lost += len(old)
            queue.messages = [one for one in queue.messages if one not in old]

    @invariant()
    def what_is_said_of_queues_is_so(self) -> None:
        self.run(whole(self.store))

    @rule(queue=some_queue, accepts=st.booleans())
    def create(self, queue: bytes, accepts: bool) -> None:
        work = self.store.create_queue(queue, accepts_deposits=accepts)
        if queue not in self.queues and len(self.queues) == MAX_QUEUES:
            self.refused(work, QueueFull)
            return
        self.run(work)
        self.queues.setdefault(queue, Queue(accepts))

    @rule(queue=some_queue)
    def delete(self, queue: bytes) -> None:
        self.run(self.store.delete_queue(queue))
        self.queues.pop(queue, None)

    @rule(
        wanted=st.lists(some_queue, max_size=5),
        message=st.binary(max_size=12),
        transaction=st.binary(min_size=1, max_size=1),
    )
    def put(self, wanted: list[bytes], message: bytes, transaction: bytes) -> None:
        reached = self.run(self.store.put(wanted, message, transaction, self.now))
        expected = []
        if transaction not in self.transactions:
            self.transactions[transaction] = self.now + TRANSACTION_LIFETIME
            for name in sorted(set(wanted) & self.queues.keys()):
                if self.queues[name].put(message, self.now):
                    expected.append(name)
                else:
                    self.queues[name].lost += 1
        assert reached == expected

    @rule(queue=some_queue, message=st.binary(max_size=12))
    def deposit(self, queue: bytes, message: bytes) -> None:
        work, known = self.store.deposit(queue, message, self.now), self.queues.get(queue)
        if known is None or not known.accepts_deposits:
            self.refused(work, UnknownQueue)
        elif known.put(message, self.now):
            self.run(work)
        else:
            self.refused(work, QueueFull)

    @rule(queue=some_queue, acknowledged=st.integers(0, 12), limit=st.integers(1, 4))
    def collect(self, queue: bytes, acknowledged: int, limit: int) -> None:
        work, known = self.store.collect(queue, acknowledged, limit), self.queues.get(queue)
        if known is None:
            self.refused(work, UnknownQueue)
            return
        page = self.run(work)
        known.messages = [one for one in known.messages if one[0] > acknowledged]
        expected = [(number, text) for number, text, _ in known.messages[:limit]]
        assert [(one.sequence, one.message) for one in page.messages] == expected
        assert page.lost == known.lost


class Shelves(Deliveries):
    """Shelves, and what should lie on them."""

    def __init__(self) -> None:
        super().__init__()
        self.shelves: dict[bytes, Shelf] = {}

    def forget_old(self) -> None:
        for name, shelf in list(self.shelves.items()):
            shelf.sets = {number: one for number, one in shelf.sets.items() if one[2] >= self.now}
            if shelf.kept_until < self.now and not shelf.sets:
                del self.shelves[name]

    @rule(shelf=some_shelf, serial=some_serial, days=st.integers(1, 3))
    def upload(self, shelf: bytes, serial: int, days: int) -> None:
        """A serial, drawn once, says the whole of a set but for its expiry; odd ones are last resorts."""
        known, expiry = self.shelves.get(shelf, Shelf()), self.now + days * DAY
        if serial in known.uploads:
            return
        work = self.store.upload(upload_of(shelf, serial, expiry))
        if not known.open:
            self.refused(work, NotAllowed)
            return
        self.run(work)
        self.shelves[shelf] = known
        known.uploads[serial] = expiry
        known.sets[serial] = (serial % 2 == 1, 0, expiry)
        known.keep_until(expiry)

    @rule(shelf=some_shelf, which=st.integers(0, 15))
    def upload_again(self, shelf: bytes, which: int) -> None:
        """The same upload once more, as after a lost answer or by a stranger: nothing comes back by it."""
        known = self.shelves.get(shelf, Shelf())
        fresh = [
            serial for serial, expiry in known.uploads.items() if expiry > self.now
        ]  # others don't get here
        gone = [serial for serial in fresh if serial not in known.sets]
        if not fresh:
            return
        serial = (gone or fresh)[which % len(gone or fresh)]
        expiry = known.uploads[serial]
        work = self.store.upload(upload_of(shelf, serial, expiry))
        if known.open:
            self.run(work)
        else:
            self.refused(work, NotAllowed)

    @rule(shelf=some_shelf)
    def claim(self, shelf: bytes) -> None:
        taken = self.run(self.store.claim(shelf, KEY.public, self.now))
        known = self.shelves.get(shelf, Shelf())
        there = {number: one for number, one in known.sets.items() if one[2] > self.now}
        single = {number for number, one in there.items() if not one[0]}
        if taken is None:
            assert not there
            return
        (serial,) = taken[0].entries[0].key_package
        assert serial in (single or there)
        assert taken[1] == (not single)
        if single:
            del known.sets[serial]
        else:
            last_resort, uses, expiry = known.sets[serial]
            known.sets[serial] = (last_resort, uses + 1, expiry)

    @rule(shelf=some_shelf, kind=st.sampled_from(ShelfOrderKind), serials=st.sets(some_serial))
    def order(self, shelf: bytes, kind: ShelfOrderKind, serials: set[int]) -> None:
        named = serials if kind is ShelfOrderKind.TAKE_BACK else set()
        wanted = tuple(serial.to_bytes(16, "big") for serial in sorted(named))
        content = ShelfOrderTBS(shelf, self.now, kind, wanted)
        work, known = self.store.order(sign_order(content, KEY), self.now + 301), self.shelves.get(shelf)
        if kind is ShelfOrderKind.CLOSE:
            known = self.shelves.setdefault(shelf, Shelf())
            known.open, named = False, set(known.sets)
            known.keep_until(self.now + MAX_SET_LIFETIME)
        elif known is None or not known.open:
            self.refused(work, NotAllowed)
            return
        report = self.run(work)
        taken = {serial: known.sets.pop(serial) for serial in named & known.sets.keys()}
        assert (read(report.sets), read(report.taken_back)) == (known.sets, taken)


def upload_of(shelf: bytes, serial: int, expiry: int) -> SetUpload:
    entries = KeyPackageSet((SetEntry(bytes([serial]), bytes(48)),))
    content = SetUploadTBS(shelf, serial.to_bytes(16, "big"), serial % 2 == 1, expiry, entries)
    return sign_upload(content, KEY)


def read(entries: Sequence[ShelfEntry]) -> Sets:
    """A list of a report, as the model has it."""
    return {int.from_bytes(one.serial, "big"): (one.last_resort, one.uses, one.expiry) for one in entries}


HISTORIES = settings(max_examples=15, stateful_step_count=30, suppress_health_check=list(HealthCheck))
for machine in (Queues, Shelves):
    machine.TestCase.settings = HISTORIES
TestQueues, TestShelves = Queues.TestCase, Shelves.TestCase
