"""The stored form of a room: what a member needs after a restart, besides its MLS storage.

All of it is secret, and it does not protect its own integrity: write it encrypted and authenticated. Write it in
one transaction with the rows of the leaf's MLS storage, or the two may be of different epochs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from mimi_mmr.presentation import BOOL, U8, U32, U64, Fixed, Nested, Opaque, Struct, Text, Vector
from mimi_mmr.protocol.room.members_only import MembersOnlyState
from mimi_mmr.protocol.room.policy import SignedPolicy
from mimi_mmr.protocol.room.requests import SEALED_STATE
from mimi_mmr.uris import ROOM, MimiUri

VERSION = 1
MAX_PROBLEM = 1024
MAX_SAVED = 1 << 29


@dataclass(frozen=True, slots=True)
class LeafProblem(Struct):
    """What is wrong with a member, in words."""

    leaf: Annotated[int, U32]
    text: Annotated[str, Text(MAX_PROBLEM)]

    @classmethod
    def of(cls, leaf: int, text: str) -> LeafProblem:
        """Make one, with the text cut to the maximum length."""
        return cls(leaf, text.encode()[:MAX_PROBLEM].decode(errors="ignore"))


@dataclass(frozen=True, slots=True)
class SavedRoom(Struct):
    """One membership without the MLS group. `wrap_tree` is `WrapTree.plain_state`."""

    LIMIT: ClassVar[int] = MAX_SAVED
    version: Annotated[int, U8]
    room: Annotated[MimiUri, ROOM]
    epoch: Annotated[int, U64]
    own_leaf: Annotated[int, U32]
    removed: Annotated[bool, BOOL]
    policy: Annotated[SignedPolicy, Nested(SignedPolicy)] = field(repr=False)
    hub_tree_hash: Annotated[bytes, Fixed(32)] = field(repr=False)
    problems: Annotated[tuple[LeafProblem, ...], Vector(Nested(LeafProblem))] = field(repr=False)
    wrap_tree: Annotated[bytes, Opaque(1 << 28)] = field(repr=False)
    sealed_state: Annotated[bytes | None, SEALED_STATE] = field(repr=False)
    state: Annotated[MembersOnlyState, Nested(MembersOnlyState)] = field(repr=False)
    state_stale: Annotated[bool, BOOL] = field(repr=False)
