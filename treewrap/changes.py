"""What one commit may change in the tree, and the checks that need no tree."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from treewrap.errors import ChangeError
from treewrap.geometry import LEAF_LIMIT, NodeRef
from treewrap.links.records import AddLink, ExpireLink, LinkChange, RevokeLink, UseLink
from treewrap.secret import ROOM_NAME_LIMIT, LeafSecret, RoomSecret


class ChangeKind(IntEnum):
    """What happened to a leaf."""

    SET = 1
    BLANK = 2
    REJECT = 3


@dataclass(frozen=True, slots=True)
class Set:
    """Set or replace a leaf's secret."""

    leaf: int
    secret: LeafSecret


@dataclass(frozen=True, slots=True)
class Blank:
    """Blank a leaf. Used for every removed member, even if its leaf is blank already."""

    leaf: int


@dataclass(frozen=True, slots=True)
class Reject:
    """Reject a deferred leaf. It stays blank."""

    leaf: int


@dataclass(frozen=True, slots=True)
class SetRoomSecret:
    """Set or replace the room secret `name` (1 to 64 bytes in UTF-8)."""

    name: str
    secret: RoomSecret


@dataclass(frozen=True, slots=True)
class Repair:
    """Seal these nodes and all above them again, even if the hub stores other nodes there."""

    nodes: tuple[NodeRef, ...]


@dataclass(frozen=True, slots=True)
class Rebuild:
    """Seal the whole tree again and upload it, even if the hub stores another tree. A light tree can't do this."""


Change = Set | Blank | Reject | SetRoomSecret | Repair | Rebuild | AddLink | RevokeLink | ExpireLink | UseLink


class ChangeSet(NamedTuple):
    """The changes of one commit, sorted: leaves by index, room secrets by name, nodes by place.

    `leaves` holds None for a blanked leaf; `rejected` leaves are in no other field.
    """

    leaves: dict[int, LeafSecret | None]
    rejected: tuple[int, ...]
    rooms: dict[str, RoomSecret]
    repaired: tuple[NodeRef, ...]
    rebuilt: bool
    links: tuple[LinkChange, ...]

    @classmethod
    def collect(cls, changes: Iterable[Change]) -> ChangeSet:
        """Sort changes. Raises ChangeError if two concern one leaf or name, or if one is out of range."""
        leaves: dict[int, LeafSecret | None] = {}
        rooms: dict[str, RoomSecret] = {}
        rejected: list[int] = []
        repaired: list[NodeRef] = []
        links: list[LinkChange] = []
        rebuilt = False
        for change in changes:
            if isinstance(change, Set):
                _once(leaves, change.leaf)
                leaves[change.leaf] = change.secret
            elif isinstance(change, Blank | Reject):
                _once(leaves, change.leaf)
                leaves[change.leaf] = None
                if isinstance(change, Reject):
                    rejected.append(change.leaf)
            elif isinstance(change, SetRoomSecret):
                _check_name(rooms, change.name)
                rooms[change.name] = change.secret
            elif isinstance(change, Repair):
                repaired += change.nodes
            elif isinstance(change, Rebuild):
                rebuilt = True
            else:
                links.append(change)
        turned_down = set(rejected)
        changed = {leaf: leaves[leaf] for leaf in sorted(leaves) if leaf not in turned_down}
        nodes = () if rebuilt else tuple(sorted(set(repaired)))
        return cls(changed, tuple(sorted(rejected)), sort_rooms(rooms), nodes, rebuilt, tuple(links))

    def kinds(self) -> list[tuple[int, ChangeKind]]:
        """List every changed or rejected leaf with the kind of its change, by leaf."""
        kinds = [
            (leaf, ChangeKind.BLANK if new is None else ChangeKind.SET) for leaf, new in self.leaves.items()
        ]
        if self.rejected:
            kinds = sorted(kinds + [(leaf, ChangeKind.REJECT) for leaf in self.rejected])
        return kinds

    def leaving(self) -> set[int]:
        """Return the leaves that are blanked."""
        return {leaf for leaf, secret in self.leaves.items() if secret is None}


def sort_rooms(rooms: dict[str, RoomSecret]) -> dict[str, RoomSecret]:
    """Sort room secrets by the bytes of their names."""
    return dict(sorted(rooms.items(), key=lambda item: item[0].encode())) if rooms else rooms


def _once(leaves: dict[int, LeafSecret | None], leaf: int) -> None:
    if not 0 <= leaf < LEAF_LIMIT:
        raise ChangeError(f"leaf: expected 0 to {LEAF_LIMIT - 1}, got {leaf}")
    if leaf in leaves:
        raise ChangeError(f"leaf {leaf}: changed twice; give the net effect")


def _check_name(rooms: dict[str, RoomSecret], name: str) -> None:
    if name in rooms:
        raise ChangeError(f"room secret {name!r}: set twice")
    size = len(name.encode())
    if not 0 < size <= ROOM_NAME_LIMIT:
        raise ChangeError(f"room secret's name: expected 1 to {ROOM_NAME_LIMIT} bytes, got {size}")
