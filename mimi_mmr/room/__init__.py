"""A member's room: a real MLS group, the Tree Wrap tree, and the identities that the two together give.

Sans-IO. Requests for the hub come out, events of the hub go in. What the hub says is believed only as far as a
member signed it.
"""

from __future__ import annotations

from mimi_mmr.content import Content
from mimi_mmr.errors import Desynchronised, RemovedFromRoom, WrongSigner
from mimi_mmr.hub.messages import (
    CommitReport,
    CommitReportTBS,
    CreateRoomRequest,
    CreateRoomTBS,
    RepairKind,
    Snapshot,
    SubmitMessageRequest,
    SubmitTBS,
    WelcomeEvent,
    digest,
    sign_report,
    sign_submit,
)
from mimi_mmr.hub.policy import Identities, default_policy, sign_policy
from mimi_mmr.hub.state import group_id
from mimi_mmr.leaves import PreparedLeaf
from mimi_mmr.mls.engine import MlsGroup
from mimi_mmr.mls.former import FormerGroup
from mimi_mmr.room.committing import PendingCommit
from mimi_mmr.room.following import Following
from mimi_mmr.room.keys import (
    EXPORTER_LABEL,
    POLICY_SECRET,
    authenticate,
    epoch_secret,
    open_tree,
    policy_hash,
    policy_secret,
)
from mimi_mmr.room.told import Followed, Standing, Whois
from mimi_mmr.saved_room import VERSION as SAVED_VERSION
from mimi_mmr.saved_room import LeafProblem, SavedRoom
from mimi_mmr.uris import MimiUri
from treewrap import DEFAULT_ARITY, Change, LeafSecret, Set, Suite, TreeWrapError, WrapTree

__all__ = [
    "EXPORTER_LABEL",
    "POLICY_SECRET",
    "Followed",
    "PendingCommit",
    "Room",
    "Standing",
    "Whois",
]


class Room(Following):
    """One membership."""

    __slots__ = ()

    # --- beginning ------------------------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        uri: MimiUri,
        leaf: PreparedLeaf,
        identities: Identities = Identities.EVERYONE,
        arity: int = DEFAULT_ARITY,
    ) -> tuple[Room, CreateRoomRequest]:
        """A room of one, and the request that makes it on the hub."""
        group = leaf.client.create_group(group_id(uri))
        user = leaf.identity.credential.user_pseudonym
        policy = sign_policy(default_policy(uri, user, identities), 0, leaf.key)
        tree = WrapTree.create(Suite(arity), group_id(uri))
        changes: list[Change] = [policy_secret(policy)]
        if policy.policy.shows_identity(user):
            changes.append(Set(0, LeafSecret(leaf.ilk.reveal())))
        staged = tree.stage(changes, epoch=0, epoch_secret=epoch_secret(group))
        update, ratchet = staged.update.to_bytes(), group.ratchet_tree()
        content = CreateRoomTBS(uri, digest(ratchet), digest(update), staged.tree_hash, policy.policy.hash)
        signature = leaf.key.sign("CreateRoomTBS", content.to_bytes())
        request = CreateRoomRequest(content, signature, arity, ratchet, update, policy)
        staged.commit()
        return cls(uri, policy, group, tree, leaf, tree.tree_hash), request

    @classmethod
    def join(cls, leaf: PreparedLeaf, event: WelcomeEvent, snapshot: Snapshot) -> Room:
        """A room that somebody added this leaf to; raises `Desynchronised`, `WrongSigner`, `EngineError`.

        The committer's signature ties Welcome, tree hash and policy together; the hub supplied none of them.
        """
        auth = event.auth.content
        group = leaf.client.join(event.welcome, snapshot.ratchet_tree)
        if (group.group_id, group.epoch) != (group_id(auth.room), auth.epoch + 1):
            raise Desynchronised("the Welcome is for another room or epoch than its committer signed")
        authenticate(event.auth, group.leaf(auth.sender))
        if digest(event.welcome) != auth.welcome_hash:
            raise WrongSigner("the Welcome is not the one that its committer signed")
        tree = open_tree(snapshot, group, auth.tree_hash)
        if snapshot.policy.policy.hash != auth.policy_hash:
            raise Desynchronised("the hub's policy is not the one that the committer signed")
        if digest(snapshot.room_state) != auth.room_state_hash:
            raise Desynchronised("the hub's members-only state is not the one that the committer signed")
        room = cls(auth.room, snapshot.policy, group, tree, leaf, auth.tree_hash)
        room._check_policy_secret()
        if room._own_change():
            room.problems[room.own_leaf] = "whoever added this client set a wrong identity link key"
        if problem := room._take_state(snapshot.room_state):
            room.problems[auth.sender] = problem
        return room

    def _check_policy_secret(self) -> None:
        if policy_hash(self._tree) != self.policy.policy.hash:
            raise Desynchronised("the policy in the Tree Wrap root is not the one that the hub serves")

    # --- at rest --------------------------------------------------------------------------------------------

    def store(self) -> None:
        """Write the MLS group to the leaf's storage: after `create`, `join`, and a page of messages read."""
        if not self.removed:
            self._group.store()

    def saved(self) -> SavedRoom:
        """All that `restore` needs beside the leaf, whose MLS storage it brings up to the same epoch.

        It holds secrets in the clear: encrypt it, and write it in one transaction with the rows of that storage.
        """
        self.store()
        problems = tuple(LeafProblem.of(leaf, text) for leaf, text in sorted(self.problems.items()))
        return SavedRoom(
            SAVED_VERSION,
            self.uri,
            self.epoch,
            self.own_leaf,
            self.removed,
            self.policy,
            self._hub_hash,
            problems,
            self._tree.plain_state(),
            self._sealed_state,
            self._state,
            self._state_stale,
        )

    @classmethod
    def restore(cls, saved: SavedRoom, leaf: PreparedLeaf) -> Room:
        """The room as it was saved; `leaf.client` is over the MLS storage that was written with it.

        Raises `EngineError` if that holds no such group, `Desynchronised` if it is of another epoch, version or
        room. A room that this client was removed from knows no members any more.
        """
        if saved.version != SAVED_VERSION:
            raise Desynchronised(f"expected a room saved in version {SAVED_VERSION}, got {saved.version}")
        name = group_id(saved.room)
        group: MlsGroup = FormerGroup(name, saved.epoch, saved.own_leaf)
        if not saved.removed:
            group = leaf.client.load(name)
        if (group.epoch, group.own_leaf) != (saved.epoch, saved.own_leaf):
            raise Desynchronised(
                f"the room was saved as leaf {saved.own_leaf} in epoch {saved.epoch}, its MLS group as leaf "
                f"{group.own_leaf} in epoch {group.epoch}"
            )
        try:
            tree = WrapTree.from_plain_state(saved.wrap_tree)
        except TreeWrapError as error:
            raise Desynchronised(f"the saved Tree Wrap tree: {error}") from None
        if tree.group_id != name:
            raise Desynchronised("the saved Tree Wrap tree is another room's")
        problems = {problem.leaf: problem.text for problem in saved.problems}
        return cls(
            saved.room,
            saved.policy,
            group,
            tree,
            leaf,
            saved.hub_tree_hash,
            problems,
            saved.removed,
            saved.sealed_state,
            saved.state,
            saved.state_stale,
        )

    # --- messages -------------------------------------------------------------------------------------------

    def encrypt(self, content: Content) -> SubmitMessageRequest:
        """An application message for the hub; raises `RemovedFromRoom`."""
        if self.removed:
            raise RemovedFromRoom("this client was removed from the room")
        message = self._group.encrypt(content.padded())
        tbs = SubmitTBS(self.uri, self.epoch, self.own_leaf, digest(message))
        return sign_submit(tbs, message, self._leaf.key)

    def decrypt(self, message: bytes) -> tuple[int, Content]:
        """Sender's leaf and content; raises `EngineError`, `ParseError`."""
        sender, plaintext = self._group.decrypt(message)
        return sender, Content.from_padded(plaintext)

    def report(self, commit: bytes, kind: RepairKind) -> CommitReport:
        """Tell the hub that a commit of this epoch can't be processed; or, as an admin, have it undone."""
        content = CommitReportTBS(self.uri, self.epoch, self.own_leaf, digest(commit), kind)
        return sign_report(content, self._leaf.key)
