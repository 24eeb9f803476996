"""Other members' commits: they are followed even if something is wrong with them, and the result says what."""

from __future__ import annotations

from dataclasses import dataclass

from mimi_mmr.errors import (
    Desynchronised,
    IdentityError,
    InvalidCommit,
    LifetimeRefused,
    NotAllowed,
    WrongSigner,
)
from mimi_mmr.member.local import LocalRoom
from mimi_mmr.member.member_list import MemberList
from mimi_mmr.member.members_only import MembersOnly
from mimi_mmr.member.tree_secrets import epoch_secret, open_tree, policy_hash, strange_names
from mimi_mmr.mls.engine import Applied
from mimi_mmr.mls.wire import Add, PublicCommit, parse_commit
from mimi_mmr.protocol.key_packages import check_begun
from mimi_mmr.protocol.room.departures import Departure, departed
from mimi_mmr.protocol.room.events import CommitEvent
from mimi_mmr.protocol.room.policy import SignedPolicy
from mimi_mmr.protocol.room.requests import CommitAuth, Snapshot, digest
from mimi_mmr.protocol.room.tree_changes import expected_changes, wrong_leaves
from mimi_mmr.uris import MimiUri
from treewrap import MemberUpdate, TreeWrapError


@dataclass(frozen=True, slots=True)
class Followed:
    """The effect of an accepted commit, and what was wrong with it if a member or the hub cheated."""

    sender: int
    added: tuple[int, ...]
    removed: tuple[int, ...]
    removed_self: bool
    problems: tuple[str, ...] = ()


class Follower:
    """The part of a room that follows other members' commits."""

    def __init__(self, local: LocalRoom, members_only: MembersOnly) -> None:
        self._local = local
        self._members_only = members_only

    def follow(self, event: CommitEvent, now: float) -> Followed:
        """Process another member's accepted commit.

        Raises `WrongSigner` or `Desynchronised`, with nothing changed, if no member made the event for this epoch;
        `NotYet`, with nothing changed, if the engine refuses a KeyPackage whose lifetime begins later than `now`.
        A member's invalid commit is followed all the same, and the result says what is wrong: the group goes on,
        and only verified names are shown.
        """
        local, auth = self._local, event.auth.content
        before = local.members
        if auth.room != local.uri or auth.epoch != before.epoch:
            raise Desynchronised(f"expected a commit of epoch {before.epoch}, got one of epoch {auth.epoch}")
        authenticate(event.auth, before.signature_key(auth.sender))
        event.check_parts()
        policy = self._next_policy(event, before)
        self._check_state(event)
        secret = self._members_only.secret()
        applied = self._process(parse_commit(event.commit), now)
        if applied.removed_self:
            local.removed = True
            return Followed(applied.sender, applied.added, applied.removed, removed_self=True)
        local.drop_reports_of_gone(before)
        problems = [*self._follow_tree(event, applied, policy), *self._check_added(applied, now)]
        local.hub_tree_hash = auth.tree_hash
        state_problem = self._members_only.follow(event.room_state, secret, removes=bool(applied.removed))
        problems += [f"leaf {applied.sender}: {state_problem}"] if state_problem else []
        problems += self._check_rights(event.departures, applied, before)
        if applied.sender != auth.sender:
            problems.append("the commit was signed for the hub by another leaf than committed")
        local.policy = policy
        return Followed(applied.sender, applied.added, applied.removed, False, tuple(problems))

    def adopt(self, snapshot: Snapshot) -> None:
        """Take over the hub's tree, after a committer sent this member other changes than the hub.

        The tree must be signed by that committer, and show every other member as this one knows them. Otherwise
        this raises `Desynchronised`, with nothing changed, and the next commit seals this member's tree anew.
        """
        local = self._local
        if snapshot.epoch != local.group.epoch:
            raise Desynchronised(
                f"expected the tree of epoch {local.group.epoch}, got that of epoch {snapshot.epoch}"
            )
        tree = open_tree(snapshot, local.group, local.hub_tree_hash)
        shown = set(tree.leaves())
        for leaf in set(local.tree.leaves()) - {local.group.own_leaf}:
            if leaf not in shown or tree.secret(leaf) != local.tree.secret(leaf):
                raise Desynchronised(f"leaf {leaf} is not in the hub's tree as this member knows it")
        if policy_hash(tree) != local.policy.policy.hash:
            raise Desynchronised("the policy in the hub's tree is not the room's")
        local.tree = tree
        self._members_only.take(None)

    def _process(self, commit: PublicCommit, now: float) -> Applied:
        """Have the engine process a commit.

        Only an engine that refuses a commit by a lifetime may take it later. Any other refusal is for good,
        whatever KeyPackages the commit adds: otherwise a member could make the others wait for a commit that nobody
        can process.
        """
        try:
            return self._local.group.process_commit(commit)
        except LifetimeRefused:
            added = (proposal.key_package for proposal in commit.proposals if isinstance(proposal, Add))
            check_begun((package.leaf_node for package in added), now)
            raise

    # --- before the commit is processed ----------------------------------------------------------------------

    def _check_state(self, event: CommitEvent) -> None:
        sealed = self._members_only.sealed if event.room_state is None else event.room_state
        if digest(sealed) != event.auth.content.room_state_hash:
            raise Desynchronised(
                "the committer signed another members-only state than the one that the hub sent"
            )

    def _next_policy(self, event: CommitEvent, before: MemberList) -> SignedPolicy:
        signed = event.policy or self._local.policy
        if event.policy is not None:
            self._check_policy(event.policy, event.auth.content.sender, before)
        if signed.policy.hash != event.auth.content.policy_hash:
            raise Desynchronised("the committer signed another policy than the one that the hub sent")
        return signed

    def _check_policy(self, new: SignedPolicy, sender: int, before: MemberList) -> None:
        member = before.readable.get(sender)
        if member is None:
            raise NotAllowed("the policy is signed by a leaf whose credential can't be read")
        credential = member.identity.credential
        credential.verify_pseudonym()  # otherwise a hub and a member together could make any leaf an admin's
        try:
            new.check_succession(self._local.policy.policy, sender, member.user, member.signature_key)
        except NotAllowed as error:
            why = "the policy was changed by somebody who may not, or not as it may be"
            raise NotAllowed(f"{why}: {error}") from None

    # --- after it ---------------------------------------------------------------------------------------------

    def _follow_tree(self, event: CommitEvent, applied: Applied, policy: SignedPolicy) -> list[str]:
        local = self._local
        if event.member_update is None:
            if applied.added or applied.removed:
                return ["the commit adds or removes without a Tree Wrap update"]
            same = event.auth.content.tree_hash == local.tree.tree_hash
            return [] if same else ["the committer's tree is not this member's"]
        problems = []
        try:
            update = MemberUpdate.from_bytes(event.member_update)
            problems += self._check_changes(update, applied, policy)
            staged = local.tree.follow(update, epoch_secret(local.group))
        except TreeWrapError as error:
            computed = getattr(error, "staged", None)
            problems.append(f"the Tree Wrap update: {error}")
            if computed is None:
                return problems
            staged = computed
        staged.commit()
        if local.tree.tree_hash != event.auth.content.tree_hash:
            problems.append("the committer's tree hash is not the one that follows from its changes")
        if policy_hash(local.tree) != policy.policy.hash:
            problems.append("the policy in the Tree Wrap root is not the room's")
        if strange_names(local.tree) or local.tree.links():
            problems.append(
                f"leaf {applied.sender}: the Tree Wrap root has secrets or links that rooms do not use"
            )
        return problems

    def _check_changes(self, update: MemberUpdate, applied: Applied, policy: SignedPolicy) -> list[str]:
        """Compare the tree's changes with those that the commit must make, under the commit's policy."""
        readable = self._local.members.readable
        added = ((leaf, readable[leaf].user) for leaf in applied.added if leaf in readable)
        expected = expected_changes(policy.policy, applied.removed, added)
        found = {leaf: kind for leaf, kind, _ in update.leaves}
        wrong = wrong_leaves(found, expected, applied.sender)
        return [f"leaf {leaf}: the Tree Wrap update does not match the commit" for leaf in wrong]

    def _check_rights(
        self, departures: tuple[Departure, ...], applied: Applied, before: MemberList
    ) -> list[str]:
        """List what the hub should have refused under the members' policy."""
        policy, sender = self._local.policy.policy, before.user(applied.sender)
        problems = []
        asked: frozenset[int] = frozenset()
        try:
            asked = departed(self._local.uri, departures, before.leavers(applied.removed))
        except InvalidCommit as error:
            problems.append(f"leaf {applied.sender} sent what is no departure: {error}")
        if sender is None:
            return [*problems, f"leaf {applied.sender}: its credential is malformed"]
        try:
            for leaf in applied.added:
                user = self._local.members.user(leaf) or sender
                allow = policy.allow_add if self._was_there(user, applied) else policy.allow_return
                allow(sender, user)
            for leaf in set(applied.removed) - asked:
                policy.allow_remove(sender, before.user(leaf) or sender)
        except NotAllowed as error:
            problems.append(f"leaf {applied.sender} did what it may not do: {error}")
        return problems

    def _was_there(self, user: MimiUri, applied: Applied) -> bool:
        """Say whether a user has a leaf that the commit did not add; True for a user without a role."""
        if user not in self._local.policy.policy.privileged:
            return True
        return not set(self._local.members.by_user.get(user, ())) <= set(applied.added)

    def _check_added(self, applied: Applied, now: float) -> list[str]:
        """Check added leaves as far as they are visible; note what is wrong with each member."""
        members, problems = self._local.members, []
        for leaf in applied.added:
            problem = members.problems.get(leaf, "")
            if leaf in members.readable:
                member = members.readable[leaf]
                try:
                    member.identity.check_place(member.signature_key)
                    member.identity.credential.verify(now)
                except IdentityError as error:
                    problem = self._local.reported[leaf] = str(error)
            problems += [f"leaf {leaf}: {problem}"] if problem else []
        return problems


def authenticate(auth: CommitAuth, signature_key: bytes | None) -> None:
    """Check that a commit is signed with the key of the leaf that it names; None if that leaf is empty.

    Raises `WrongSigner`.
    """
    if signature_key is None:
        raise WrongSigner(f"no member at leaf {auth.content.sender}, which the commit says it is from")
    auth.verify(signature_key)
