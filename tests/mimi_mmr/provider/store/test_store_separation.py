"""Local provider: its database ties no account to a pseudonym, a queue or a KeyPackage set."""

from __future__ import annotations

import itertools

import pytest
import sqlalchemy as sa

from mimi_mmr.errors import ConfigError
from mimi_mmr.provider.store import tables
from mimi_mmr.provider.store.database import Database
from mimi_mmr.provider.store.tables import ROLES, hub
from tests.mimi_mmr.provider.store.conftest import Open


def test_no_foreign_key_leads_from_one_role_to_another() -> None:
    for metadata in ROLES.values():
        for table in metadata.tables.values():
            for key in table.foreign_keys:
                assert key.column.table.metadata is metadata, f"{table.name}.{key.parent.name}"


def test_no_table_is_of_two_roles() -> None:
    for one, other in itertools.combinations(ROLES.values(), 2):
        assert one is not other
        assert one.tables.keys().isdisjoint(other.tables.keys())


def test_every_table_belongs_to_a_role() -> None:
    found = {one for one in vars(tables).values() if isinstance(one, sa.Table)}
    assert found == {table for metadata in ROLES.values() for table in metadata.tables.values()}


def test_no_column_could_hold_what_ties_a_user_to_a_pseudonym() -> None:
    """A user's name stands in the accounts' tables only, and no queue, shelf, room or address stands there."""
    named = {"uri", "user", "user_uri", "account", "name", "device", "identity"}
    placed = {
        "queue",
        "shelf",
        "room",
        "pseudonym",
        "client",
        "address",
        "ip",
        "fetch_token",
        "connection_key",
    }
    for role, metadata in ROLES.items():
        columns = {column.name for table in metadata.tables.values() for column in table.columns}
        assert columns.isdisjoint(placed if role == "accounts" else named), role


def test_a_queue_and_a_shelf_share_no_column_but_their_size() -> None:
    queue_side = {column.name for table in (tables.queues, tables.queue_messages) for column in table.columns}
    shelf_side = {
        column.name for table in (tables.shelves, tables.key_package_sets) for column in table.columns
    }
    assert queue_side & shelf_side == {"id"}


def test_nothing_says_when_a_queue_a_shelf_or_an_account_was_made() -> None:
    for table in (tables.queues, tables.shelves, tables.key_package_sets, tables.users, tables.devices):
        assert not {"created", "issued", "received", "updated"} & set(table.columns.keys())


async def test_a_reader_can_not_write(opened: Open) -> None:
    database = await opened(hub)
    with pytest.raises(sa.exc.SQLAlchemyError):
        async with database.read() as connection:
            await connection.execute(sa.insert(tables.outbox).values(destination="x", body=b""))
            raise sa.exc.SQLAlchemyError  # a reader's work is rolled back, at the least
    async with database.read() as connection:
        assert (await connection.execute(sa.select(tables.outbox))).all() == []


@pytest.mark.parametrize("url", ["nonsense", "mysql://x/y", "sqlite:////nowhere/at/all/x.db"])
async def test_a_database_that_can_not_be_used_is_a_setting_that_is_wrong(url: str) -> None:
    with pytest.raises(ConfigError, match="database"):
        await Database.open(url, hub)
