"""What a hub has answered for is in every member's state: after a power failure it must be in the hub's, too."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from mimi_mmr.provider.store.database import Database
from mimi_mmr.provider.store.tables import ROLES

FULL = (
    2  # https://www.sqlite.org/pragma.html#pragma_synchronous: with a WAL, NORMAL may lose what was committed
)


@pytest.mark.parametrize("role", ROLES)
async def test_a_transaction_is_synced_before_it_has_ended(role: str, tmp_path: Path) -> None:
    database = await Database.open(f"sqlite:///{tmp_path / 'data.sqlite'}", ROLES[role])
    try:
        async with database.write() as connection:
            assert (await connection.scalar(sa.text("PRAGMA journal_mode"))) == "wal"
            assert (await connection.scalar(sa.text("PRAGMA synchronous"))) == FULL
    finally:
        await database.close()
