"""This member's own commits, from the intent to the hub's answer."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from mimi_mmr.errors import MmrError, RemovedFromRoom, RoomError
from mimi_mmr.member.departing import departing_leaf
from mimi_mmr.member.intent import CommitIntent
from mimi_mmr.member.local import LocalRoom
from mimi_mmr.member.members_only import MembersOnly
from mimi_mmr.member.tree_secrets import (
    ROOM_SECRETS,
    policy_hash,
    policy_secret,
    staged_secret,
    strange_names,
)
from mimi_mmr.mls.engine import StagedCommit
from mimi_mmr.protocol.key_packages import (
    AddableKeyPackage,
    OpenKeyPackage,
    check_begun,
    leaf_of,
    pseudonym_of,
)
from mimi_mmr.protocol.room.departures import Departure, departures_hash
from mimi_mmr.protocol.room.policy import Role, RoomPolicy, SignedPolicy, sign_policy
from mimi_mmr.protocol.room.requests import CommitAuthTBS, UpdateRequest, digest, sign_commit
from mimi_mmr.protocol.room.welcome_proofs import prove_welcome
from treewrap import Blank, Change, ExpireLink, LeafSecret, Rebuild, Set, Staged, TreeWrapError
from treewrap import StagedCommit as StagedTree


@dataclass(frozen=True, slots=True)
class PendingCommit:
    """A commit that waits for the hub's answer: call `accept()` if the hub accepted it, `reject()` if not.

    Store `request`: with it `Room.pending` makes the same commit again in another process.
    """

    request: UpdateRequest
    _local: LocalRoom
    _members_only: MembersOnly
    _mls: StagedCommit
    _tree: Staged | None
    _policy: SignedPolicy

    def accept(self) -> None:
        """Move the room to the next epoch."""
        before = self._local.members
        self._mls.accept()
        if self._tree is not None:
            self._tree.commit()
        self._local.hub_tree_hash = self.request.auth.content.tree_hash
        self._local.policy = self._policy
        self._local.drop_reports_of_gone(before)
        self._members_only.take(self.request.room_state)

    def reject(self) -> None:
        """Leave the room as it was."""
        self._mls.reject()
        if self._tree is not None:
            self._tree.drop()


@dataclass(frozen=True, slots=True)
class Documents:
    """The parts of a commit besides MLS and tree: the next policy, departures, the sealed members-only state."""

    policy: SignedPolicy | None
    departures: tuple[Departure, ...]
    sealed_state: bytes | None = field(repr=False)


class Committer:
    """The part of a room that makes this member's commits."""

    def __init__(self, local: LocalRoom, members_only: MembersOnly) -> None:
        self._local = local
        self._members_only = members_only

    def stage(self, intent: CommitIntent, now: float) -> PendingCommit:
        """Make a commit that fulfils an intent completely; `now` in seconds since 1970.

        Raises `EngineError` or `RoomError`, `NotYet` if a KeyPackage's lifetime begins later than `now`. Raises
        `RoomError` also if another member than the intent names is at a leaf, and whatever its `policy` and `state`
        raise. A removal ends all join links and seals the members-only state anew. A commit by an admin takes the
        role from every pseudonym that has no leaf in the room afterwards.
        """
        local = self._local
        if local.removed:
            raise RemovedFromRoom("this client was removed from the room")
        check_begun((leaf_of(package) for package in intent.adds), now)
        departures = tuple(dict.fromkeys(intent.departures))
        remove = self._leaves_to_remove(intent, departures)
        policy = self._next_policy(intent, remove)
        state = intent.state(self._members_only.state) if intent.state else None
        signed = sign_policy(policy, local.group.own_leaf, local.leaf.key) if policy else local.policy
        mls = local.group.stage_commit([package.key_package for package in intent.adds], remove)
        try:
            own = own_change(local, reveal=intent.reveal)
            # Treewrap counts it as a removal, too, when an occupied leaf changes: that ends all secrets and links.
            renews = bool(remove) or any(_ends_secrets(local, change) for change in own)
            sealed = self._members_only.seal(mls.epoch, state, removes=bool(remove), renews=renews)
            changes = [*sealed.changes, *self._member_changes(mls, intent.adds, remove, signed), *own]
            if policy or renews or local.diverged or policy_hash(local.tree) != signed.policy.hash:
                changes.append(policy_secret(signed))
            if not renews:
                # Rooms keep no join links in the tree. A member who has put one there could read on until it ends.
                changes += [ExpireLink(live.link.id) for live in local.tree.links()]
            tree = self._stage_tree(mls, changes, now) if changes or intent.adds else None
            documents = Documents(signed if policy else None, departures, sealed.sealed)
            request = self._request(mls, intent.adds, tree, documents)
        except (MmrError, TreeWrapError, ValueError) as error:
            mls.reject()  # otherwise nothing could be staged any more
            raise RoomError(f"the commit can't be made: {error}") from error
        return PendingCommit(request, local, self._members_only, mls, tree, signed)

    def pending(self, request: UpdateRequest) -> PendingCommit:
        """Return a commit that was pending when the process ended, to be accepted or rejected.

        Raises `EngineError` if the MLS storage has another commit, or none, for this epoch.
        """
        local = self._local
        mls = local.group.staged_commit(request.commit, request.welcome)
        tree: Staged | None = None
        try:
            if request.member_update is not None:
                tree = local.tree.follow(request.member_update, staged_secret(mls, local.group))
        except TreeWrapError as error:
            mls.reject()
            raise RoomError(f"the commit can't be taken up again: {error}") from error
        policy = request.policy or local.policy
        return PendingCommit(request, local, self._members_only, mls, tree, policy)

    def _leaves_to_remove(self, intent: CommitIntent, departures: Sequence[Departure]) -> list[int]:
        for leaf, who in intent.removes.items():
            if not self._local.members.is_at(leaf, who):
                raise RoomError(f"leaf {leaf} is not of the member who was to be removed")
        departing = {departing_leaf(self._local, departure) for departure in departures}
        return sorted({*intent.removes, *departing})

    def _next_policy(self, intent: CommitIntent, remove: Collection[int]) -> RoomPolicy | None:
        """Return the commit's policy, or None: the intent's, without roles of pseudonyms that have no leaf.

        The role of a member who is gone could be used by anybody who has that pseudonym's key. An added pseudonym
        keeps a role only if this commit's policy gives it one. Only an admin can remove such roles.
        """
        local, current = self._local, self._local.policy.policy
        wanted = intent.policy(current) if intent.policy else None
        if not (intent.adds or remove) or current.role(local.me) is not Role.ADMIN:
            return wanted
        after = wanted or current
        arriving = {pseudonym_of([package]) for package in intent.adds} if wanted else set()
        vacant = {
            user
            for user in after.privileged - arriving - {local.me}
            if not set(local.members.by_user.get(user, ())).difference(remove)
        }
        if not vacant:
            return wanted
        roles = tuple(entry for entry in after.roles if entry.user_pseudonym not in vacant)
        return replace(after, serial=current.serial + 1, roles=roles)

    def _member_changes(
        self,
        mls: StagedCommit,
        adds: Sequence[AddableKeyPackage],
        remove: Sequence[int],
        policy: SignedPolicy,
    ) -> list[Change]:
        changes: list[Change] = [Blank(leaf) for leaf in remove]
        for leaf, package in zip(mls.added, adds, strict=True):
            if policy.policy.shows_identity(pseudonym_of([package])):
                if not isinstance(package, OpenKeyPackage):
                    raise RoomError("a KeyPackage without its identity link key, in a room that shows it")
                changes.append(Set(leaf, LeafSecret(package.identity_link_key)))
        if self._local.diverged:
            changes.append(Rebuild())
        return changes

    def _stage_tree(self, mls: StagedCommit, changes: Sequence[Change], now: float) -> StagedTree:
        secret = staged_secret(mls, self._local.group)
        return self._local.tree.stage(
            changes, epoch=mls.epoch, epoch_secret=secret, now=int(now), renewed=ROOM_SECRETS
        )

    def _request(
        self,
        mls: StagedCommit,
        adds: Sequence[AddableKeyPackage],
        tree: StagedTree | None,
        documents: Documents,
    ) -> UpdateRequest:
        local = self._local
        update = tree.update.to_bytes() if tree else None
        member_update = tree.member_update.to_bytes() if tree else None
        sealed = self._members_only.sealed if documents.sealed_state is None else documents.sealed_state
        tbs = CommitAuthTBS(
            local.uri,
            local.group.epoch,
            local.group.own_leaf,
            digest(mls.commit),
            digest(mls.welcome),
            digest(update),
            digest(member_update),
            tree.tree_hash if tree else local.tree.tree_hash,
            (documents.policy or local.policy).policy.hash,
            departures_hash(documents.departures),
            digest(sealed),
        )
        auth = sign_commit(tbs, local.leaf.key)
        parts = mls.commit, mls.welcome, update, member_update
        others = documents.policy, documents.departures, documents.sealed_state
        return UpdateRequest(auth, *parts, *others, prove_welcome(adds, tbs))


def _ends_secrets(local: LocalRoom, change: Set | Blank) -> bool:
    return isinstance(change, Blank) or local.link_secret(change.leaf) is not None


def own_change(local: LocalRoom, *, reveal: bool = False) -> list[Set | Blank]:
    """Return the change that sets this member's own leaf secret.

    It is needed if the identity is shown and the adder set the secret wrongly or not at all. It is also what takes
    names out of the root that rooms do not use: a change of an occupied leaf ends all room secrets.
    """
    leaf, secret = local.group.own_leaf, LeafSecret(local.leaf.ilk.reveal())
    known = local.link_secret(leaf)
    if (local.policy.policy.shows_identity(local.me) or reveal) and known != secret:
        return [Set(leaf, secret)]
    if not strange_names(local.tree):
        return []
    return [Blank(leaf)] if known is None else [Set(leaf, known)]
