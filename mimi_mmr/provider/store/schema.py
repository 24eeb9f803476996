"""The schema of a role's database, and the upgrade from an older schema to this program's.

The schema is a number that alembic records in the database, together with the role and the first version of this
program that knows it: `hub_0002_0.3.0`. Revisions are modules in `migrations/<role>`. The first process that opens
a database runs all missing ones in one transaction. There is no other way to upgrade, and no downgrade.

Version 0.1.0 recorded nothing: tables that match its own, column by column, count as schema 1.
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import Script, ScriptDirectory

from mimi_mmr.errors import ConfigError
from mimi_mmr.provider.store.tables import ROLES

PROGRAM = "mimi-mmr"
_FOLDER = Path(__file__).parent / "migrations"
_REVISION = re.compile(r"([a-z]+)_(\d{4})_(\d+\.\d+\.\d+)")
_LOCK = 0x4D4D5201  # "MMR", 1: PostgreSQL's advisory lock for upgrades, one in each database
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Schema:
    """One schema of one role's database; `program` is the first version of this program that knows it."""

    role: str
    number: int
    program: str

    @classmethod
    def parse(cls, revision: str) -> Schema | None:
        """Parse a revision's name; return None if it has another form."""
        match = _REVISION.fullmatch(revision)
        return cls(match[1], int(match[2]), match[3]) if match else None


def folders(role: str) -> Sequence[Path]:
    """Return the folders with the revisions of a role."""
    return (_FOLDER / role,)


def latest(role: str) -> Schema:
    """Return the schema that this program works with."""
    return _schema(_revisions(role).get_current_head() or "")


def current(connection: sa.Connection, role: str) -> Schema | None:
    """Return a database's recorded schema, or None if nothing is recorded, as in an empty database.

    Raises `ConfigError` for a database that this program can't use: it is newer, belongs to another role, or has a
    schema that this program has no revision for.
    """
    heads = [str(head) for head in MigrationContext.configure(connection).get_current_heads()]
    if not heads:
        _check_owner(connection, role)
        return None
    known = latest(role)
    found = Schema.parse(heads[0]) if len(heads) == 1 else None
    if found is None:
        raise _unknown(role, heads)
    if found.role != role:
        raise ConfigError(f"this is a database of {found.role}; expected one of {role}")
    if found.number > known.number:
        raise ConfigError(
            f"this database is at schema {found.number} of {role}, made by a newer version; this program knows "
            f"up to {known.number}: install {PROGRAM} {found.program} or later"
        )
    if heads[0] not in {script.revision for script in _revisions(role).walk_revisions()}:
        raise _unknown(role, heads)
    return found


def _unknown(role: str, heads: Sequence[str]) -> ConfigError:
    return ConfigError(f"its schema is {', '.join(heads)}, which is unknown; expected one of {role}")


def is_latest(connection: sa.Connection, role: str) -> bool:
    """Return whether no upgrade is needed; raise `ConfigError` as `current` does."""
    return current(connection, role) == latest(role)


def upgrade(connection: sa.Connection, role: str) -> None:
    """Bring a database to the latest schema, inside the transaction that the connection is in.

    Creates all tables in an empty database. If several processes try at once, one does the work and the others find
    it done. Raises `ConfigError` as `current` does, and for tables that no version of this program made.
    """
    if connection.dialect.name == "postgresql":  # SQLite allows one writer at a time
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
    found, revisions = current(connection, role), _revisions(role)
    context = MigrationContext.configure(connection)
    if found is None and _adopt(connection, _first(revisions)):
        found = _schema(_first(revisions).revision)
        context.stamp(revisions, _first(revisions).revision)
    operations = Operations(context)
    for script in _missing(revisions, context.get_current_heads()):
        script.module.upgrade(operations)
        context.stamp(revisions, script.revision)
    if found is not None and found.number < latest(role).number:
        log.info("database %s: upgraded from schema %d to %d", role, found.number, latest(role).number)


def _revisions(role: str) -> ScriptDirectory:
    return _read_revisions(role, tuple(str(path) for path in folders(role)))


@functools.cache
def _read_revisions(role: str, locations: tuple[str, ...]) -> ScriptDirectory:
    """Read the revisions in these folders, once in a process: that takes longer than an upgrade."""
    return ScriptDirectory(str(_FOLDER / role), version_locations=list(locations))


def _schema(revision: str) -> Schema:
    found = Schema.parse(revision)
    if found is None:
        raise ValueError(f"a revision is named {revision!r}; expected <role>_<4 digits>_<program's version>")
    return found


def _first(revisions: ScriptDirectory) -> Script:
    return list(revisions.walk_revisions())[-1]


def _missing(revisions: ScriptDirectory, heads: Sequence[str]) -> list[Script]:
    """Return the revisions after the recorded one, in the order to run them."""
    lower = heads[0] if heads else "base"
    return list(revisions.iterate_revisions("head", lower))[::-1]


# --- databases without a record ----------------------------------------------------------------------


def _check_owner(connection: sa.Connection, role: str) -> None:
    """Raise `ConfigError` if there are tables of another role."""
    there = set(sa.inspect(connection).get_table_names())
    for other, metadata in ROLES.items():
        if other != role and there & metadata.tables.keys():
            raise ConfigError(f"this is a database of {other}; expected one of {role}")


def _adopt(connection: sa.Connection, first: Script) -> bool:
    """Return whether there are tables of version 0.1.0; create missing ones, as that version did at its start.

    Raises `ConfigError` for a table whose columns differ from that version's.
    """
    expected: sa.MetaData = first.module.tables
    if not set(sa.inspect(connection).get_table_names()) & expected.tables.keys():
        return False
    expected.create_all(connection)
    inspector = sa.inspect(connection)
    for name, table in expected.tables.items():
        there = {column["name"] for column in inspector.get_columns(name)}
        missing = sorted(set(table.columns.keys()) - there)
        if missing:
            raise ConfigError(f"made by another version: its table {name} has no column {missing[0]}")
        unknown = sorted(there - set(table.columns.keys()))
        if unknown:
            raise ConfigError(f"made by another version: its table {name} has a column {unknown[0]}")
    return True
