"""A provider's three databases, at the URLs in its settings: prepare, open, upgrade and check them.

For operators: `check_databases` reports what `upgrade_databases` would do. A provider also upgrades at its start.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from mimi_mmr.errors import ConfigError
from mimi_mmr.provider.process_lock import Held, process_lock
from mimi_mmr.provider.settings import ROLES, Settings
from mimi_mmr.provider.store import tables
from mimi_mmr.provider.store.database import Database

_SQLITE = b"SQLite format 3\0"


@dataclass(frozen=True, slots=True)
class DatabaseSchema:
    """One role's schema: the recorded number (None: empty, or made by version 0.1.0), and this program's number."""

    role: str
    recorded: int | None
    latest: int

    @property
    def ready(self) -> bool:
        """Whether the schema needs no upgrade."""
        return self.recorded == self.latest

    def __str__(self) -> str:
        if self.ready:
            return f"{self.role}: schema {self.latest}, up to date"
        if self.recorded is None:
            return f"{self.role}: no schema recorded (empty, or of version 0.1.0); would become {self.latest}"
        return f"{self.role}: schema {self.recorded}; would become {self.latest}"


async def open_database(settings: Settings, role: str) -> Database:
    """Open one role's database at the latest schema; raise `ConfigError`, which names the setting."""
    url = settings.database_url(role)
    with _named(role, url):
        prepare_database(url)
        return await Database.open(url, tables.ROLES[role])


@contextmanager
def hold_databases(settings: Settings) -> Iterator[None]:
    """Keep other providers off the SQLite databases of this one; raise `ConfigError` if another process has one.

    SQLite has one writer at a time, and wakes no other process that waits for messages: several processes share a
    PostgreSQL database. The lock is on a file beside the database, and ends with the process, however that ends.
    """
    with ExitStack() as held:
        for role in ROLES:
            url = settings.database_url(role)
            path = _sqlite_path(url)
            if (
                path is not None and path.parent.is_dir() and not path.is_dir()
            ):  # else opening reports the error
                with _named(role, url):
                    held.enter_context(_locked(path))
        yield


@contextmanager
def _locked(database: Path) -> Iterator[None]:
    path = Path(f"{os.path.realpath(database)}.lock")
    with ExitStack() as held:
        try:
            held.enter_context(process_lock(path))
        except Held as error:
            raise ConfigError(
                f"{database} is in use by another process ({error.owner}); stop that one first, give this"
                " one another data_dir, or use PostgreSQL, which several processes can share"
            ) from None
        except OSError as error:
            raise ConfigError(f"the database can't be locked: {path}: {error.strerror}") from None
        yield


async def upgrade_databases(settings: Settings) -> list[DatabaseSchema]:
    """Upgrade all three databases; return their schemas. Raise `ConfigError` for the first failure."""
    with hold_databases(settings):
        for role in ROLES:
            await (await open_database(settings, role)).close()
    return await check_databases(settings)


async def check_databases(settings: Settings) -> list[DatabaseSchema]:
    """Return each database's schema without changing anything.

    Raises `ConfigError` for a database that can't be read, is newer than this program, or belongs to another role.
    """
    return [await _check(role, settings.database_url(role)) for role in ROLES]


async def _check(role: str, url: str) -> DatabaseSchema:
    with _named(role, url):
        path = _sqlite_path(url)
        missing = path is not None and path.parent.is_dir() and not path.exists()
        found = None if missing else await Database.recorded_schema(url, tables.ROLES[role])
        return DatabaseSchema(role, found, Database.latest_schema(tables.ROLES[role]))


@contextmanager
def _named(role: str, url: str) -> Iterator[None]:
    """Add the setting's name and the database's place to an error."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"database.{role}: {error}{_place_of(url)}") from None


def prepare_database(url: str) -> None:
    """Create a SQLite database's file before SQLite does, readable by the provider alone, like its key files.

    SQLite gives the -wal and -shm files the same mode. Raises `ConfigError` for a path that can't be used.
    """
    path = _sqlite_path(url)
    if path is None or not path.parent.is_dir():
        return  # opening the database reports the error
    try:
        if path.is_dir():
            raise ConfigError(f"{path} is a directory; expected a file")
        if not path.exists():
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        with path.open("r+b") as file:
            if file.read(len(_SQLITE)) not in (b"", _SQLITE):
                raise ConfigError(f"{path} is not a SQLite database")
        for there in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
            mode = there.stat().st_mode & 0o777 if there.exists() else 0
            if mode & 0o007:
                there.chmod(mode & 0o770)
    except OSError as error:
        raise ConfigError(f"the database can't be opened: {path}: {error.strerror}") from None


def _place_of(url: str) -> str:
    """Return a database's place as the end of an error message, without secrets; "" if there is nothing to add."""
    try:
        parsed = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):
        return ""
    if parsed.get_backend_name() == "postgresql":
        return f": {parsed.database or ''} at {parsed.host or 'localhost'}:{parsed.port or 5432}"
    return ""


def _sqlite_path(url: str) -> Path | None:
    try:
        parsed = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):
        return None
    if parsed.get_backend_name() != "sqlite" or not parsed.database or parsed.database.startswith("file:"):
        return None
    return Path(parsed.database)
