"""Both databases: every test here runs on SQLite and on PostgreSQL, each time on a fresh one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from mimi_mmr.provider.store import tables
from mimi_mmr.provider.store.accounts import AccountStore
from mimi_mmr.provider.store.database import Database
from mimi_mmr.provider.store.deliveries import DeliveryStore
from mimi_mmr.provider.store.hub import HubStore
from tests.mimi_mmr.bench import HUB

QUEUE_BYTES = 1000

Open = Callable[[sa.MetaData], Awaitable[Database]]


@contextmanager
def statements(database: Database) -> Iterator[list[str]]:
    """The statements that a database is given meanwhile, without their parameters."""
    given: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        given.append(statement)

    engine = database._engine.sync_engine
    sa.event.listen(engine, "before_cursor_execute", note)
    try:
        yield given
    finally:
        sa.event.remove(engine, "before_cursor_execute", note)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database with nothing in it."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'store.db'}"
        return
    server = request.getfixturevalue("postgres")
    yield str(server.get_uri())
    server.psql("drop schema public cascade; create schema public")


@pytest.fixture
async def opened(database_url: str) -> AsyncIterator[Open]:
    """Opens the test's database, as often as a test has workers, and closes every one."""
    databases: list[Database] = []

    async def opening(metadata: sa.MetaData) -> Database:
        databases.append(await Database.open(database_url, metadata))
        return databases[-1]

    yield opening
    for database in databases:
        await database.close()


@pytest.fixture
async def hub(opened: Open) -> HubStore:
    return HubStore(await opened(tables.hub), HUB)


@pytest.fixture
async def accounts(opened: Open) -> AccountStore:
    return AccountStore(await opened(tables.accounts))


@pytest.fixture
async def deliveries(opened: Open) -> DeliveryStore:
    return DeliveryStore(await opened(tables.deliveries), max_queue_bytes=QUEUE_BYTES)
