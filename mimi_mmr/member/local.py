"""The data of a room that the parts of `Room` share."""

from __future__ import annotations

from dataclasses import dataclass, field

from mimi_mmr.member.leaves import PreparedLeaf
from mimi_mmr.member.member_list import MemberList
from mimi_mmr.mls.engine import MlsGroup
from mimi_mmr.protocol.room.members_only import MembersOnlyState
from mimi_mmr.protocol.room.policy import SignedPolicy
from mimi_mmr.uris import MimiUri
from treewrap import LeafSecret, WrapTree


@dataclass(frozen=True, slots=True)
class OpenedState:
    """The members-only state: in the sealed form of the room's last commit, and as this member last opened it.

    `stale` is set while the two differ, or the sealing is wrong: this member's next commit then seals the state
    anew.
    """

    sealed: bytes | None = field(default=None, repr=False)
    state: MembersOnlyState = field(default_factory=MembersOnlyState, repr=False)
    stale: bool = False


@dataclass(slots=True)
class LocalRoom:
    """All data that a member has of a room. The MLS group has the current epoch.

    `hub_tree_hash` is the hash of the hub's Tree Wrap tree that the last committer signed. `reported` says what is
    wrong with members, by leaf, besides credentials that do not parse. `removed` is set once this client was
    removed: its group stays in the epoch before.
    """

    uri: MimiUri
    leaf: PreparedLeaf
    group: MlsGroup
    tree: WrapTree
    policy: SignedPolicy
    hub_tree_hash: bytes
    members_only: OpenedState = field(default_factory=OpenedState)
    reported: dict[int, str] = field(default_factory=dict)
    removed: bool = False
    _members: MemberList | None = field(default=None, repr=False)

    @property
    def members(self) -> MemberList:
        """The member list of the group's epoch; read on first use in an epoch."""
        if self._members is None or self._members.epoch != self.group.epoch:
            self._members = MemberList.read(self.group, self._members)
        return self._members

    @property
    def me(self) -> MimiUri:
        """This member's user pseudonym."""
        return self.leaf.identity.credential.user_pseudonym

    @property
    def diverged(self) -> bool:
        """Whether the hub has another Tree Wrap tree than this member computed."""
        return self.tree.tree_hash != self.hub_tree_hash

    def drop_reports_of_gone(self, before: MemberList) -> None:
        """Drop the reports about members of `before` who are gone: another member may have their leaf now."""
        present = self.members
        self.reported = {
            leaf: text for leaf, text in self.reported.items() if present.get(leaf) == before.get(leaf)
        }

    def link_secret(self, leaf: int) -> LeafSecret | None:
        """Return the leaf secret that the Tree Wrap tree holds for a leaf; None if the leaf is blank."""
        try:
            return self.tree.secret(leaf)
        except KeyError:
            return None
