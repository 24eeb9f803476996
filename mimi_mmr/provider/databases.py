"""Opening a provider's databases, with the files of those that are SQLite's."""

from __future__ import annotations

import os
from pathlib import Path

import sqlalchemy as sa

from mimi_mmr.errors import ConfigError
from mimi_mmr.provider.settings import Settings
from mimi_mmr.provider.store.database import Database

_SQLITE = b"SQLite format 3\0"


async def open_database(settings: Settings, role: str, metadata: sa.MetaData) -> Database:
    """Open the database of a role (hub, accounts, deliveries), made on first use; raise `ConfigError`."""
    url = settings.database_url(role)
    try:
        _prepare_file(url)
        return await Database.open(url, metadata)
    except ConfigError as error:
        raise ConfigError(f"database.{role}: {error}{_place_of(url)}") from None


def _prepare_file(url: str) -> None:
    """Make a SQLite database's file before SQLite does, readable by the provider alone, as its key files are.

    SQLite gives the files beside it (-wal, -shm) the same mode. Raises `ConfigError` for a path that can't be used.
    """
    path = _sqlite_path(url)
    if path is None or not path.parent.is_dir():
        return  # opening it says what is wrong
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
    """Return where a database is, without what may be secret, as an error's end; "" if there is nothing to say."""
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
