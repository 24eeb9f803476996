"""A client's state in one encrypted file, which opens with its passphrase only.

An SQLite file of sealed rows. A key that argon2id derives from the passphrase seals a random data key; the data key
names, seals and counts the rows. The file shows how many rows there are, in which order they were written, and
their sizes in steps of 256 bytes. Reading returns what was written, or raises `StateError`: rows that were changed,
moved, dropped, or restored from an older copy of the file are refused. One change can't be detected here: that the
whole file was replaced by an older copy. A client notices it room by room (see `sent`), and what only the newer
copy had read is missing, so do not restore backups of the file.

A vault that an older version wrote is upgraded when it is opened: see `vault_migrations`.

An open vault is held in memory completely, and every change is written to the file. For use by one thread.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import sqlite3
import stat
import tempfile
from collections.abc import Iterator, MutableMapping
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Self

from mimi_mmr.client.storage.vault_keys import DataKey, Derivation, VaultKeys
from mimi_mmr.client.storage.vault_migrations import check_header, header, latest, missing
from mimi_mmr.crypto.aead import NONCE, TAG, InvalidTag
from mimi_mmr.errors import ParseError, StateError
from mimi_mmr.presentation import Reader, vec

APPLICATION_ID = 0x4D4D5256  # in SQLite's header: "MMRV"
PADDING = 256
MAX_ROW = 1 << 28
_SCHEMA = (
    "CREATE TABLE head (kdf BLOB NOT NULL, data_key BLOB NOT NULL, seal BLOB NOT NULL)",
    "CREATE TABLE rows (place INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, sealed BLOB NOT NULL)",
)


class _Row(NamedTuple):
    """Where a row stands in the file, and its share in the digest of all rows."""

    place: int
    share: int


class Vault:
    """Tables that map bytes to bytes, in one file; see the module.

    Outside of `transaction()` every write is its own transaction. Don't hold a transaction across an `await`:
    writes of other tasks would become part of it.
    """

    def __init__(self, db: sqlite3.Connection, key: DataKey, path: Path | None) -> None:
        """Internal: callers use `create`, `open` or `in_memory`."""
        self._db = db
        self._path = path
        self._keys = VaultKeys(key)
        self._clear()

    def _clear(self) -> None:
        self._tables: dict[str, dict[bytes, bytes]] = {}
        self._rows: dict[bytes, _Row] = {}
        self._digest = 0
        self._next_place = 1

    # --- opening and closing -------------------------------------------------------------------------

    @classmethod
    def create(cls, path: Path, passphrase: str) -> Self:
        """Make a file (mode 0600; a missing directory with 0700) and open it; `StateError` if the file exists."""
        _check_passphrase(passphrase)
        name = ""
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            _check_directory(path.parent)
            # Written under another name first, so that a file of this name is always complete.
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
            os.close(handle)
            with _errors(path), closing(_connect(Path(name))) as db:
                _lay_out(db)
                vault = cls(db, key := DataKey.generate(), path)
                with vault.transaction():
                    vault._write_head(Derivation(), key, passphrase)
                    vault._write_seal()
            path.hardlink_to(name)
        except FileExistsError:
            raise StateError(f"{path} exists; a state file is not replaced") from None
        except OSError as error:
            raise StateError(f"{path} can't be made: {error.strerror}") from None
        finally:
            if name:
                Path(name).unlink()
                Path(f"{name}-journal").unlink(missing_ok=True)
        with _errors(path):
            return cls._loaded(_connect(path), key, path)

    @classmethod
    def open(cls, path: Path, passphrase: str) -> Self:
        """Open a file, and upgrade it if an older version wrote it.

        Raises `StateError` if the file is missing, in use, no state file, damaged, of a newer version, or the
        passphrase is wrong.
        """
        _check_passphrase(passphrase)
        try:
            mode = path.stat().st_mode  # not opened: closing it would drop this process's locks
            _check_directory(path.parent)
        except FileNotFoundError:
            raise StateError(f"no such state file: {path}") from None
        except OSError as error:
            raise StateError(f"{path} can't be opened: {error.strerror}") from None
        if not stat.S_ISREG(mode):
            raise StateError(f"{path} is not a state file")
        if mode & 0o077:
            raise StateError(f"{path} is open to others: expected mode 600, found {mode & 0o777:o}")
        with _errors(path):
            db = _connect(path)
            try:
                kdf, key = _read_key(db, passphrase)
                vault = cls._loaded(db, key, path)
                if kdf.version < latest():
                    vault._upgrade(kdf, key, passphrase)
                return vault  # noqa: TRY300
            except BaseException:
                db.close()
                raise

    @classmethod
    def _loaded(cls, db: sqlite3.Connection, key: DataKey, path: Path) -> Self:
        vault = cls(db, key, path)
        vault._load()
        ((seal,),) = db.execute("SELECT seal FROM head")
        if vault._keys.open(b"seal", seal) != vault._count():
            raise StateError("the state file is damaged: rows are missing, or from an older copy of it")
        return vault

    @classmethod
    def in_memory(cls) -> Self:
        """Make a vault without a file and a passphrase, for tests and for clients that store nothing."""
        db = _connect(None)
        _lay_out(db)
        return cls(db, DataKey.generate(), None)

    def change_passphrase(self, new: str) -> None:
        """Encrypt the file under the passphrase `new`. The old passphrase and data key open older copies only."""
        _check_passphrase(new)
        if self._path is None:
            raise StateError("this state is in memory and has no passphrase")
        with self.transaction():
            key, tables = DataKey.generate(), self._tables
            self._execute("DELETE FROM rows")
            self._clear()
            self._keys = VaultKeys(key)
            for name, table in tables.items():
                for row_key, value in table.items():
                    self._put(name, row_key, value)
            self._write_head(Derivation(), key, new)

    def _upgrade(self, kdf: Derivation, key: DataKey, passphrase: str) -> None:
        """Run the missing migrations; the rows and the version change together."""
        with self.transaction():
            for migration in missing(kdf.version):
                migration.work(self)
            self._write_head(replace(kdf, version=latest()), key, passphrase)

    def _write_head(self, kdf: Derivation, key: DataKey, passphrase: str) -> None:
        sealed = key.sealed(kdf, passphrase)
        self._execute("UPDATE head SET kdf = ?, data_key = ?", kdf.to_bytes(), sealed)
        self._execute(f"PRAGMA user_version = {header(kdf.version)}")

    def _write_seal(self) -> None:
        self._execute("UPDATE head SET seal = ?", self._keys.seal(b"seal", self._count()))

    def close(self) -> None:
        """Close the file, so that another process may open it. The vault can't be used afterwards."""
        self._clear()
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # --- for callers ---------------------------------------------------------------------------------

    def table(self, name: str) -> MutableMapping[bytes, bytes]:
        """Return the table of this name, which may be empty; ordered like a `dict`."""
        return _Table(self, name)

    def names(self) -> list[str]:
        """Return the names of all tables that have rows."""
        self._check_open()
        return [name for name, rows in self._tables.items() if rows]

    def drop(self, name: str) -> None:
        """Delete a table with all its rows."""
        with self.transaction():
            self.table(name).clear()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Write all changes made inside, or none.

        A nested transaction can fail alone, and is committed with the outer one.
        """
        self._check_open()
        outermost, keys, before = not self._db.in_transaction, self._keys, self._count()
        self._execute("SAVEPOINT change")
        try:
            yield
            if outermost and (self._keys is not keys or self._count() != before):
                self._write_seal()
            self._execute("RELEASE change")
        except BaseException:
            self._keys = keys
            self._take_back(outermost)
            raise

    # --- rows ----------------------------------------------------------------------------------------

    def _put(self, name: str, key: bytes, value: bytes) -> None:
        content = vec(name.encode()) + vec(key) + vec(value)
        if len(content) > MAX_ROW:
            raise StateError(f"expected a row of at most {MAX_ROW} bytes, got {len(content)}")
        row_id = self._row_id(name, key)
        old = self._rows.get(row_id)
        place = self._next_place if old is None else old.place
        bound = _bound(place, row_id)
        sealed = self._keys.seal(bound, content + bytes(-len(content) % PADDING))
        self._execute("INSERT OR REPLACE INTO rows VALUES (?, ?, ?)", place, row_id, sealed)
        self._forget(row_id)
        self._note(row_id, place, sealed)
        self._tables.setdefault(name, {})[key] = value

    def _delete(self, name: str, key: bytes) -> None:
        row_id = self._row_id(name, key)
        self._execute("DELETE FROM rows WHERE place = ?", self._rows[row_id].place)
        self._forget(row_id)
        del self._tables[name][key]

    def _note(self, row_id: bytes, place: int, sealed: bytes) -> None:
        what = _bound(place, row_id) + sealed[:NONCE] + sealed[-TAG:]
        share = int.from_bytes(hmac.digest(self._keys.counting, what, hashlib.sha256), "big")
        self._rows[row_id] = _Row(place, share)
        self._digest ^= share
        self._next_place = max(self._next_place, place + 1)

    def _forget(self, row_id: bytes) -> None:
        old = self._rows.pop(row_id, None)
        self._digest ^= old.share if old else 0

    def _row_id(self, name: str, key: bytes) -> bytes:
        return hmac.digest(self._keys.naming, vec(name.encode()) + vec(key), hashlib.sha256)

    def _count(self) -> bytes:
        """Return the number of rows and their digest, which are sealed with every change.

        The digest is an XOR of one secret random value for each row.
        """
        return len(self._rows).to_bytes(8, "big") + self._digest.to_bytes(32, "big")

    def _load(self) -> None:
        """Read every row; raises `InvalidTag`, `ParseError` or `StateError`."""
        self._clear()
        for place, row_id, sealed in self._db.execute("SELECT place, id, sealed FROM rows ORDER BY place"):
            reader = Reader(self._keys.open(_bound(place, row_id), sealed))
            name, key, value = (reader.vector(MAX_ROW, what).rest() for what in ("name", "key", "value"))
            self._note(row_id, place, sealed)
            self._tables.setdefault(name.decode(), {})[key] = value

    def _take_back(self, outermost: bool) -> None:
        """Restore the file, and then memory, after a failure."""
        with suppress(sqlite3.Error):  # after some failures SQLite has rolled back by itself
            self._db.execute("ROLLBACK" if outermost else "ROLLBACK TO change")
        try:
            if not outermost:  # fails if the outer transaction was rolled back, too
                self._execute("RELEASE change")
            with _errors(self._path):
                self._load()
        except StateError:
            self.close()  # rather than go on from an unknown state
            raise

    def _execute(self, statement: str, *values: Any) -> None:
        with _errors(self._path):
            self._db.execute(statement, values)

    def _check_open(self) -> None:
        with _errors(self._path):
            self._db.total_changes  # noqa: B018  # raises once it is closed


class _Table(MutableMapping[bytes, bytes]):
    """One table of a vault, with the behaviour of a `dict`."""

    def __init__(self, vault: Vault, name: str) -> None:
        self._vault = vault
        self._name = name

    @property
    def _rows(self) -> dict[bytes, bytes]:
        self._vault._check_open()
        return self._vault._tables.get(self._name, {})

    def __getitem__(self, key: bytes) -> bytes:
        return self._rows[key]

    def __setitem__(self, key: bytes, value: bytes) -> None:
        key, value = bytes(key), bytes(value)
        if self._rows.get(key) != value:
            with self._vault.transaction():
                self._vault._put(self._name, key, value)

    def __delitem__(self, key: bytes) -> None:
        if key not in self._rows:
            raise KeyError(key)
        with self._vault.transaction():
            self._vault._delete(self._name, key)

    def clear(self) -> None:
        """Delete all rows in one transaction."""
        with self._vault.transaction():
            for key in list(self._rows):
                self._vault._delete(self._name, key)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


# --- the file ------------------------------------------------------------------------------------


def _connect(path: Path | None) -> sqlite3.Connection:
    """Open the file exclusively; SQLite keeps no deleted content in the file or its journal."""
    where = ":memory:" if path is None else f"{path.absolute().as_uri()}?mode=rw"
    db = sqlite3.connect(where, timeout=0, isolation_level=None, uri=True)
    try:
        # A truncated journal keeps nothing; with other modes old rows stay in it while the lock is held.
        for setting in (
            "trusted_schema = OFF",
            "locking_mode = EXCLUSIVE",
            "journal_mode = TRUNCATE",
            "synchronous = EXTRA",
            "secure_delete = ON",
            "temp_store = MEMORY",
            "cell_size_check = ON",
        ):
            db.execute(f"PRAGMA {setting}")
        db.execute("BEGIN EXCLUSIVE")  # and keep its lock
        db.execute("COMMIT")
    except BaseException:
        db.close()
        raise
    return db


def _lay_out(db: sqlite3.Connection) -> None:
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    for statement in _SCHEMA:
        db.execute(statement)
    db.execute("INSERT INTO head VALUES (x'', x'', x'')")


def _read_key(db: sqlite3.Connection, passphrase: str) -> tuple[Derivation, DataKey]:
    """Read a file's key derivation and sealed data key; raise `StateError` if its layout is wrong."""
    if db.execute("PRAGMA application_id").fetchone() != (APPLICATION_ID,):
        raise StateError("not a state file")
    ((needs,),) = db.execute("PRAGMA user_version")
    check_header(needs)
    laid_out = tuple(sql for (sql,) in db.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL"))
    heads = db.execute("SELECT kdf, data_key FROM head").fetchall() if laid_out == _SCHEMA else []
    if len(heads) != 1 or db.execute("PRAGMA integrity_check").fetchall() != [("ok",)]:
        raise StateError("the state file is damaged")
    encoded, sealed = heads[0]
    kdf = Derivation.from_bytes(encoded)
    return kdf, DataKey.open(sealed, kdf, passphrase)


def _bound(place: int, row_id: bytes) -> bytes:
    return place.to_bytes(8, "big", signed=True) + row_id


@contextmanager
def _errors(path: Path | None) -> Iterator[None]:
    """Turn what SQLite and the cipher raise into `StateError`."""
    where = path or "the state in memory"
    try:
        yield
    except sqlite3.ProgrammingError:
        raise StateError(f"{where} is closed") from None
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", None)
        if code is not None and code & 0xFF == sqlite3.SQLITE_BUSY:
            raise StateError(f"{where} is in use by another process") from None
        if code == sqlite3.SQLITE_NOTADB:
            raise StateError(f"{where} is not a state file") from None
        raise StateError(f"{where} can't be read or written: {error}") from None
    except (InvalidTag, ParseError, UnicodeDecodeError, TypeError, ValueError):
        raise StateError(f"{where} is damaged: a row is not what was put there") from None


def _check_passphrase(passphrase: str) -> None:
    if not passphrase:
        raise StateError("expected a passphrase, got an empty one")


def _check_directory(directory: Path) -> None:
    mode = directory.stat().st_mode
    if mode & 0o022:
        raise StateError(
            f"{directory} can be written to by others: expected mode 700, found {mode & 0o777:o}"
        )
