"""Check that the three roles have three different databases, however their URLs are written."""

from __future__ import annotations

import os
from pathlib import Path

import sqlalchemy as sa

from mimi_mmr.errors import ConfigError
from mimi_mmr.provider.settings.model import ROLES, Settings


def check_apart(settings: Settings) -> None:
    """Raise an error if two URLs lead to the same database, however they are written."""
    seen: dict[tuple[str, ...], str] = {}
    for role in ROLES:
        place = _database_place(role, settings.database_url(role))
        if place in seen:
            raise ConfigError(
                f"database: {seen[place]} and {role} are one database; expected three, so that none can be joined"
            )
        seen[place] = role


def _database_place(role: str, url: str) -> tuple[str, ...]:
    """Return the place that a URL leads to: a file or a server's database, otherwise the URL itself."""
    try:
        parsed = sa.make_url(url)
        kind = parsed.get_backend_name()
    except (sa.exc.ArgumentError, ValueError):
        return (url,)  # opening the database reports the error
    if kind == "sqlite":
        name = parsed.database or ""
        if name.startswith("file:"):
            name = name.removeprefix("file:").partition("?")[0]
        if name in ("", ":memory:") or "mode=memory" in url:
            raise ConfigError(f"database.{role}: expected a file; what is in memory is lost at the end")
        try:  # one file may still have two names: hard links, bind mounts
            found = Path(name).stat()
        except OSError:
            return kind, os.path.realpath(name)
        return kind, str(found.st_dev), str(found.st_ino)
    if kind == "postgresql":
        host, port = parsed.host or _first(parsed.query.get("host")) or "localhost", parsed.port
        host, _, in_host = host.partition(":") if host.count(":") == 1 else (host, "", "")
        number = str(port or in_host or _first(parsed.query.get("port")) or 5432)
        host = (
            "localhost" if host in ("127.0.0.1", "::1") or host.startswith("/") else host.lower().rstrip(".")
        )
        query = parsed.query
        name = parsed.database or _first(query.get("dbname")) or _first(query.get("database"))
        name = name or parsed.username or _first(query.get("user"))
        return kind, host, number, name
    return (url,)


def _first(value: str | tuple[str, ...] | None) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return value[0]
