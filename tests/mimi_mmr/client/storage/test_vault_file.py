"""What the state file shows, and what it refuses."""

from __future__ import annotations

import base64
import secrets
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from functools import cache
from pathlib import Path

import pytest

from mimi_mmr.client.storage.vault import Vault
from mimi_mmr.client.storage.vault_keys import Derivation
from mimi_mmr.client.storage.vault_migrations import latest
from mimi_mmr.errors import StateError

PASSPHRASE = "correct horse battery staple"
PLANTED = [b"table-of-contacts", b"mimi://b.example/u/bob", b"a key worth 32 bytes of anything"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed file with a few rows; copy it before you change it."""
    path = tmp_path_factory.mktemp("made") / "state"
    with Vault.create(path, PASSPHRASE) as vault:
        fill(vault)
    return path


@pytest.fixture
def path(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(made, tmp_path / "state"))


def fill(vault: Vault) -> None:
    table, name, key = PLANTED
    vault.table(table.decode())[name] = key
    for number in range(5):
        vault.table("room")[bytes([number])] = bytes([number]) * 10


def content(path: Path, passphrase: str = PASSPHRASE) -> dict[str, dict[bytes, bytes]]:
    with Vault.open(path, passphrase) as vault:
        return {name: dict(vault.table(name)) for name in (PLANTED[0].decode(), "room")}


def rewrite(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        for statement in statements:
            db.execute(statement)


def sealed(file: Path) -> list[bytes]:
    with closing(sqlite3.connect(file)) as db:
        return [row for (row,) in db.execute("SELECT sealed FROM rows ORDER BY place")]


def test_what_was_put_in_comes_out(path: Path) -> None:
    table, name, key = PLANTED
    assert content(path) == {
        table.decode(): {name: key},
        "room": {bytes([number]): bytes([number]) * 10 for number in range(5)},
    }


def test_only_its_owner_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "state"
    Vault.create(path, PASSPHRASE).close()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [entry.name for entry in path.parent.iterdir() if "journal" not in entry.name] == ["state"]
    path.chmod(0o640)
    with pytest.raises(StateError, match="expected mode 600, found 640"):
        Vault.open(path, PASSPHRASE)
    path.chmod(0o600)
    path.parent.chmod(0o770)
    with pytest.raises(StateError, match="expected mode 700, found 770"):
        Vault.open(path, PASSPHRASE)


def test_nothing_of_it_can_be_read_in_the_file(path: Path) -> None:
    with Vault.open(path, PASSPHRASE) as vault:
        del vault.table("room")[b"\x01"]
        everything = b"".join(file.read_bytes() for file in path.parent.iterdir())
    for planted in [*PLANTED, PASSPHRASE.encode(), b"room"]:
        for form in (planted, planted.hex().encode(), base64.b64encode(planted)[:-4]):
            assert form not in everything
            assert form.upper() not in everything


def test_rows_are_padded_and_what_was_deleted_is_gone(path: Path) -> None:
    before = sealed(path)
    assert {len(row) for row in before} == {12 + 256 + 16}
    with Vault.open(path, PASSPHRASE) as vault:
        vault.table("room").clear()
        vault.table(PLANTED[0].decode())[PLANTED[1]] = b"another"
        everything = b"".join(file.read_bytes() for file in path.parent.iterdir())  # also while it is open
    assert len(sealed(path)) == 1
    assert not any(row[:64] in everything or row[-64:] in everything for row in before)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.unlink(), "no such state file"),
        (lambda path: path.write_bytes(b""), "not a state file"),
        (lambda path: path.write_bytes(b"x" * 9000), "not a state file"),
        (lambda path: rewrite(path, "PRAGMA application_id = 1"), "not a state file"),
        (lambda path: (path.unlink(), path.mkdir()), "not a state file"),
        (lambda path: rewrite(path, "DELETE FROM rows WHERE place = 3"), "rows are missing"),
        (lambda path: rewrite(path, "DELETE FROM head"), "damaged"),
        (lambda path: rewrite(path, "CREATE TABLE more (x)"), "damaged"),
        (lambda path: rewrite(path, "UPDATE rows SET sealed = 'text' WHERE place = 2"), "damaged"),
        (lambda path: rewrite(path, "UPDATE rows SET id = 'text' WHERE place = 2"), "damaged"),
        (lambda path: rewrite(path, "UPDATE rows SET place = 99 WHERE place = 2"), "damaged"),
        (lambda path: rewrite(path, "UPDATE head SET kdf = x'01'"), "damaged"),
    ],
)  # fmt: skip
def test_another_file_is_refused(path: Path, spoil: Callable[[Path], None], said: str) -> None:
    spoil(path)
    with pytest.raises(StateError, match=said):
        Vault.open(path, PASSPHRASE)


@pytest.mark.parametrize("column", ["id", "sealed", "id, sealed"])
def test_rows_that_change_places_are_refused(path: Path, column: str) -> None:
    columns = column.split(", ")
    with closing(sqlite3.connect(path)) as db, db:
        two = db.execute(f"SELECT {column} FROM rows WHERE place IN (2, 3) ORDER BY place").fetchall()  # noqa: S608
        db.execute("UPDATE rows SET id = x'00' WHERE place = 2")  # an id stands in one place only
        for place, values in zip((3, 2), two, strict=True):
            for name, value in zip(columns, values, strict=True):
                db.execute(f"UPDATE rows SET {name} = ? WHERE place = ?", (value, place))  # noqa: S608
    with pytest.raises(StateError, match="damaged"):
        Vault.open(path, PASSPHRASE)


def test_a_row_of_an_older_copy_is_refused(path: Path, made: Path) -> None:
    with Vault.open(path, PASSPHRASE) as vault:
        vault.table("room")[b"\x01"] = b"newer"
    rewrite(
        path,
        f"ATTACH '{made}' AS older",
        "UPDATE rows SET sealed = (SELECT sealed FROM older.rows o WHERE o.place = rows.place)",
    )
    with pytest.raises(StateError, match="older copy"):
        Vault.open(path, PASSPHRASE)


@pytest.mark.parametrize("step", [5, pytest.param(1, marks=pytest.mark.nightly)])
def test_a_bit_that_is_flipped_is_refused_or_was_never_read(
    step: int, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Free space and SQLite's own counters may change; no other content comes out, ever."""
    monkeypatch.setattr(
        Derivation, "key", cache(Derivation.key)
    )  # a hundred milliseconds each are too long here
    whole, expected = made.read_bytes(), content(made)
    refused, first = 0, secrets.randbelow(step)
    offsets = [offset for offset, byte in enumerate(whole) if byte or offset % 16 == 0]
    for offset in offsets[first::step]:
        spoilt = bytearray(whole)
        spoilt[offset] ^= 1 << offset % 8
        path = tmp_path / "state"
        path.write_bytes(spoilt)
        path.chmod(0o600)
        try:
            assert content(path) == expected, offset
        except StateError:
            refused += 1
        for file in tmp_path.iterdir():
            file.unlink()
    assert refused > 1500 // step, f"from offset {first}"


def test_a_wrong_or_empty_passphrase_is_refused(path: Path, tmp_path: Path) -> None:
    with pytest.raises(StateError, match="wrong passphrase"):
        Vault.open(path, PASSPHRASE + "r")
    with pytest.raises(StateError, match="empty"):
        Vault.open(path, "")
    with pytest.raises(StateError, match="empty"):
        Vault.create(tmp_path / "other", "")


def test_a_passphrase_is_the_same_in_every_unicode_form(tmp_path: Path) -> None:
    Vault.create(tmp_path / "state", "caf\u00e9 \udce9").close()
    Vault.open(tmp_path / "state", "cafe\u0301 \udce9").close()


def test_what_is_there_is_not_replaced(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(StateError, match="exists"):
        Vault.create(path, PASSPHRASE)
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["state"]


def test_a_new_passphrase_opens_the_file_and_old_keys_do_not(path: Path, made: Path) -> None:
    expected = content(path)
    with Vault.open(path, PASSPHRASE) as vault:
        with pytest.raises(StateError, match="empty"):
            vault.change_passphrase("")
        with pytest.raises(ZeroDivisionError), vault.transaction():
            vault.change_passphrase("taken back")
            raise ZeroDivisionError
        vault.table("room")[b"more"] = b"1"
        vault.change_passphrase("new")
        assert not any(row[:64] in path.read_bytes() for row in sealed(made))
        vault.table("room")[b"more"] = b"2"
    with pytest.raises(StateError, match="wrong passphrase"):
        Vault.open(path, PASSPHRASE)
    assert content(path, "new")["room"] == expected["room"] | {b"more": b"2"}
    # Who has an older copy and its passphrase has its data key, which must not open the newer file.
    rewrite(
        path,
        f"ATTACH '{made}' AS older",
        "UPDATE head SET (kdf, data_key) = (SELECT kdf, data_key FROM older.head)",
    )
    with pytest.raises(StateError, match="damaged"):
        Vault.open(path, PASSPHRASE)


def test_weak_and_crushing_parameters_are_refused() -> None:
    for bad in (
        Derivation(memory=1 << 15),
        Derivation(memory=1 << 21),
        Derivation(iterations=1),
        Derivation(lanes=200),
    ):
        with pytest.raises(StateError, match="bounds"):
            Derivation.from_bytes(bad.to_bytes())
    with pytest.raises(StateError, match=f"version {latest() + 1}"):
        Derivation.from_bytes(bytes([latest() + 1]) + Derivation().to_bytes()[1:])


def test_one_process_at_a_time_and_one_object_of_it(path: Path) -> None:
    script = "import sys;from pathlib import Path;from mimi_mmr.client.storage.vault import Vault\n"
    script += "Vault.open(Path(sys.argv[1]), sys.argv[2])"
    command = [sys.executable, "-c", script, str(path), PASSPHRASE]
    with Vault.open(path, PASSPHRASE) as vault:
        with pytest.raises(StateError, match="in use by another process"):
            Vault.open(path, PASSPHRASE)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert "in use by another process" in done.stderr
        vault.table("room")[b"still"] = b"writable"
    subprocess.run(command, check=True)


def test_a_closed_one_says_so(path: Path) -> None:
    vault = Vault.open(path, PASSPHRASE)
    vault.close()
    vault.close()
    for use in (
        lambda: vault.table("room")[b"\x01"],
        lambda: vault.table("room").update({b"1": b"2"}),
        lambda: len(vault.table("room")),
        lambda: vault.drop("room"),
        lambda: vault.change_passphrase("new"),
    ):
        with pytest.raises(StateError, match="closed"):
            use()
