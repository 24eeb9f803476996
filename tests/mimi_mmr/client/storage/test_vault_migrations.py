"""A vault that an older version wrote is upgraded when it is opened, once; a newer one says what it needs."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from mimi_mmr.client.storage import vault_migrations
from mimi_mmr.client.storage.records import SavedMembership
from mimi_mmr.client.storage.vault import Vault
from mimi_mmr.client.storage.vault_keys import Derivation
from mimi_mmr.client.storage.vault_migrations import Migration, Tables
from mimi_mmr.errors import StateError
from tests.fixtures import stored
from tests.mimi_mmr.client.storage import planted

every_vault = pytest.mark.parametrize("name", stored.VAULTS)

Install = Callable[[tuple[Migration, ...]], None]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Makes this program one that knows these migrations."""
    return lambda migrations: monkeypatch.setattr(vault_migrations, "MIGRATIONS", migrations)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Alice's phone of version 0."""
    return stored.vault("alice-phone", tmp_path)


def tables(path: Path, passphrase: str | None = None) -> dict[str, dict[bytes, bytes]]:
    with Vault.open(path, passphrase or stored.passphrase()) as vault:
        return {name: dict(vault.table(name)) for name in vault.names()}


def version(path: Path) -> tuple[int, int]:
    """The version that is sealed, and the header."""
    with closing(sqlite3.connect(path)) as db:
        ((kdf,),) = db.execute("SELECT kdf FROM head")
        ((header,),) = db.execute("PRAGMA user_version")
    return Derivation.from_bytes(kdf).version, header


def messages(content: dict[str, dict[bytes, bytes]], prefix: str) -> dict[str, dict[bytes, bytes]]:
    return {name.removeprefix(prefix): rows for name, rows in content.items() if name.startswith(prefix)}


@every_vault
def test_without_migrations_a_vault_of_version_0_is_read_byte_for_byte_and_left_as_it_is(
    name: str, tmp_path: Path, install: Install
) -> None:
    install(())
    path = stored.vault(name, tmp_path)
    before = path.read_bytes()
    found = {table: (len(rows), stored.digest(rows)) for table, rows in tables(path).items()}
    expected = stored.facts()["vaults"][name]["tables"]
    assert found == {table: (one["rows"], one["sha256"]) for table, one in expected.items()}
    assert path.read_bytes() == before


def test_a_commit_that_waits_in_a_vault_of_version_0_waits_on(tmp_path: Path, install: Install) -> None:
    """It has no proofs for its Welcome; all else of each room is as it was."""
    real, waiting = vault_migrations.MIGRATIONS, 0
    for name in stored.VAULTS:
        path = stored.vault(name, tmp_path)
        install(())
        before = tables(path).get("memberships", {})
        install(real)
        content = tables(path)
        after = content.get("memberships", {})
        assert content.get("key packages before proofs", {}).keys() == content.get("key packages", {}).keys()
        assert after.keys() == before.keys()
        for room, row in after.items():
            saved = SavedMembership.from_bytes(row)
            if saved.unanswered is None:
                assert row == before[room]
                continue
            waiting += 1
            assert saved.unanswered.welcome_proofs == ()
            pending = saved.unanswered.to_bytes()
            start = row.index(pending)
            assert row[: start + len(pending) - 1] + row[start + len(pending) :] == before[room]
    assert waiting


def test_without_migrations_a_new_vault_is_of_version_1_and_an_older_program_reads_it(
    tmp_path: Path, install: Install
) -> None:
    install(())
    Vault.create(tmp_path / "new", "p").close()
    old = stored.vault("bob-phone", tmp_path)
    with closing(sqlite3.connect(tmp_path / "new")) as new, closing(sqlite3.connect(old)) as db:
        for what in ("SELECT sql FROM sqlite_master", "PRAGMA application_id", "PRAGMA user_version"):
            assert new.execute(what).fetchall() == db.execute(what).fetchall()
    assert version(tmp_path / "new") == version(old) == (1, 0)


@every_vault
def test_a_migration_runs_once_and_changes_what_it_says(name: str, tmp_path: Path, install: Install) -> None:
    path = stored.vault(name, tmp_path)
    install(())
    before = tables(path)
    install(planted.TO_VERSION_2)
    after = tables(path)
    assert tables(path) == after
    assert after.pop("made") == {b"by": b"version 2"}
    assert messages(after, "history messages ") == messages(before, "messages ")
    assert not messages(after, "messages ")
    unchanged = {one: rows for one, rows in before.items() if not one.startswith("messages ")}
    assert {one: after[one] for one in unchanged} == unchanged
    assert version(path) == (2, 0x02_09_08_07)


def test_several_migrations_run_in_order_from_where_the_vault_is(path: Path, install: Install) -> None:
    ran: list[int] = []

    def step(number: int) -> Migration:
        def work(tables: Tables) -> None:
            ran.append(number)
            tables.table("ran")[bytes([number])] = b""

        return Migration((1, number, 0), work)

    install((step(2),))
    tables(path)
    install((step(2), step(3), step(4)))
    assert list(tables(path)["ran"]) == [b"\2", b"\3", b"\4"]
    assert ran == [2, 3, 4]
    assert version(path) == (4, 0x04_01_04_00)


def test_a_migration_that_fails_leaves_the_vault_as_it_was(path: Path, install: Install) -> None:
    install(())
    before, content = path.read_bytes(), tables(path)

    def failing(found: Tables) -> None:
        planted.change(found)
        raise StateError("a row that can't be")

    install((*planted.TO_VERSION_2, Migration((9, 9, 9), failing)))
    with pytest.raises(StateError, match="a row that can't be"):
        tables(path)
    install(())
    assert path.read_bytes() == before
    assert tables(path) == content


def test_an_older_program_refuses_an_upgraded_vault_and_names_the_version_it_needs(
    path: Path, install: Install
) -> None:
    install(planted.TO_VERSION_2)
    content = tables(path)
    install(())
    said = r"has version 2, and this program knows versions up to 1: install mimi-mmr 9\.8\.7 or later"
    for passphrase in (stored.passphrase(), "another"):
        with pytest.raises(StateError, match=said):
            tables(path, passphrase)
    install(planted.TO_VERSION_2)
    assert tables(path) == content


def test_the_version_is_sealed_whatever_the_header_says(path: Path, install: Install) -> None:
    """Who has the file for a moment can't have a migration run again, or keep one from running."""
    install(planted.TO_VERSION_2)
    content = tables(path)
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 0")
    assert tables(path) == content
    install(())
    with pytest.raises(StateError, match="has version 2, expected 1"):
        tables(path)
    install(planted.TO_VERSION_2)
    with closing(sqlite3.connect(path)) as db, db:
        ((kdf,),) = db.execute("SELECT kdf FROM head")
        db.execute("UPDATE head SET kdf = ?", (b"\1" + kdf[1:],))
    with pytest.raises(StateError, match="wrong passphrase"):
        tables(path)


def test_a_new_passphrase_keeps_the_version(path: Path, install: Install) -> None:
    install(planted.TO_VERSION_2)
    content = tables(path)
    with Vault.open(path, stored.passphrase()) as vault:
        vault.change_passphrase("another")
    assert version(path) == (2, 0x02_09_08_07)
    assert tables(path, "another") == content


def test_every_migration_names_a_program_that_fits_in_the_header() -> None:
    programs = [migration.program for migration in vault_migrations.MIGRATIONS]
    assert programs == sorted(programs)
    assert all(0 <= part < 256 for program in programs for part in program)
    assert vault_migrations.latest() < 128  # the header's number is a signed one of 32 bits
