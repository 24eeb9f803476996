"""The members of a room in one epoch: their pseudonyms and signature keys, read once from the MLS tree."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from mimi_mmr.errors import ParseError, RoomError
from mimi_mmr.mls.engine import MlsGroup
from mimi_mmr.protocol.credentials import LeafIdentity
from mimi_mmr.protocol.room.departures import Leaver
from mimi_mmr.uris import MimiUri


class ListedMember(NamedTuple):
    """A leaf whose credential parses. `encoded` is its identity as encoded in the leaf."""

    leaf: int
    signature_key: bytes
    encoded: bytes
    identity: LeafIdentity

    @property
    def user(self) -> MimiUri:
        """The user pseudonym."""
        return self.identity.credential.user_pseudonym

    @property
    def client(self) -> MimiUri:
        """The client pseudonym."""
        return self.identity.credential.client_pseudonym


class UnreadableMember(NamedTuple):
    """A leaf whose credential does not parse, and why."""

    leaf: int
    signature_key: bytes
    encoded: bytes
    problem: str


@dataclass(frozen=True)
class MemberList:
    """The members of one epoch, by leaf index in ascending order: every one is in `readable` or `unreadable`."""

    epoch: int
    readable: Mapping[int, ListedMember]
    unreadable: Mapping[int, UnreadableMember]

    @classmethod
    def read(cls, group: MlsGroup, before: MemberList | None = None) -> MemberList:
        """Read a group's members; parse only credentials that differ from the same leaf's in `before`."""
        readable: dict[int, ListedMember] = {}
        unreadable: dict[int, UnreadableMember] = {}
        for leaf, (encoded, key) in group.credentials().items():
            entry = before.get(leaf) if before else None
            if entry is None or (entry.encoded, entry.signature_key) != (encoded, key):
                entry = _read(leaf, encoded, key)
            if isinstance(entry, ListedMember):
                readable[leaf] = entry
            else:
                unreadable[leaf] = entry
        return cls(group.epoch, readable, unreadable)

    def get(self, leaf: int) -> ListedMember | UnreadableMember | None:
        """Return the member at a leaf; None if nobody is there."""
        return self.readable.get(leaf) or self.unreadable.get(leaf)

    @cached_property
    def identities(self) -> Mapping[int, LeafIdentity]:
        """The identity of every member whose credential parses, by leaf."""
        return {leaf: member.identity for leaf, member in self.readable.items()}

    @cached_property
    def by_client(self) -> Mapping[MimiUri, int]:
        """The leaf of each client pseudonym; the lowest one if a cheating hub has let in two."""
        found: dict[MimiUri, int] = {}
        for leaf, member in self.readable.items():
            found.setdefault(member.client, leaf)
        return found

    @cached_property
    def by_user(self) -> Mapping[MimiUri, tuple[int, ...]]:
        """The leaves of each user pseudonym, in ascending order."""
        found: dict[MimiUri, tuple[int, ...]] = {}
        for leaf, member in self.readable.items():
            found[member.user] = (*found.get(member.user, ()), leaf)
        return found

    @cached_property
    def problems(self) -> Mapping[int, str]:
        """Why credentials do not parse, by leaf."""
        return {leaf: member.problem for leaf, member in self.unreadable.items()}

    @cached_property
    def signature_keys(self) -> frozenset[bytes]:
        """The signature keys of all members."""
        readable = {member.signature_key for member in self.readable.values()}
        return frozenset(readable | {member.signature_key for member in self.unreadable.values()})

    def user(self, leaf: int) -> MimiUri | None:
        """Return the user pseudonym at a leaf; None if nobody is there, or the credential does not parse."""
        member = self.readable.get(leaf)
        return member.user if member else None

    def signature_key(self, leaf: int) -> bytes | None:
        """Return the signature key at a leaf; None if nobody is there."""
        member = self.get(leaf)
        return member.signature_key if member else None

    def at(self, leaves: Iterable[int]) -> dict[int, LeafIdentity | None]:
        """Return the identity at each leaf, None if it does not parse; raise `RoomError` if a leaf is empty."""
        found = {}
        for leaf in leaves:
            if self.get(leaf) is None:
                raise RoomError(f"no member at leaf {leaf}")
            found[leaf] = self.identities.get(leaf)
        return found

    def is_at(self, leaf: int, who: LeafIdentity | None) -> bool:
        """Say whether a leaf has the identity that `at` returned before."""
        return self.get(leaf) is not None and self.identities.get(leaf) == who

    def leavers(self, leaves: Iterable[int]) -> dict[int, Leaver]:
        """Return the data that departures of these leaves are checked against, for each credential that parses."""
        members = (self.readable[leaf] for leaf in leaves if leaf in self.readable)
        return {member.leaf: Leaver(member.client, member.signature_key) for member in members}


def _read(leaf: int, encoded: bytes, key: bytes) -> ListedMember | UnreadableMember:
    try:
        return ListedMember(leaf, key, encoded, LeafIdentity.from_bytes(encoded))
    except ParseError as error:
        return UnreadableMember(leaf, key, encoded, f"the credential is malformed: {error}")
