"""What was deleted leaves SQLite's file and its write-ahead log, while the provider runs."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from mimi_mmr.provider.store import database as database_module
from mimi_mmr.provider.store import tables
from mimi_mmr.provider.store.database import Database
from mimi_mmr.provider.store.deliveries import DeliveryStore

QUEUE = b"\1" * 32
NOW = 1000.0 * 86400


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = await Database.open(f"sqlite:///{tmp_path / 'store.db'}", tables.deliveries)
    yield opened
    await opened.close()


def holds(directory: Path, content: bytes) -> bool:
    """Whether any file of the database, as it lies on the disk, has these bytes."""
    return any(content in path.read_bytes() for path in directory.iterdir())


@pytest.mark.parametrize("size", [40, 20_000])  # within a page, and over several
async def test_an_acknowledged_message_leaves_the_file_and_its_log(
    database: Database, tmp_path: Path, size: int
) -> None:
    store, secret = DeliveryStore(database), secrets.token_bytes(40)
    await store.create_queue(QUEUE, accepts_deposits=False)
    await store.put([QUEUE], secret + bytes(size - 40), b"transaction", NOW)
    assert await database.empty_log()
    assert holds(tmp_path, secret)  # what waits is kept
    await store.collect(QUEUE, 1, 10)
    await store.put([QUEUE], secret[::-1], b"another", NOW)
    await store.collect(QUEUE, 2, 10)
    assert holds(tmp_path, secret)  # the control: it is deleted, and still there
    assert holds(tmp_path, secret[::-1])
    assert await database.empty_log()
    assert not holds(tmp_path, secret)
    assert not holds(tmp_path, secret[::-1])


async def test_a_reader_in_the_way_delays_it_and_a_writer_is_not_held_up_for_long(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "CHECKPOINT_TIMEOUT_MS", 10)
    store = DeliveryStore(database)
    await store.create_queue(QUEUE, accepts_deposits=False)
    async with database.read() as connection:
        await connection.scalar(sa.select(tables.queues.c.id))
        await store.put([QUEUE], b"hello", b"transaction", NOW)  # the reader has an older view
        assert not await database.empty_log()
        async with asyncio.timeout(5):
            await store.put([QUEUE], b"again", b"another", NOW)
    assert await database.empty_log()


async def test_connections_wait_for_a_lock_as_before_after_it(database: Database) -> None:
    await database.empty_log()
    for _ in range(3):
        async with database.read() as connection:
            waits = await connection.scalar(sa.text("PRAGMA busy_timeout"))
            assert waits == database_module.BUSY_TIMEOUT_MS
