"""What a member wants of a commit, and what of it is still to be done when another commit came first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from mimi_mmr.member.member_list import MemberList
from mimi_mmr.protocol.credentials import LeafIdentity
from mimi_mmr.protocol.key_packages import OpenKeyPackage, identity_of
from mimi_mmr.protocol.room.departures import Departure
from mimi_mmr.protocol.room.members_only import MembersOnlyState
from mimi_mmr.protocol.room.policy import RoomPolicy

PolicyChange: TypeAlias = Callable[[RoomPolicy], RoomPolicy]
StateChange: TypeAlias = Callable[[MembersOnlyState], MembersOnlyState]


@dataclass(frozen=True, slots=True)
class CommitIntent:
    """What a commit is to do: add, or remove, or neither; then it heals, and changes what else is named.

    `removes` says for each leaf who is meant there, as `MemberList.at` does. `departures` remove whoever asked for
    it, whatever this member may do. `policy` and `state` make the next policy (with the next serial) and the next
    members-only state of those of the epoch in which the commit is made. `reveal` shows one's own identity where
    the policy hides it, which can't be taken back.
    """

    adds: tuple[OpenKeyPackage, ...] = ()
    removes: Mapping[int, LeafIdentity | None] = field(default_factory=dict)
    departures: tuple[Departure, ...] = ()
    policy: PolicyChange | None = None
    state: StateChange | None = None
    reveal: bool = False

    @property
    def concerns_members(self) -> bool:
        """Whether it is for somebody's coming or going; what else it has goes with that."""
        return bool(self.adds or self.removes or self.departures)

    def due(self, members: MemberList) -> CommitIntent | None:
        """Return what is still to be done, given who is in the room; None if nothing is.

        Whoever is in the room already is not added, whoever is gone not removed, and another member who has taken a
        leaf meanwhile stays. When that leaves nobody of those it was for, then nothing else of it is done either.
        """
        rest = replace(
            self,
            adds=tuple(one for one in self.adds if not _is_member(one, members)),
            removes={leaf: who for leaf, who in self.removes.items() if members.is_at(leaf, who)},
            departures=tuple(
                one for one in self.departures if one.content.client_pseudonym in members.by_client
            ),
        )
        return None if self.concerns_members and not rest.concerns_members else rest


def _is_member(package: OpenKeyPackage, members: MemberList) -> bool:
    """Compare the whole identity: somebody else may hold the client pseudonym, and then the hub refuses the Add."""
    identity = identity_of(package)
    leaf = members.by_client.get(identity.credential.client_pseudonym)
    return leaf is not None and members.identities[leaf] == identity
