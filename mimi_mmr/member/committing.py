"""Commits of one's own, from the wish to the hub's answer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from mimi_mmr.errors import InvalidCommit, MmrError, RemovedFromRoom, RoomError
from mimi_mmr.member.keys import policy_secret, staged_secret
from mimi_mmr.member.shared import Shared
from mimi_mmr.mls.engine import StagedCommit
from mimi_mmr.protocol.key_packages import OpenKeyPackage, pseudonym_of
from mimi_mmr.protocol.room.departures import Departure, Leaver, departed, departures_hash, sign_departure
from mimi_mmr.protocol.room.members_only import MembersOnlyState
from mimi_mmr.protocol.room.messages import CommitAuthTBS, UpdateRequest, digest, sign_commit
from mimi_mmr.protocol.room.policy import Role, RoomPolicy, SignedPolicy, sign_policy
from treewrap import Blank, Change, LeafSecret, Rebuild, Set, Staged, TreeWrapError
from treewrap import StagedCommit as StagedTree


@dataclass(frozen=True, slots=True)
class PendingCommit:
    """A commit on its way to the hub. `accept()` when the hub said yes, `reject()` when it did not.

    `request` is what to keep of it: `Room.pending` makes the same again of it in another process.
    """

    request: UpdateRequest
    _room: Committing
    _mls: StagedCommit
    _tree: Staged | None
    _policy: SignedPolicy

    def accept(self) -> None:
        """The room is in the next epoch."""
        self._mls.accept()
        if self._tree is not None:
            self._tree.commit()
        self._room._hub_hash = self.request.auth.content.tree_hash
        self._room.policy = self._policy
        self._room._take_state(self.request.room_state)

    def reject(self) -> None:
        """The room is as it was."""
        self._mls.reject()
        if self._tree is not None:
            self._tree.drop()


@dataclass(frozen=True, slots=True)
class Beside:
    """What goes with a commit beside MLS and tree, where it changes."""

    policy: SignedPolicy | None
    departures: tuple[Departure, ...]
    room_state: bytes | None = field(repr=False)


class Committing(Shared):
    """A room that its member changes."""

    __slots__ = ()

    def stage(
        self,
        *,
        add: Sequence[OpenKeyPackage] = (),
        remove: Sequence[int] = (),
        policy: RoomPolicy | None = None,
        departures: Sequence[Departure] = (),
        state: MembersOnlyState | None = None,
        reveal: bool = False,
    ) -> PendingCommit:
        """A commit that adds, or removes, or only heals; raises `EngineError` or `RoomError`.

        Whoever asks for it in one of `departures` is removed as well, whatever this member may do. A removal ends
        all join links and seals the members-only state anew; `state` replaces it. `reveal` shows one's own
        identity where the policy hides it, which can't be taken back. By an admin nobody keeps a role who has no
        leaf in the room afterwards.
        """
        if self.removed:
            raise RemovedFromRoom("this client was removed from the room")
        departures = tuple(dict.fromkeys(departures))
        remove = sorted({*remove, *map(self.departing, departures)})
        if add or remove:
            policy = self._without_vacant_roles(policy, add, remove)
        signed = sign_policy(policy, self.own_leaf, self._leaf.key) if policy else self.policy
        mls = self._group.stage_commit([package.key_package for package in add], remove)
        try:
            sealed, changes = self._seal_state(mls.epoch, state, removes=bool(remove))
            changes += self._changes(mls, add, remove, signed)
            if policy or remove or self.diverged:
                changes.append(policy_secret(signed))  # a removal replaces every room secret: keep this one
            changes += self._own_change(reveal=reveal)
            tree = self._stage_tree(mls, changes) if changes or add else None
            request = self._request(mls, tree, Beside(signed if policy else None, departures, sealed))
        except (MmrError, TreeWrapError, ValueError) as error:
            mls.reject()  # or nothing could be staged ever after
            raise RoomError(f"the commit can't be made: {error}") from error
        return PendingCommit(request, self, mls, tree, signed)

    def _without_vacant_roles(
        self, policy: RoomPolicy | None, add: Sequence[OpenKeyPackage], remove: Sequence[int]
    ) -> RoomPolicy | None:
        """The policy that goes with an Add or a Remove.

        A role of somebody who is gone would wait for whoever holds that pseudonym's key. Of those who come in only
        those have one whom this very commit's policy gives it.
        """
        current, me = policy or self.policy.policy, self._leaf.identity.credential.user_pseudonym
        privileged = current.privileged - {me}
        if not privileged or self.policy.policy.role(me) is not Role.ADMIN:
            return policy
        members = self.participants().items()
        there = {who.credential.user_pseudonym for leaf, who in members if leaf not in remove}
        if policy is not None and add:
            there |= {pseudonym_of([package]) for package in add}
        if privileged <= there:
            return policy
        vacant = privileged - there
        roles = tuple(entry for entry in current.roles if entry.user_pseudonym not in vacant)
        return replace(current, serial=self.policy.policy.serial + 1, roles=roles)

    def pending(self, request: UpdateRequest) -> PendingCommit:
        """A commit of this room's that was on its way when the process ended, to be accepted or rejected.

        Raises `EngineError` if it is not the one that the MLS storage keeps for this epoch.
        """
        mls = self._group.staged_commit(request.commit, request.welcome)
        tree: Staged | None = None
        try:
            if request.member_update is not None:
                tree = self._tree.follow(request.member_update, staged_secret(mls, self._group))
        except TreeWrapError as error:
            mls.reject()
            raise RoomError(f"the commit can't be taken up again: {error}") from error
        return PendingCommit(request, self, mls, tree, request.policy or self.policy)

    def _request(self, mls: StagedCommit, tree: StagedTree | None, beside: Beside) -> UpdateRequest:
        update = tree.update.to_bytes() if tree else None
        member_update = tree.member_update.to_bytes() if tree else None
        tbs = CommitAuthTBS(
            self.uri,
            self.epoch,
            self.own_leaf,
            digest(mls.commit),
            digest(mls.welcome),
            digest(update),
            digest(member_update),
            tree.tree_hash if tree else self._tree.tree_hash,
            (beside.policy or self.policy).policy.hash,
            departures_hash(beside.departures),
            digest(self._sealed_state if beside.room_state is None else beside.room_state),
        )
        auth = sign_commit(tbs, self._leaf.key)
        parts = mls.commit, mls.welcome, update, member_update
        return UpdateRequest(auth, *parts, beside.policy, beside.departures, beside.room_state)

    def _changes(
        self,
        mls: StagedCommit,
        add: Sequence[OpenKeyPackage],
        remove: Sequence[int],
        policy: SignedPolicy,
    ) -> list[Change]:
        changes: list[Change] = [Blank(leaf) for leaf in remove]
        for leaf, package in zip(mls.added, add, strict=True):
            if policy.policy.shows_identity(pseudonym_of([package])):
                changes.append(Set(leaf, LeafSecret(package.identity_link_key)))
        if self.diverged:
            changes.append(Rebuild())
        return changes

    def _own_change(self, *, reveal: bool = False) -> list[Change]:
        """Set one's own leaf (again), where it is to be shown and whoever added it set it wrong or not."""
        secret = LeafSecret(self._leaf.ilk.reveal())
        shown = self.policy.policy.shows_identity(self._leaf.identity.credential.user_pseudonym)
        if not (shown or reveal) or self._secret(self.own_leaf) == secret:
            return []
        return [Set(self.own_leaf, secret)]

    def _stage_tree(self, mls: StagedCommit, changes: Iterable[Change]) -> StagedTree:
        secret = staged_secret(mls, self._group)
        return self._tree.stage(changes, epoch=mls.epoch, epoch_secret=secret)

    # --- leaving --------------------------------------------------------------------------------------------

    def departure(self) -> Departure:
        """This member's leave to be removed by anybody; send it as `ContentKind.DEPARTURE`.

        It can't be taken back while this leaf is in the room.
        """
        return sign_departure(self.uri, self._leaf.identity.credential.client_pseudonym, self._leaf.key)

    def departing(self, departure: Departure) -> int:
        """The leaf that a departure is of; raises `RoomError` if it is of nobody here, or not signed by it."""
        members = self._leavers(self.participants())
        wanted = departure.content.client_pseudonym
        leaf = next((leaf for leaf, member in members.items() if member.client == wanted), None)
        try:
            departed(self.uri, [departure], members)
        except InvalidCommit as error:
            raise RoomError(f"the departure does not hold: {error}") from None
        if leaf is None or leaf == self.own_leaf:
            raise RoomError("nobody removes itself: another member answers one's own departure")
        return leaf

    def _leavers(self, leaves: Iterable[int]) -> dict[int, Leaver]:
        found = {}
        for leaf in leaves:
            node, identity = self._group.leaf(leaf), self._identity(leaf)
            if node is not None and identity is not None:
                found[leaf] = Leaver(identity.credential.client_pseudonym, node.signature_key)
        return found
