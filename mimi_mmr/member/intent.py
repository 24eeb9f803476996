"""What a commit has to do, and what of it is still to be done after another commit came first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from mimi_mmr.member.member_list import MemberList
from mimi_mmr.protocol.credentials import LeafIdentity
from mimi_mmr.protocol.key_packages import AddableKeyPackage, identity_of
from mimi_mmr.protocol.room.departures import Departure
from mimi_mmr.protocol.room.members_only import MembersOnlyState
from mimi_mmr.protocol.room.policy import RoomPolicy

PolicyChange: TypeAlias = Callable[[RoomPolicy], RoomPolicy]
StateChange: TypeAlias = Callable[[MembersOnlyState], MembersOnlyState]


@dataclass(frozen=True, slots=True)
class CommitIntent:
    """What a commit has to do: add or remove members, or neither (it then heals), and the other named changes.

    `removes` names for each leaf the member that is meant, as `MemberList.at` does. `departures` remove members who
    asked for it, which needs no right. `policy` and `state` compute the next policy (with the next serial) and the
    next members-only state from those of the epoch in which the commit is made. `reveal` shows this member's own
    identity where the policy hides it, which can't be undone.
    """

    adds: tuple[AddableKeyPackage, ...] = ()
    removes: Mapping[int, LeafIdentity | None] = field(default_factory=dict)
    departures: tuple[Departure, ...] = ()
    policy: PolicyChange | None = None
    state: StateChange | None = None
    reveal: bool = False

    @property
    def concerns_members(self) -> bool:
        """Whether it adds or removes members. Its other changes then depend on these."""
        return bool(self.adds or self.removes or self.departures)

    def due(self, members: MemberList) -> CommitIntent | None:
        """Return what is still to be done with the current members; None if nothing is.

        Clients that are in the room already are not added, those that are gone are not removed, and another member
        who has taken a leaf meanwhile stays. If none of the intent's adds and removes is left, nothing else of it
        is done either.
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


def _is_member(package: AddableKeyPackage, members: MemberList) -> bool:
    """Compare the whole identity: if another user holds the same client pseudonym, the hub refuses the Add."""
    identity = identity_of(package)
    leaf = members.by_client.get(identity.credential.client_pseudonym)
    return leaf is not None and members.identities[leaf] == identity
