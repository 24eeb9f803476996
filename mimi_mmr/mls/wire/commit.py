"""Proposals and commits (RFC 9420, sections 7.6, 12.1 and 12.4), as far as this profile uses them.

Commits carry Adds and Removes by value. Other proposals of MLS are refused by name (`InvalidCommit`), so that the
sender learns that the message was understood but is not supported.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, NoReturn, TypeAlias

from mimi_mmr.errors import InvalidCommit, ParseError
from mimi_mmr.mls.wire.keypackage import KeyPackage
from mimi_mmr.mls.wire.leaf import LeafNode
from mimi_mmr.mls.wire.limits import KEY, MAX_MESSAGE
from mimi_mmr.presentation import Code, Nested, Opaque, Reader, Struct, Vector

MAX_PROPOSALS = 1 << 16
MAX_PATH = 32  # leaf indices have 32 bits, so no direct path is longer


class ProposalType(enum.IntEnum):
    """Proposal types of RFC 9420, section 17.4."""

    ADD = 1
    UPDATE = 2
    REMOVE = 3
    PSK = 4
    REINIT = 5
    EXTERNAL_INIT = 6
    GROUP_CONTEXT_EXTENSIONS = 7


@dataclass(frozen=True, slots=True)
class Add:
    """Add this client (RFC 9420, section 12.1.1)."""

    key_package: KeyPackage


@dataclass(frozen=True, slots=True)
class Update:
    """Replace the sender's leaf (RFC 9420, section 12.1.2)."""

    leaf_node: LeafNode


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove the member at this leaf index (RFC 9420, section 12.1.3)."""

    leaf: int


Proposal: TypeAlias = Add | Update | Remove


@dataclass(frozen=True, slots=True)
class HPKECiphertext(Struct):
    """HPKECiphertext (RFC 9420, section 7.6) of a path secret or of group secrets."""

    kem_output: Annotated[bytes, KEY]
    ciphertext: Annotated[bytes, Opaque(1 << 12, 16)]


@dataclass(frozen=True, slots=True)
class UpdatePathNode(Struct):
    """A new 32-byte key for one parent, and its encrypted path secret (RFC 9420, section 7.6)."""

    encryption_key: Annotated[bytes, KEY]
    encrypted_path_secret: Annotated[tuple[HPKECiphertext, ...], Vector(Nested(HPKECiphertext), MAX_MESSAGE)]


@dataclass(frozen=True, slots=True)
class UpdatePath:
    """The committer's new leaf and the new keys on its path, from the bottom up (RFC 9420, section 7.6)."""

    leaf_node: LeafNode
    nodes: tuple[UpdatePathNode, ...] = field(repr=False)

    @classmethod
    def read_from(cls, reader: Reader) -> UpdatePath:
        """Read an UpdatePath, without the bytes after it; raise `ParseError`."""
        return cls(LeafNode.read_from(reader), _PATH_NODES.read(reader, "UpdatePath.nodes"))


@dataclass(frozen=True, slots=True)
class Commit:
    """Commit (RFC 9420, section 12.4) with all its proposals by value."""

    proposals: tuple[Add | Remove, ...]
    path: UpdatePath | None


_PATH_NODES = Vector(Nested(UpdatePathNode), MAX_MESSAGE, MAX_PATH)


def read_proposal(reader: Reader) -> Proposal:
    """Read one Proposal; `ParseError`, or `InvalidCommit` for a type this profile does not use."""
    start = reader.offset
    code = reader.uint(2, "Proposal.proposal_type")
    if code not in ProposalType.__members__.values():
        raise ParseError(f"unknown ProposalType {code}", start)
    read = _READERS.get(ProposalType(code))
    if read is None:
        _refuse(f"{ProposalType(code).name} proposals")
    return read(reader)


def read_commit(reader: Reader) -> Commit:
    """Read one Commit; `ParseError`, or `InvalidCommit` for what this profile does not use."""
    inner = reader.vector(MAX_MESSAGE, "Commit.proposals")
    proposals: list[Add | Remove] = []
    while not inner.empty:
        if len(proposals) == MAX_PROPOSALS:
            raise ParseError(f"more than {MAX_PROPOSALS} proposals in Commit", inner.offset)
        proposals.append(_read_proposal_or_ref(inner))
    return Commit(tuple(proposals), _read_path(reader))


def _read_path(reader: Reader) -> UpdatePath | None:
    start = reader.offset
    present = reader.uint(1, "Commit.path")
    if present > 1:
        raise ParseError(f"presence of Commit.path is {present}, expected 0 or 1", start)
    return UpdatePath.read_from(reader) if present else None


class _ProposalOrRefType(enum.IntEnum):
    PROPOSAL = 1
    REFERENCE = 2


def _read_proposal_or_ref(reader: Reader) -> Add | Remove:
    if Code(_ProposalOrRefType).read(reader, "ProposalOrRef.type") is _ProposalOrRefType.REFERENCE:
        _refuse("proposals by reference")
    proposal = read_proposal(reader)
    if isinstance(proposal, Update):
        raise InvalidCommit("a commit can't carry its own sender's Update: its path does that")
    return proposal


def _refuse(what: str) -> NoReturn:
    raise InvalidCommit(f"{what} are not used in these rooms")


_READERS: dict[ProposalType, Callable[[Reader], Proposal]] = {
    ProposalType.ADD: lambda reader: Add(KeyPackage.read_from(reader)),
    ProposalType.UPDATE: lambda reader: Update(LeafNode.read_from(reader)),
    ProposalType.REMOVE: lambda reader: Remove(reader.uint(4, "Remove.removed")),
}
