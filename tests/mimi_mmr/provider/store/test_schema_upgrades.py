"""A database is brought to this program's schema when it is opened: once, wholly, with every row; or refused."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import signal
import subprocess
import sys
import textwrap
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from mimi_mmr.errors import ConfigError
from mimi_mmr.provider.store import schema, tables
from mimi_mmr.provider.store.database import Database
from mimi_mmr.provider.store.hub import HubStore
from mimi_mmr.uris import MimiUri
from tests.fixtures import stored

_T = TypeVar("_T")

folders = schema.folders
every_role = pytest.mark.parametrize("role", stored.ROLES)

# A revision of the deliveries: a column for every queue, by building the table anew, and a table that is filled.
PLANTED = '''
    """A schema that does not exist."""

    import os
    import signal
    import time
    from pathlib import Path

    import sqlalchemy as sa

    revision = "deliveries_0002_99.1.0"
    down_revision = "deliveries_0001_0.1.0"


    def upgrade(op):
        op.create_table("runs", sa.Column("process", sa.BigInteger, primary_key=True))
        with op.batch_alter_table("queues", recreate="auto") as queues:
            queues.add_column(sa.Column("owner", sa.Text, nullable=False, server_default="nobody"))
        op.execute("update queues set owner = 'size ' || size")
        if os.environ.get("KILLED"):
            os.kill(os.getpid(), signal.SIGKILL)
        if "MARK" in os.environ:
            Path(os.environ["MARK"]).touch()
        time.sleep(float(os.environ.get("SLOW", "0")))
        op.execute(f"insert into runs values ({os.getpid()})")
'''

# Opens the deliveries with the revision above, and says what there is.
CHILD = """
    import asyncio
    import sys
    from pathlib import Path

    import sqlalchemy as sa

    from mimi_mmr.provider.store import schema, tables
    from mimi_mmr.provider.store.database import Database

    folders = schema.folders
    schema.folders = lambda role: (*folders(role), Path(sys.argv[2]))

    async def main():
        database = await Database.open(sys.argv[1], tables.deliveries)
        async with database.read() as connection:
            print((await connection.execute(sa.text("select count(*) from runs"))).scalar_one())
        await database.close()

    asyncio.run(main())
"""


@asynccontextmanager
async def raw(url: str) -> AsyncIterator[AsyncConnection]:
    """A transaction in a database that no code of ours has looked at."""
    kind = sa.make_url(url)
    driver = {"sqlite": "aiosqlite", "postgresql": "asyncpg"}[kind.get_backend_name()]
    engine = create_async_engine(kind.set(drivername=f"{kind.get_backend_name()}+{driver}"))
    try:
        async with engine.begin() as connection:
            yield connection
    finally:
        await engine.dispose()


async def looked(url: str, look: Callable[[sa.Connection], _T]) -> _T:
    async with raw(url) as connection:
        return await connection.run_sync(look)


async def given(url: str, *statements: str) -> None:
    async with raw(url) as connection:
        for statement in statements:
            await connection.execute(sa.text(statement))


async def restore(url: str, role: str, tmp_path: Path) -> None:
    """Make a database what version 0 left."""
    kind = sa.make_url(url)
    if kind.get_backend_name() == "sqlite":
        stored.sqlite_database(role, tmp_path).rename(str(kind.database))
        return
    async with raw(url) as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        await driver.execute(stored.postgresql_dump(role))


def rows(connection: sa.Connection) -> dict[str, list[tuple[Any, ...]]]:
    """All that is in a database, but for the record of its schema."""
    found = sa.MetaData()
    found.reflect(connection)
    return {
        table.name: [tuple(row) for row in connection.execute(sa.select(table).order_by(*table.primary_key))]
        for table in found.sorted_tables
        if table.name != "alembic_version"
    }


def reflected(connection: sa.Connection) -> dict[str, Any]:
    """Everything that can be known of tables, but for the record of its schema."""
    inspector = sa.inspect(connection)
    return {
        name: {
            "columns": [{**one, "type": repr(one["type"])} for one in inspector.get_columns(name)],
            "primary key": inspector.get_pk_constraint(name),
            "foreign keys": inspector.get_foreign_keys(name),
            "unique": inspector.get_unique_constraints(name),
            "indexes": sorted(inspector.get_indexes(name), key=lambda one: str(one["name"])),
        }
        for name in inspector.get_table_names()
        if name != "alembic_version"
    }


def recorded(connection: sa.Connection) -> tuple[str, ...]:
    return MigrationContext.configure(connection).get_current_heads()


async def open_and_close(url: str, role: str) -> None:
    await (await Database.open(url, tables.ROLES[role])).close()


def plant(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    """Add the planted revision to those of the deliveries."""
    folder.mkdir()
    (folder / "r0002_planted.py").write_text(textwrap.dedent(PLANTED))
    monkeypatch.setattr(schema, "folders", lambda role: (*folders(role), folder))
    return folder


async def child(url: str, folder: Path, **environment: str) -> tuple[int | None, bytes, bytes]:
    """A process that starts on the database with the planted revision."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", textwrap.dedent(CHILD), url, str(folder)),
        env={**os.environ, **environment},
        stdout=PIPE,
        stderr=PIPE,
    )
    out, err = await process.communicate()
    return process.returncode, out, err


# --- upgrades ----------------------------------------------------------------------------------------


@every_role
async def test_a_database_of_version_0_keeps_every_row(database_url: str, role: str, tmp_path: Path) -> None:
    """Every table of then has the same rows, up to columns that came later."""
    await restore(database_url, role, tmp_path)
    before = await looked(database_url, rows)
    assert all(before.values())
    await open_and_close(database_url, role)
    after = await looked(database_url, rows)
    for name, then in before.items():
        width = len(then[0])
        assert [row[:width] for row in after[name]] == then, name
    (head,) = await looked(database_url, recorded)
    assert schema.Schema.parse(head) == schema.latest(role)


async def test_a_room_of_version_0_knows_the_commit_that_began_its_epoch(
    database_url: str, tmp_path: Path
) -> None:
    """Epochs are named by number and commit; older commits and reports have no signature that was stored."""
    await restore(database_url, "hub", tmp_path)
    database = await Database.open(database_url, tables.hub)
    store = HubStore(database, stored.DUMPED)
    async with database.read() as connection:
        named = list(await connection.scalars(sa.select(tables.rooms.c.id)))
        reported = (await connection.execute(sa.select(tables.commit_reports))).one()
    for name in named:
        uri = MimiUri.parse(name)
        epoch = await store.epoch(uri)
        assert (await store.load(uri)).id == epoch
        assert len(epoch.commit_hash) == (32 if epoch.number else 0)
        assert await store.auth(uri, epoch) is None
    uri = MimiUri.parse(reported.room)
    assert await store.reports(uri, await store.epoch(uri)) == {reported.leaf: None}
    await database.close()


@every_role
@pytest.mark.parametrize("old", [False, True])
async def test_revisions_make_what_the_tables_say(
    database_url: str, role: str, old: bool, tmp_path: Path
) -> None:
    """A new database and one of version 0, compared by alembic and by all that can be reflected."""
    if old:
        await restore(database_url, role, tmp_path)
    await open_and_close(database_url, role)

    def difference(connection: sa.Connection) -> list[Any]:
        options = {"compare_type": True, "compare_server_default": True}
        context = MigrationContext.configure(connection, opts=options)
        return list(compare_metadata(context, tables.ROLES[role]))

    assert await looked(database_url, difference) == []
    made = await looked(database_url, reflected)
    assert made.keys() == tables.ROLES[role].tables.keys()
    async with raw(database_url) as connection:
        for name in made:
            await connection.execute(sa.text(f"drop table {name} {cascade(database_url)}"))
        await connection.run_sync(tables.ROLES[role].create_all)
    assert await looked(database_url, reflected) == made


def cascade(url: str) -> str:
    return "cascade" if url.startswith("postgresql") else ""


@every_role
async def test_the_first_revision_makes_what_version_0_made(
    database_url: str, role: str, tmp_path: Path
) -> None:
    def first(connection: sa.Connection) -> None:
        revisions = schema._revisions(role)
        schema._first(revisions).module.upgrade(Operations(MigrationContext.configure(connection)))

    def statements(connection: sa.Connection) -> set[str | None]:
        if connection.dialect.name != "sqlite":
            return set()
        return set(connection.scalars(sa.text("select sql from sqlite_master")))

    await looked(database_url, first)
    made = await looked(database_url, reflected), await looked(database_url, statements)
    await given(database_url, *(f"drop table {name} {cascade(database_url)}" for name in made[0]))
    await restore(database_url, role, tmp_path)
    assert (await looked(database_url, reflected), await looked(database_url, statements)) == made


@every_role
async def test_a_database_is_not_written_to_when_nothing_is_to_be_done(database_url: str, role: str) -> None:
    """Another process may be writing to it just then."""
    database = await Database.open(database_url, tables.ROLES[role])
    async with asyncio.timeout(10), database.write() as connection:
        await connection.execute(sa.delete(next(iter(tables.ROLES[role].tables.values()))))
        await open_and_close(database_url, role)
    await database.close()


async def test_a_further_revision_changes_tables_and_rows(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await restore(database_url, "deliveries", tmp_path)
    before = await looked(database_url, rows)
    plant(monkeypatch, tmp_path / "planted")
    for _ in range(2):
        await open_and_close(database_url, "deliveries")
        after = await looked(database_url, rows)
        assert after.pop("runs") == [(os.getpid(),)]
        changed = after.pop("queues")
        assert changed == [(*queue, f"size {queue[-1]}") for queue in before["queues"]]
        assert after == {name: kept for name, kept in before.items() if name != "queues"}
    # the messages still belong to their queues
    found = await looked(database_url, reflected)
    assert found["queue_messages"]["foreign keys"][0]["referred_table"] == "queues"


# --- processes ---------------------------------------------------------------------------------------


async def test_a_process_that_is_killed_in_the_middle_has_changed_nothing(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await restore(database_url, "deliveries", tmp_path)
    before = await looked(database_url, rows), await looked(database_url, reflected)
    folder = plant(monkeypatch, tmp_path / "planted")
    status, _, err = await child(database_url, folder, KILLED="1")
    assert status == -signal.SIGKILL, err
    assert (await looked(database_url, rows), await looked(database_url, reflected)) == before
    with monkeypatch.context() as without:
        without.setattr(schema, "folders", folders)
        await open_and_close(database_url, "deliveries")  # the old version can still go on with it
    assert await looked(database_url, recorded) == ("deliveries_0001_0.1.0",)
    await open_and_close(database_url, "deliveries")
    assert (await looked(database_url, rows))["runs"] == [(os.getpid(),)]


@pytest.mark.parametrize("old", [False, True])
async def test_processes_that_start_together_upgrade_it_once(
    database_url: str, old: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if old:
        await restore(database_url, "deliveries", tmp_path)
    folder = plant(monkeypatch, tmp_path / "planted")
    done = await asyncio.gather(*(child(database_url, folder, SLOW="0.5") for _ in range(3)))
    assert done == [(0, b"1\n", b"")] * 3


async def test_one_waits_for_another_longer_than_for_a_lock(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mimi_mmr.provider.store.database.BUSY_TIMEOUT_MS", 100)
    folder, mark = plant(monkeypatch, tmp_path / "planted"), tmp_path / "in the middle"
    slow = asyncio.create_task(child(database_url, folder, SLOW="2", MARK=str(mark)))
    while not mark.exists():  # noqa: ASYNC110  # it is another process that makes it
        await asyncio.sleep(0.05)
    await open_and_close(database_url, "deliveries")
    assert await slow == (0, b"1\n", b"")


# --- refusals ----------------------------------------------------------------------------------------


async def refused(url: str, role: str, match: str) -> None:
    """Opening says so, and changes nothing."""
    before = await looked(url, rows), await looked(url, reflected), await looked(url, recorded)
    with pytest.raises(ConfigError, match=match):
        await open_and_close(url, role)
    assert (await looked(url, rows), await looked(url, reflected), await looked(url, recorded)) == before


async def test_a_newer_database_says_what_it_needs(database_url: str) -> None:
    await open_and_close(database_url, "deliveries")
    await given(database_url, "update alembic_version set version_num = 'deliveries_0003_1.4.2'")
    match = r"at schema 3 of deliveries, .* newer version; .* up to 1: install mimi-mmr 1\.4\.2 or later"
    await refused(database_url, "deliveries", match)


async def test_a_schema_of_another_program_is_refused(database_url: str) -> None:
    await given(
        database_url,
        "create table alembic_version (version_num varchar(32) primary key)",
        "insert into alembic_version values ('1975ea83b712')",
    )
    await refused(database_url, "hub", "its schema is 1975ea83b712, which is unknown; expected one of hub")


@pytest.mark.parametrize("revision", ["hub_0000_0.0.1", "hub_0001_0.0.9"])
async def test_a_schema_that_no_version_made_is_refused(database_url: str, revision: str) -> None:
    """Its name has the right form, and its number is none that a newer version would have."""
    await open_and_close(database_url, "hub")
    await given(database_url, f"update alembic_version set version_num = '{revision}'")  # noqa: S608
    await refused(database_url, "hub", f"its schema is {revision}, which is unknown; expected one of hub")


@pytest.mark.parametrize("old", [False, True])
async def test_another_roles_database_is_refused(database_url: str, old: bool, tmp_path: Path) -> None:
    """Two URLs that were mixed up would put queues beside accounts."""
    await (restore(database_url, "accounts", tmp_path) if old else open_and_close(database_url, "accounts"))
    await refused(database_url, "deliveries", "this is a database of accounts; expected one of deliveries")


async def test_tables_of_an_unknown_version_are_refused(database_url: str) -> None:
    """Here and now, and not at the first request that misses a column."""
    await given(database_url, "create table users (uri text primary key)")
    await refused(database_url, "accounts", "another version: its table users has no column open")
    await given(database_url, "drop table users")
    await given(database_url, "create table users (uri text primary key, open boolean, age integer)")
    await refused(database_url, "accounts", "another version: its table users has a column age")


# --- revisions ---------------------------------------------------------------------------------------


@every_role
def test_revisions_are_one_line_and_named_by_number(role: str) -> None:
    revisions = list(schema._revisions(role).walk_revisions())[::-1]
    assert [one.down_revision for one in revisions] == [None, *(one.revision for one in revisions[:-1])]
    found = [schema._schema(one.revision) for one in revisions]
    assert [one.number for one in found] == list(range(1, len(found) + 1))
    assert {one.role for one in found} == {role}
    for one, script in zip(found, revisions, strict=True):
        assert Path(script.path).name.startswith(f"r{one.number:04}_")
        assert len(script.revision) <= 32  # as long as the column that records it
    programs = [tuple(map(int, one.program.split("."))) for one in found]
    assert programs == sorted(programs)
    installed = importlib.metadata.version("mimi-mmr")
    assert programs[-1] <= tuple(map(int, installed.split(".")[:3])), "no version knows this schema yet"


def test_a_client_does_not_wait_for_the_import_of_alembic() -> None:
    script = "import sys, mimi_mmr.client, mimi_mmr.app.cli; print('alembic' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
