"""A provider brings its databases to the latest schema as it starts; an operator can look first, or do it alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from mimi_mmr.errors import ConfigError
from mimi_mmr.provider.app import Provider
from mimi_mmr.provider.databases import check_databases, upgrade_databases
from mimi_mmr.provider.settings import Settings, load_settings
from mimi_mmr.provider.store import schema
from tests.fixtures import stored


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    """A provider on what version 0 left."""
    world = stored.world(tmp_path)
    yield load_settings(world.providers["a.example"].config)
    world.close()


def content(settings: Settings) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(settings.data_dir.glob("*.sqlite"))}


async def make_newer(settings: Settings) -> None:
    await upgrade_databases(settings)
    engine = sa.create_engine(settings.database_url("deliveries"))
    with engine.begin() as connection:
        newer = "update alembic_version set version_num = 'deliveries_0004_2.0.0'"
        connection.execute(sa.text(newer))
    engine.dispose()


async def test_looking_changes_nothing_and_says_what_would_be_done(settings: Settings) -> None:
    before = content(settings)
    found = await check_databases(settings)
    assert content(settings) == before
    assert [one.role for one in found] == ["hub", "accounts", "deliveries"]
    assert not any(one.ready for one in found)
    assert str(found[0]) == "hub: no schema recorded (empty, or of version 0.1.0); would become 2"
    assert all(one.ready for one in await upgrade_databases(settings))
    assert [str(one) for one in await check_databases(settings)] == [
        f"{role}: schema {schema.latest(role).number}, up to date" for role in stored.ROLES
    ]


async def test_looking_makes_no_database(settings: Settings) -> None:
    for path in settings.data_dir.glob("*.sqlite"):
        path.unlink()
    assert [one.recorded for one in await check_databases(settings)] == [None] * 3
    assert content(settings) == {}


async def test_starting_a_provider_upgrades_them(settings: Settings) -> None:
    provider = Provider(settings)
    try:
        await provider.start()
    finally:
        await provider.close()
    assert all(one.ready for one in await check_databases(settings))


async def test_a_newer_database_keeps_a_provider_from_starting(settings: Settings) -> None:
    await make_newer(settings)
    match = (
        r"^database\.deliveries: this database is at schema 4 of deliveries, .*: install mimi-mmr 2\.0\.0 or"
    )
    for attempt in (check_databases, upgrade_databases):
        with pytest.raises(ConfigError, match=match):
            await attempt(settings)
    provider = Provider(settings)
    with pytest.raises(ConfigError, match=match):
        await provider.start()
    await provider.close()
