"""PostgreSQL's connection parameters: those of libpq, in a database URL's query, as the driver takes them.

Source: PostgreSQL, "Database Connection Control Functions", section "Parameter Key Words". asyncpg reads most of
them itself from the URL; a few are arguments of its own. Those that neither has are refused by name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa

from mimi_mmr.errors import ConfigError

_READ_BY_DRIVER = frozenset(
    {
        "host",
        "port",
        "dbname",
        "database",
        "user",
        "password",
        "passfile",
        "service",
        "sslmode",
        "sslcert",
        "sslkey",
        "sslpassword",
        "sslrootcert",
        "sslcrl",
        "sslnegotiation",
        "ssl_min_protocol_version",
        "ssl_max_protocol_version",
        "target_session_attrs",
        "krbsrvname",
        "gsslib",
    }
)
_FILES = ("sslcert", "sslkey", "sslrootcert", "sslcrl", "passfile")
_SENT_TO_SERVER = frozenset({"application_name", "options"})
_CACHES = frozenset({"statement_cache_size", "prepared_statement_cache_size"})  # of asyncpg, of SQLAlchemy
_OTHERS = frozenset({"connect_timeout", "fallback_application_name", "client_encoding"})
KNOWN = _READ_BY_DRIVER | _SENT_TO_SERVER | _CACHES | _OTHERS


def connect_arguments(url: sa.URL) -> dict[str, Any]:
    """Return the arguments with which asyncpg connects to `url` as libpq would; raise `ConfigError`."""
    given = {name: value if isinstance(value, str) else value[-1] for name, value in url.query.items()}
    unknown = sorted(given.keys() - KNOWN)
    if unknown:
        raise ConfigError(
            f"the URL's parameter {unknown[0]} can't be used here; expected some of {', '.join(sorted(KNOWN))}"
        )
    encoding = given.get("client_encoding", "auto").lower()
    if encoding not in ("auto", "utf8", "utf-8"):
        raise ConfigError("the URL's parameter client_encoding: expected UTF8, or none")
    for name in _FILES:
        if name in given and not Path(given[name]).is_file():
            raise ConfigError(f"the URL's parameter {name}: no such file: {given[name]}")
    passed = {name: value for name, value in given.items() if name in _READ_BY_DRIVER}
    plain = url.set(drivername="postgresql", query=passed)
    arguments: dict[str, Any] = {"dsn": plain.render_as_string(hide_password=False)}
    settings = {name: given[name] for name in _SENT_TO_SERVER if name in given}
    if "fallback_application_name" in given:
        settings.setdefault("application_name", given["fallback_application_name"])
    if settings:
        arguments["server_settings"] = settings
    if "connect_timeout" in given:
        seconds = _number(given, "connect_timeout")
        arguments["timeout"] = max(seconds, 2) if seconds > 0 else None  # as libpq counts
    return arguments | {name: _number(given, name) for name in _CACHES if name in given}


def _number(given: dict[str, str], name: str) -> int:
    try:
        return int(given[name])
    except ValueError:
        raise ConfigError(f"the URL's parameter {name}: expected a whole number") from None
