"""Other members' commits: followed whatever is wrong with them, and said what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from mimi_mmr.errors import Desynchronised, InvalidCommit, MmrError, NotAllowed
from mimi_mmr.member.committing import Committing
from mimi_mmr.member.keys import authenticate, epoch_secret, open_tree, policy_hash
from mimi_mmr.member.whois import Followed
from mimi_mmr.mls.engine import Applied
from mimi_mmr.mls.wire import PublicCommit, Remove, parse_message
from mimi_mmr.protocol.credentials import LeafIdentity
from mimi_mmr.protocol.key_packages import check_leaf
from mimi_mmr.protocol.room.departures import departed
from mimi_mmr.protocol.room.members_only import StateSecret
from mimi_mmr.protocol.room.messages import CommitEvent, Snapshot, digest
from mimi_mmr.protocol.room.policy import SignedPolicy
from mimi_mmr.protocol.room.tree_changes import expected_changes, wrong_leaves
from mimi_mmr.uris import MimiUri
from treewrap import MemberUpdate, TreeWrapError


@dataclass(frozen=True, slots=True)
class Before:
    """Whom a commit concerns: their user pseudonyms, who of the removed asked for it, and what is wrong there."""

    users: Mapping[int, MimiUri | None]
    departed: frozenset[int]
    problems: tuple[str, ...] = ()


class Following(Committing):
    """A room that others change."""

    __slots__ = ()

    def follow(self, event: CommitEvent, now: float) -> Followed:
        """Process another member's accepted commit.

        Raises `WrongSigner` or `Desynchronised` before anything changed if the event is not one that a member
        made for this epoch. A commit that a member made badly is followed all the same, and the result says
        what is wrong: the group goes on, and names stay what can be verified.
        """
        auth = event.auth.content
        if auth.room != self.uri or auth.epoch != self.epoch:
            raise Desynchronised(f"expected a commit of epoch {self.epoch}, got one of epoch {auth.epoch}")
        authenticate(event.auth, self._group.leaf(auth.sender))
        event.check_parts()
        policy = self._follow_policy(event)
        self._check_state(event)
        secret = self._state_secret()
        before = self._before(event)
        applied = self._group.process_commit(event.commit)
        if applied.removed_self:
            self.removed = True
            return Followed(applied.sender, applied.added, applied.removed, removed_self=True)
        problems = [*self._follow_tree(event, applied, policy), *self._check_added(applied, now)]
        self._hub_hash = auth.tree_hash
        problems += self._follow_state(event, applied, secret)
        problems += self._check_rights(applied, before)
        if applied.sender != auth.sender:
            problems.append("the commit was signed for the hub by another leaf than committed")
        self.policy = policy
        for leaf in applied.removed:
            self.problems.pop(leaf, None)
        return Followed(applied.sender, applied.added, applied.removed, False, tuple(problems))

    def adopt(self, snapshot: Snapshot) -> None:
        """Take over the hub's tree after a committer gave this member other changes than the hub.

        Only if that committer signed it and it shows every other member as this one knows them. Raises
        `Desynchronised`, with nothing changed; the next commit then seals this member's tree anew.
        """
        if snapshot.epoch != self.epoch:
            raise Desynchronised(
                f"expected the tree of epoch {self.epoch}, got that of epoch {snapshot.epoch}"
            )
        tree = open_tree(snapshot, self._group, self._hub_hash)
        shown = set(tree.leaves())
        for leaf in set(self._tree.leaves()) - {self.own_leaf}:
            if leaf not in shown or tree.secret(leaf) != self._tree.secret(leaf):
                raise Desynchronised(f"leaf {leaf} is not in the hub's tree as this member knows it")
        if policy_hash(tree) != self.policy.policy.hash:
            raise Desynchronised("the policy in the hub's tree is not the room's")
        self._tree = tree
        self._take_state(None)

    # --- before ---------------------------------------------------------------------------------------------

    def _check_state(self, event: CommitEvent) -> None:
        sealed = self._sealed_state if event.room_state is None else event.room_state
        if digest(sealed) != event.auth.content.room_state_hash:
            raise Desynchronised(
                "the committer signed another members-only state than the one that the hub sent"
            )

    def _follow_policy(self, event: CommitEvent) -> SignedPolicy:
        signed = event.policy or self.policy
        if event.policy is not None:
            self._check_policy(event.policy, event.auth.content.sender)
        if signed.policy.hash != event.auth.content.policy_hash:
            raise Desynchronised("the committer signed another policy than the one that the hub sent")
        return signed

    def _check_policy(self, new: SignedPolicy, sender: int) -> None:
        leaf = self._group.leaf(sender)
        if leaf is None:
            raise NotAllowed("the policy is signed by a leaf that there is not")
        credential = LeafIdentity.from_bytes(leaf.identity).credential
        credential.verify_pseudonym()  # or a hub and a member together could make any leaf an admin's
        try:
            new.check_succession(self.policy.policy, sender, credential.user_pseudonym, leaf.signature_key)
        except NotAllowed as error:
            why = "the policy was changed by somebody who may not, or not as it may be"
            raise NotAllowed(f"{why}: {error}") from None

    def _before(self, event: CommitEvent) -> Before:
        """Who a commit is from, and whom it removes, as they are before it."""
        commit = parse_message(event.commit)
        if not isinstance(commit, PublicCommit):
            raise Desynchronised("expected a commit as an MLS PublicMessage")
        removed = [proposal.leaf for proposal in commit.proposals if isinstance(proposal, Remove)]
        users = {leaf: self._user(leaf) for leaf in (commit.sender, *removed)}
        try:
            return Before(users, departed(self.uri, event.departures, self._leavers(removed)))
        except InvalidCommit as error:
            return Before(users, frozenset(), (f"leaf {commit.sender} sent what is no departure: {error}",))

    # --- after ----------------------------------------------------------------------------------------------

    def _follow_state(self, event: CommitEvent, applied: Applied, before: StateSecret | None) -> list[str]:
        """`before` is the secret of the state before: what is sealed under it is open to old members."""
        due = event.room_state is not None or bool(applied.removed)
        same = self._state_secret() == before
        if same and not due:
            return []
        problem = self._take_state(event.room_state)
        if not problem and same and self._sealed_state is not None:
            problem = "the members-only state is under a secret that was used before"
        if not problem and applied.removed and self._state.links:
            self._state = replace(self._state, links=())
            problem = "the members-only state keeps join links, which end with a removal"
        self._state_stale |= bool(problem)
        return [f"leaf {applied.sender}: {problem}"] if problem else []

    def _follow_tree(self, event: CommitEvent, applied: Applied, policy: SignedPolicy) -> list[str]:
        if event.member_update is None:
            if applied.added or applied.removed:
                return ["the commit adds or removes without a Tree Wrap update"]
            same = event.auth.content.tree_hash == self._tree.tree_hash
            return [] if same else ["the committer's tree is not this member's"]
        problems = []
        try:
            update = MemberUpdate.from_bytes(event.member_update)
            problems += self._check_changes(update, applied, policy)
            staged = self._tree.follow(update, epoch_secret(self._group))
        except TreeWrapError as error:
            computed = getattr(error, "staged", None)
            problems.append(f"the Tree Wrap update: {error}")
            if computed is None:
                return problems
            staged = computed
        staged.commit()
        if self._tree.tree_hash != event.auth.content.tree_hash:
            problems.append("the committer's tree hash is not the one that follows from its changes")
        if policy_hash(self._tree) != policy.policy.hash:
            problems.append("the policy in the Tree Wrap root is not the room's")
        return problems

    def _check_changes(self, update: MemberUpdate, applied: Applied, policy: SignedPolicy) -> list[str]:
        """Under the policy that comes with the commit, by which whoever it adds is shown or hidden."""
        users = ((leaf, self._user(leaf)) for leaf in applied.added)
        added = ((leaf, user) for leaf, user in users if user is not None)
        expected = expected_changes(policy.policy, applied.removed, added)
        found = {leaf: kind for leaf, kind, _ in update.leaves}
        wrong = wrong_leaves(found, expected, applied.sender)
        return [f"leaf {leaf}: the Tree Wrap update does not match the commit" for leaf in wrong]

    def _check_rights(self, applied: Applied, before: Before) -> list[str]:
        """What the hub should have refused, by the policy that members hold."""
        policy, sender = self.policy.policy, before.users[applied.sender]
        problems = list(before.problems)
        if sender is None:
            return [*problems, f"leaf {applied.sender}: its credential is malformed"]
        try:
            for leaf in applied.added:
                user = self._user(leaf) or sender
                allow = policy.allow_add if self._was_there(user, applied) else policy.allow_return
                allow(sender, user)
            for leaf in set(applied.removed) - before.departed:
                policy.allow_remove(sender, before.users[leaf] or sender)
        except NotAllowed as error:
            problems.append(f"leaf {applied.sender} did what it may not do: {error}")
        return problems

    def _was_there(self, user: MimiUri, applied: Applied) -> bool:
        """Whether a user has a leaf that a commit has not just added; asked of those with a role only."""
        if user not in self.policy.policy.privileged:
            return True
        others = self.participants().items()
        return any(who.credential.user_pseudonym == user for leaf, who in others if leaf not in applied.added)

    def _check_added(self, applied: Applied, now: float) -> list[str]:
        problems = []
        for index in applied.added:
            leaf = self._group.leaf(index)
            try:
                if leaf is not None:
                    check_leaf(leaf.identity, leaf.signature_key, now)
            except MmrError as error:
                self.problems[index] = str(error)
                problems.append(f"leaf {index}: {error}")
        return problems
