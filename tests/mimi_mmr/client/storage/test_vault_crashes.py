"""Whenever the process dies, the file holds the state before a transaction or the one after it."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from functools import cache
from pathlib import Path

import pytest

from mimi_mmr.client.storage import vault_migrations
from mimi_mmr.client.storage.vault import Vault
from mimi_mmr.client.storage.vault_keys import Derivation
from mimi_mmr.errors import StateError
from tests.mimi_mmr.client.storage import planted

BEFORE = {bytes([number]): bytes([number]) * 3000 for number in range(8)}
AFTER = {bytes([number]): bytes([number]) * 5000 for number in range(4, 12)}
UPGRADE = {key: value + b"2" for key, value in BEFORE.items()}
ROOT = Path(__file__).parents[4]

# Copies the directory before each of SQLite's system calls that change something.
TRACING = """
    import ctypes, shutil, sys
    from pathlib import Path
    from mimi_mmr.client.storage import vault_migrations
    from mimi_mmr.client.storage.vault import Vault

    vault_migrations.MIGRATIONS = ()

    class Vfs(ctypes.Structure):
        _fields_ = [("version", ctypes.c_int), ("size", ctypes.c_int), ("path", ctypes.c_int)] + [
            (name, ctypes.c_void_p)
            for name in "next name data open delete access full dlopen dlerror dlsym dlclose random sleep time"
            " error time64 set get more".split()
        ]

    sqlite = ctypes.CDLL("libsqlite3.so.0")
    sqlite.sqlite3_vfs_find.restype = ctypes.POINTER(Vfs)
    vfs = sqlite.sqlite3_vfs_find(None)
    setter = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(vfs.contents.set)
    getter = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(vfs.contents.get)
    place, copies, keep, on = Path(sys.argv[1]), Path(sys.argv[2]), [], False

    def trace(name, *arguments):
        kind = ctypes.CFUNCTYPE(ctypes.c_ssize_t, *arguments)
        real = getter(ctypes.addressof(vfs.contents), name)
        if not real:
            return
        real = kind(real)

        def traced(*values):
            if on:
                shutil.copytree(place, copies / str(len(list(copies.iterdir()))))
            return real(*values)

        keep.append(kind(traced))
        setter(ctypes.addressof(vfs.contents), name, ctypes.cast(keep[-1], ctypes.c_void_p))

    file, data, number = ctypes.c_int, ctypes.c_void_p, ctypes.c_int64
    trace(b"pwrite64", file, data, ctypes.c_size_t, number)
    trace(b"pwrite", file, data, ctypes.c_size_t, number)
    trace(b"write", file, data, ctypes.c_size_t)
    trace(b"ftruncate", file, number)
    trace(b"unlink", ctypes.c_char_p)

"""

CHANGED = """
    vault = Vault.open(place / "state", "p")
    table = vault.table("t")
    on = True
    with vault.transaction():
        for number in range(4):
            del table[bytes([number])]
        for number in range(4, 12):
            table[bytes([number])] = bytes([number]) * 5000
"""

UPGRADED = """
    from mimi_mmr.client.storage import vault_migrations
    from tests.mimi_mmr.client.storage import planted

    vault_migrations.MIGRATIONS = planted.TO_VERSION_2
    on = True
    vault = Vault.open(place / "state", "p")
"""

TRACED = """
    on = False
    shutil.copytree(place, copies / str(len(list(copies.iterdir()))))
    vault.close()
"""

KILLED = """
    import os, signal, sys
    from pathlib import Path
    from mimi_mmr.client.storage import vault_migrations
    from mimi_mmr.client.storage.vault import Vault

    vault_migrations.MIGRATIONS = ()
    vault = Vault.open(Path(sys.argv[1]), "p")
    with vault.transaction():
        vault.table("t").clear()
        os.kill(os.getpid(), signal.SIGKILL)
"""


KILLED_UPGRADE = """
    import sys
    from pathlib import Path
    from mimi_mmr.client.storage import vault_migrations
    from mimi_mmr.client.storage.vault import Vault
    from tests.mimi_mmr.client.storage import planted

    vault_migrations.MIGRATIONS = planted.KILLED
    Vault.open(Path(sys.argv[1]), "p")
"""

watched = pytest.mark.skipif(
    "libsqlite3" not in Path("/proc/self/maps").read_text() if Path("/proc/self/maps").exists() else True,
    reason="SQLite is part of this Python: its system calls can't be watched",
)


@pytest.fixture(autouse=True)
def first_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are no migrations yet."""
    monkeypatch.setattr(vault_migrations, "MIGRATIONS", ())


@pytest.fixture
def place(tmp_path: Path) -> Path:
    with Vault.create(tmp_path / "place" / "state", "p") as vault:
        vault.table("t").update(BEFORE)
    return tmp_path / "place"


def child(script: str, *arguments: Path) -> int:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, check=False, cwd=ROOT).returncode


def traced(work: str, place: Path, copies: Path) -> list[Path]:
    """Copies of a directory as they were before each write of a child, and after the last, in order."""
    copies.mkdir()
    assert child("".join(map(textwrap.dedent, (TRACING, work, TRACED))), place, copies) == 0
    found = sorted(copies.iterdir(), key=lambda path: int(path.name))
    assert len(found) > 10
    return found


def content(path: Path) -> dict[bytes, bytes]:
    with Vault.open(path, "p") as vault:
        return dict(vault.table("t"))


def test_a_child_that_is_killed_in_a_transaction_has_changed_nothing(place: Path) -> None:
    assert child(textwrap.dedent(KILLED), place / "state") == -signal.SIGKILL
    assert content(place / "state") == BEFORE


@watched
def test_between_any_two_writes_the_file_holds_the_state_before_or_after(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = traced(CHANGED, place, tmp_path / "copies")
    monkeypatch.setattr(Derivation, "key", cache(Derivation.key))  # they all have one passphrase and one salt
    states = [content(copy / "state") for copy in copies]
    assert states[0] == BEFORE
    assert states[-1] == AFTER
    turned = states.index(AFTER)
    assert states == [BEFORE] * turned + [AFTER] * (len(states) - turned)


def test_a_child_that_is_killed_while_it_upgrades_has_changed_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (place / "state").read_bytes()
    assert child(textwrap.dedent(KILLED_UPGRADE), place / "state") == -signal.SIGKILL
    assert content(place / "state") == BEFORE
    assert (place / "state").read_bytes() == before
    monkeypatch.setattr(vault_migrations, "MIGRATIONS", planted.TO_VERSION_2)
    assert content(place / "state") == UPGRADE


@watched
def test_between_any_two_writes_of_an_upgrade_the_file_is_of_one_version_or_the_other(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = traced(UPGRADED, place, tmp_path / "copies")
    monkeypatch.setattr(Derivation, "key", cache(Derivation.key))
    old = [as_version_1(copy / "state") for copy in copies]
    turned = old.index(None)
    assert old == [BEFORE] * turned + [None] * (len(old) - turned)
    assert turned > 0
    monkeypatch.setattr(vault_migrations, "MIGRATIONS", planted.TO_VERSION_2)
    assert [content(copy / "state") for copy in copies] == [UPGRADE] * len(copies)


def as_version_1(path: Path) -> dict[bytes, bytes] | None:
    """What a program reads that knows version 1 only; None if it refuses."""
    try:
        return content(path)
    except StateError as error:
        assert "install mimi-mmr 9.8.7 or later" in str(error)
        return None


def test_a_disk_that_is_full_changes_nothing(place: Path) -> None:
    with Vault.open(place / "state", "p") as vault:
        vault._db.execute("PRAGMA max_page_count = 1")
        with pytest.raises(StateError, match="full"):
            vault.table("t")[b"more"] = bytes(100_000)
        with pytest.raises(StateError, match="full"), vault.transaction():
            vault.table("t")[b"\x01"] = b"less"
            vault.table("t")[b"more"] = bytes(100_000)
        assert dict(vault.table("t")) == BEFORE
    assert content(place / "state") == BEFORE
