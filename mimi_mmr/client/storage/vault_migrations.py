"""Migrations of vaults that an older version wrote to the content that this version reads. Internal.

A vault has a version number: 1 for those of version 0.1.0. Opening one of an older number runs the missing
migrations, all in one transaction, so that a crash leaves the old vault or the new one. There is no downgrade:
older programs refuse the new vault. `docs/migrations.md` says how to add a migration. Never change one that was
released.

Migrations change rows. They do not change the file's layout (its two SQLite tables, the header, the key
derivation).
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from mimi_mmr.errors import StateError
from mimi_mmr.presentation import BOOL, U8, U16, U32, U64, Codec, Fixed, Maybe, Opaque, Reader, vec

PROGRAM = "mimi-mmr"


class Tables(Protocol):
    """A vault's tables by name, as a migration sees them."""

    def names(self) -> list[str]:
        """Return the names of all tables that have rows."""

    def table(self, name: str) -> MutableMapping[bytes, bytes]:
        """Return the table of this name, ordered like a `dict`."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One step: its function, and the first version of this program (major, minor, patch) that reads its result."""

    program: tuple[int, int, int]
    work: Callable[[Tables], None]


_ANY = Opaque(1 << 26)
_OPTIONAL = Maybe(_ANY)
# `SavedMembership` before version 2, up to its pending commit, as far as its layout goes.
_LEAF_BEFORE_2: Sequence[Codec] = (
    *(Fixed(64), U8, _ANY, _ANY, _ANY, _ANY, U64, _ANY, _ANY),  # seeds, pseudonymous credential
    *(_ANY, U16, _ANY, Fixed(64)),  # queue address, identity link key and queue token
)
_PLACE_BEFORE_2: Sequence[Codec] = (U64, BOOL, BOOL, _OPTIONAL)
_POLICY_BEFORE_2: Sequence[Codec] = (U8, _ANY, U64, Fixed(3), _ANY, U32, Fixed(64))
_COMMIT_BEFORE_2: Sequence[Codec] = (
    *(_ANY, U64, U32, Fixed(8 * 32), Fixed(64)),  # what the committer signs, its signature
    *(_ANY, _OPTIONAL, _OPTIONAL, _OPTIONAL),
)


def welcomes_have_proofs(tables: Tables) -> None:
    """Give each room's pending commit an empty list of proofs for its Welcome, as its last field.

    A hub that has accepted such a commit says so. One that has not refuses it, if it adds somebody, and it is made
    anew. Note also which KeyPackages were made before: Welcomes for them may wait that have no proof.
    """
    for reference in tables.table("key packages"):
        tables.table("key packages before proofs")[reference] = b""
    rows = tables.table("memberships")
    for name, row in list(rows.items()):
        end = _end_of_pending_before_2(row)
        if end is not None:
            rows[name] = row[:end] + vec(b"") + row[end:]


def _end_of_pending_before_2(row: bytes) -> int | None:
    """Return where the pending commit of a membership ends; None if there is none."""
    reader = Reader(row)

    def skip(*codecs: Codec) -> None:
        for codec in codecs:
            codec.read(reader, "a membership of version 1")

    skip(*_LEAF_BEFORE_2, *_PLACE_BEFORE_2)
    if not BOOL.read(reader, "the mark of a pending commit"):
        return None
    skip(*_COMMIT_BEFORE_2)
    if BOOL.read(reader, "the mark of a policy"):
        skip(*_POLICY_BEFORE_2)
    skip(_ANY, _OPTIONAL)
    return reader.offset


# The first leads from version 1 to 2.
MIGRATIONS: tuple[Migration, ...] = (Migration((0, 4, 0), welcomes_have_proofs),)


def latest() -> int:
    """Return the version of the vaults that this program reads and writes."""
    return 1 + len(MIGRATIONS)


def missing(version: int) -> tuple[Migration, ...]:
    """Return the migrations from `version` to the latest, in the order in which they run."""
    return MIGRATIONS[version - 1 :]


def header(version: int) -> int:
    """Return the value of the file's header (SQLite's `user_version`) for a vault of this version.

    From the highest byte on: the vault's version, then the program version that it needs; 0 for vault version 1.
    The header is not authenticated. It only lets an older program name the version that is needed; the version that
    counts is authenticated with the key.
    """
    if version == 1:
        return 0
    major, minor, patch = MIGRATIONS[version - 2].program
    return int.from_bytes((version, major, minor, patch), "big")


def check_header(value: int) -> None:
    """Raise `StateError` if a file's header says that it needs a newer program; the error names it."""
    version, *program = (value & 0xFFFFFFFF).to_bytes(4, "big")
    if version > latest():
        needed = ".".join(map(str, program))
        raise StateError(
            f"the state file has version {version}, and this program knows versions up to {latest()}: "
            f"install {PROGRAM} {needed} or later"
        )
