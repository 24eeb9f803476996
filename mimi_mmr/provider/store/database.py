"""One database of one role: engine, transactions, schema."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from mimi_mmr.errors import ConfigError
from mimi_mmr.provider.store import schema
from mimi_mmr.provider.store.postgresql import connect_arguments

BUSY_TIMEOUT_MS = 15_000
UPGRADE_TIMEOUT_MS = 600_000
CHECKPOINT_TIMEOUT_MS = 1_000
Row: TypeAlias = sa.Row[*tuple[Any, ...]]
_INSERTS: dict[str, Callable[[sa.Table], Any]] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


class Database:
    """An async SQLAlchemy engine over SQLite (WAL) or PostgreSQL, with one role's tables."""

    def __init__(self, engine: AsyncEngine) -> None:
        """Use `Database.open`."""
        self._engine = engine

    @classmethod
    async def open(cls, url: str, metadata: sa.MetaData) -> Database:
        """Connect to the database of the role that `metadata` names, and bring it to the latest schema.

        Raises `ConfigError`, which names the problem: an invalid URL, a database that can't be reached, belongs to
        another role, or has a newer version.
        """
        database = cls._connected(url)
        try:
            with _errors():
                await database._bring_up_to_date(metadata.info["role"])
        except BaseException:
            await database.close()
            raise
        return database

    @classmethod
    async def recorded_schema(cls, url: str, metadata: sa.MetaData) -> int | None:
        """Return the recorded number of a database's schema, None if none is recorded; raises as `open` does."""
        database = cls._connected(url)
        try:
            with _errors():
                async with database.read() as connection:
                    found = await connection.run_sync(schema.current, metadata.info["role"])
        finally:
            await database.close()
        return found.number if found else None

    @staticmethod
    def latest_schema(metadata: sa.MetaData) -> int:
        """Return the number of the schema that this program works with."""
        return schema.latest(metadata.info["role"]).number

    @classmethod
    def _connected(cls, url: str) -> Database:
        try:
            kind = sa.make_url(url)
        except sa.exc.ArgumentError:
            raise ConfigError(
                "a database URL does not parse; expected e.g. sqlite:///path or postgresql://…"
            ) from None
        if kind.get_backend_name() not in _DRIVERS:
            raise ConfigError(f"database {kind.get_backend_name()}: expected sqlite or postgresql")
        return cls(_DRIVERS[kind.get_backend_name()](kind))

    async def _bring_up_to_date(self, role: str) -> None:
        async with self.read() as connection:
            done = await connection.run_sync(schema.is_latest, role)
        if not done:
            async with self._upgrading() as connection:
                await connection.run_sync(schema.upgrade, role)

    @asynccontextmanager
    async def _upgrading(self) -> AsyncIterator[AsyncConnection]:
        """Begin a transaction that waits long enough for another process to finish its upgrade."""
        async with self._engine.connect() as connection:
            await connection.execution_options(sqlite_busy_timeout=UPGRADE_TIMEOUT_MS)
            async with connection.begin():
                yield connection
                if self.is_sqlite:  # the connection goes back to the pool
                    await connection.exec_driver_sql(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """Begin a transaction that may write: committed at the end, rolled back on an error."""
        async with self._engine.begin() as connection:
            yield connection

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """Begin a transaction that reads one consistent view."""
        async with self._engine.connect() as connection:
            options = {"sqlite_read_only": True}
            if self._engine.dialect.name == "postgresql":
                options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}  # type: ignore[dict-item]
            await connection.execution_options(**options)
            async with connection.begin():
                yield connection

    async def empty_log(self) -> bool:
        """Write SQLite's write-ahead log into the file and truncate it, so that neither has what was deleted.

        Returns False if a reader or writer was in the way for `CHECKPOINT_TIMEOUT_MS`; writers wait as long. For
        PostgreSQL there is nothing to do: its vacuum frees rows, and its archives are the operator's.
        """
        if not self.is_sqlite:
            return True
        async with self._engine.connect() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            if driver is None:
                return False
            try:
                await driver.execute(f"PRAGMA busy_timeout={CHECKPOINT_TIMEOUT_MS}")
                busy, *_ = await (await driver.execute("PRAGMA wal_checkpoint(TRUNCATE)")).fetchone()
            finally:  # the connection goes back to the pool
                await driver.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
        return not busy

    @property
    def is_sqlite(self) -> bool:
        """Whether writers are serialised by the file's lock."""
        return self._engine.dialect.name == "sqlite"

    async def close(self) -> None:
        """Close all connections."""
        await self._engine.dispose()


async def insert_new(connection: AsyncConnection, table: sa.Table, values: Mapping[str, Any]) -> bool:
    """Insert a row unless its key exists; return whether the row is new.

    Concurrent callers wait for the first one's transaction; only one of them gets True.
    """
    insert = _INSERTS[connection.dialect.name](table).values(dict(values)).on_conflict_do_nothing()
    return (await connection.execute(insert)).rowcount == 1


async def insert_or_lock(connection: AsyncConnection, table: sa.Table, values: Mapping[str, Any]) -> Row:
    """Return the row with this primary key, inserted from `values` if missing, locked for the transaction."""
    key = {column.name: column for column in table.primary_key.columns}
    insert = _INSERTS[connection.dialect.name](table).values(dict(values))
    locked = insert.on_conflict_do_update(index_elements=list(key), set_=key).returning(table)
    return (await connection.execute(locked)).one()


@contextmanager
def _errors() -> Iterator[None]:
    errors: tuple[type[Exception], ...] = (sa.exc.SQLAlchemyError, OSError, *_driver_errors())
    try:
        yield
    except errors as error:
        why = type(error).__name__
        if why in (
            "InterfaceError",
            "ClientConfigurationError",
        ):  # of a parameter: it is named, without its value
            why += f": {_words(error)}"
        raise ConfigError(f"the database can't be opened ({why})") from None


def _words(error: Exception) -> str:
    """Return what the driver said, in one line, without what SQLAlchemy puts around it."""
    said: BaseException = error
    if isinstance(error, sa.exc.DBAPIError) and error.orig is not None:
        said = error.orig.__cause__ or error.orig
    return " ".join(str(said).split())


def _driver_errors() -> tuple[type[Exception], ...]:
    """Return the errors of connecting that SQLAlchemy does not turn into its own."""
    try:
        import asyncpg  # type: ignore[import-untyped]
    except ModuleNotFoundError:
        return ()
    return asyncpg.PostgresError, asyncpg.InterfaceError


def _sqlite(url: sa.URL) -> AsyncEngine:
    directory = Path(url.database or ".").parent
    if not directory.is_dir():
        raise ConfigError(f"the database can't be opened: there is no directory {directory}")
    engine = create_async_engine(url.set(drivername="sqlite+aiosqlite"), poolclass=AsyncAdaptedQueuePool)

    @event.listens_for(engine.sync_engine, "connect")
    def prepare(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # only the code below begins transactions
        cursor = connection.cursor()
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",  # what is answered for is on the disk: NORMAL may lose it when the power fails
            f"busy_timeout={BUSY_TIMEOUT_MS}",
            "secure_delete=ON",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: sa.Connection) -> None:
        options = connection.get_execution_options()
        read_only = options.get("sqlite_read_only", False)
        if "sqlite_busy_timeout" in options:
            connection.exec_driver_sql(f"PRAGMA busy_timeout={options['sqlite_busy_timeout']:d}")
        # IMMEDIATE: a second writer waits here instead of failing in mid-transaction
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    @event.listens_for(engine.sync_engine, "invalidate")
    def let_go(connection: Any, _record: object, _error: object) -> None:
        # A task was cancelled during a statement. Closing alone would keep the write lock while a cursor with
        # unread rows exists, and the task's traceback may still hold one.
        connection.rollback()

    return engine


def _postgresql(url: sa.URL) -> AsyncEngine:
    arguments = connect_arguments(url)
    try:
        return create_async_engine("postgresql+asyncpg://", connect_args=arguments, pool_pre_ping=True)
    except ModuleNotFoundError:
        raise ConfigError("PostgreSQL needs the extra: pip install 'mimi-mmr[postgresql]'") from None


_DRIVERS: dict[str, Callable[[sa.URL], AsyncEngine]] = {"sqlite": _sqlite, "postgresql": _postgresql}
