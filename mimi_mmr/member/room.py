"""A member's room: the MLS group, the Tree Wrap tree, and the identities that the two together show.

Sans-IO. It takes events of the hub, and makes requests for the hub. It accepts from the hub only what a member has
signed.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping

from mimi_mmr.crypto.certificates import TrustAnchors
from mimi_mmr.crypto.signing import SigningKey
from mimi_mmr.errors import Desynchronised, RemovedFromRoom, WrongSigner
from mimi_mmr.member.committing import Committer, PendingCommit, own_change
from mimi_mmr.member.departing import departing_leaf, own_departure
from mimi_mmr.member.following import Followed, Follower, authenticate
from mimi_mmr.member.intent import CommitIntent
from mimi_mmr.member.join_links import JoinLinks
from mimi_mmr.member.leaves import PreparedKeyPackage, PreparedLeaf
from mimi_mmr.member.local import LocalRoom, OpenedState
from mimi_mmr.member.member_list import MemberList
from mimi_mmr.member.members_only import MembersOnly
from mimi_mmr.member.reopening import check_order, check_undone
from mimi_mmr.member.resolving import Resolver
from mimi_mmr.member.saved import VERSION as SAVED_VERSION
from mimi_mmr.member.saved import LeafProblem, SavedRoom
from mimi_mmr.member.tree_secrets import epoch_secret, open_tree, policy_hash, policy_secret
from mimi_mmr.member.whois import Whois
from mimi_mmr.mls.after_removal import GroupAfterRemoval
from mimi_mmr.mls.engine import MlsGroup
from mimi_mmr.mls.wire import PrivateMessage
from mimi_mmr.protocol.content import Content
from mimi_mmr.protocol.credentials import ResolvedMember
from mimi_mmr.protocol.room.departures import Departure
from mimi_mmr.protocol.room.events import CommitEvent, ReportEvent, TaggedMessage, WelcomeEvent
from mimi_mmr.protocol.room.policy import Identities, SignedPolicy, default_policy, sign_policy
from mimi_mmr.protocol.room.requests import (
    CommitReport,
    CommitReportTBS,
    CreateRoomRequest,
    CreateRoomTBS,
    RepairKind,
    Snapshot,
    SubmitMessageRequest,
    SubmitTBS,
    UpdateRequest,
    digest,
    echo_tag,
    group_id,
    sign_report,
    sign_submit,
)
from mimi_mmr.uris import MimiUri
from treewrap import DEFAULT_ARITY, Change, LeafSecret, Set, Suite, TreeWrapError, WrapTree


class Room:
    """One membership, made of parts that share a `LocalRoom`.

    `members_only` is the state that members share and the hub can't read; `join_links` lets others ask to be added.
    """

    __slots__ = ("_committer", "_follower", "_local", "_resolver", "join_links", "members_only")

    def __init__(self, local: LocalRoom) -> None:
        self._local = local
        self.members_only = MembersOnly(local)
        self.join_links = JoinLinks(local)
        self._resolver = Resolver(local)
        self._committer = Committer(local, self.members_only)
        self._follower = Follower(local, self.members_only)

    # --- beginning ------------------------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        uri: MimiUri,
        leaf: PreparedLeaf,
        identities: Identities = Identities.EVERYONE,
        arity: int = DEFAULT_ARITY,
    ) -> tuple[Room, CreateRoomRequest]:
        """Make a room with this leaf as its only member, and the request that creates it on the hub."""
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
        return cls(LocalRoom(uri, leaf, group, tree, policy, tree.tree_hash)), request

    @classmethod
    def join(cls, package: PreparedKeyPackage, event: WelcomeEvent, snapshot: Snapshot) -> Room:
        """Join a room to which somebody who has this KeyPackage and its identity link key added this client.

        The committer's signature covers Welcome, tree hash and policy, so the hub can't replace any of them. The
        committer's key comes from a ratchet tree that the hub serves, so the Welcome's proof says that the
        committer is no invention of the hub's.

        Raises `WelcomeRejected`, `Desynchronised`, `WrongSigner`, `EngineError`.
        """
        event.check_proof(package.ref, package.welcome_key)
        leaf, auth = package.leaf, event.auth.content
        group = leaf.client.join(event.welcome, snapshot.ratchet_tree)
        if (group.group_id, group.epoch) != (group_id(auth.room), auth.epoch + 1):
            raise Desynchronised("the Welcome is for another room or epoch than its committer signed")
        adder = group.leaf(auth.sender)
        authenticate(event.auth, adder.signature_key if adder else None)
        if digest(event.welcome) != auth.welcome_hash:
            raise WrongSigner("the Welcome is not the one that its committer signed")
        tree = open_tree(snapshot, group, auth.tree_hash)
        if snapshot.policy.policy.hash != auth.policy_hash:
            raise Desynchronised("the hub's policy is not the one that the committer signed")
        if digest(snapshot.room_state) != auth.room_state_hash:
            raise Desynchronised("the hub's members-only state is not the one that the committer signed")
        if policy_hash(tree) != snapshot.policy.policy.hash:
            raise Desynchronised("the policy in the Tree Wrap root is not the one that the hub serves")
        local = LocalRoom(auth.room, leaf, group, tree, snapshot.policy, auth.tree_hash)
        room = cls(local)
        if own_change(local):
            local.reported[group.own_leaf] = "whoever added this client set a wrong identity link key"
        if problem := room.members_only.take(snapshot.room_state):
            local.reported[auth.sender] = problem
        return room

    # --- at rest --------------------------------------------------------------------------------------------

    def store(self) -> None:
        """Write the MLS group to the leaf's storage: after `create`, `join`, and a page of messages read."""
        if not self.removed:
            self._local.group.store()

    def saved(self) -> SavedRoom:
        """Return all that `restore` needs besides the leaf, whose MLS storage it brings up to the same epoch.

        It holds secrets in plaintext: encrypt it, and write it in one transaction with the rows of that storage.
        """
        self.store()
        local, held = self._local, self._local.members_only
        problems = tuple(LeafProblem.of(leaf, text) for leaf, text in sorted(self.problems.items()))
        return SavedRoom(
            SAVED_VERSION,
            local.uri,
            local.group.epoch,
            local.group.own_leaf,
            local.removed,
            local.policy,
            local.hub_tree_hash,
            problems,
            local.tree.plain_state(),
            held.sealed,
            held.state,
            held.stale,
        )

    @classmethod
    def restore(cls, saved: SavedRoom, leaf: PreparedLeaf) -> Room:
        """Restore a saved room; `leaf.client` uses the MLS storage that was written with it.

        Raises `EngineError` if that storage has no such group, `Desynchronised` if it is of another epoch, version
        or room. A room that this client was removed from has no member list any more.
        """
        if saved.version != SAVED_VERSION:
            raise Desynchronised(f"expected a room saved in version {SAVED_VERSION}, got {saved.version}")
        name = group_id(saved.room)
        group: MlsGroup = GroupAfterRemoval(name, saved.epoch, saved.own_leaf)
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
        return cls(
            LocalRoom(
                saved.room,
                leaf,
                group,
                tree,
                saved.policy,
                saved.hub_tree_hash,
                OpenedState(saved.sealed_state, saved.state, saved.state_stale),
                {problem.leaf: problem.text for problem in saved.problems},
                saved.removed,
            )
        )

    # --- what it is -----------------------------------------------------------------------------------------

    @property
    def uri(self) -> MimiUri:
        """The room's URI."""
        return self._local.uri

    @property
    def epoch(self) -> int:
        """The MLS epoch."""
        return self._local.group.epoch

    @property
    def own_leaf(self) -> int:
        """This client's leaf index."""
        return self._local.group.own_leaf

    @property
    def signing_key(self) -> SigningKey:
        """This leaf's signature key, for requests to the hub."""
        return self._local.leaf.key

    @property
    def policy(self) -> SignedPolicy:
        """The room's policy."""
        return self._local.policy

    @property
    def tree_hash(self) -> bytes:
        """The hash of every member's Tree Wrap tree (32 bytes)."""
        return self._local.tree.tree_hash

    @property
    def diverged(self) -> bool:
        """Whether the hub has another tree than this member computed: a committer cheated; see `adopt`."""
        return self._local.diverged

    @property
    def removed(self) -> bool:
        """Whether this client was removed from the room."""
        return self._local.removed

    @property
    def problems(self) -> Mapping[int, str]:
        """What is wrong with members, by leaf."""
        return {**self._local.members.problems, **self._local.reported}

    @property
    def reported(self) -> Mapping[int, str]:
        """What is wrong with members besides credentials that do not parse. This does not read the member list."""
        return dict(self._local.reported)

    # --- who is in it ---------------------------------------------------------------------------------------

    @property
    def members(self) -> MemberList:
        """The members of this epoch, as pseudonyms."""
        return self._local.members

    def knows(self, other: Room, leaf: int) -> bool:
        """Say whether the member at a leaf of `other`, which is the same room in another state, is in this one too.

        Members are compared by their signature keys.
        """
        return other.members.signature_key(leaf) in self.members.signature_keys

    def who(
        self, trust: TrustAnchors, now: float, progress: Callable[[int, int], None] | None = None
    ) -> list[Whois]:
        """Resolve every member whose credential parses; `progress` gets (done, total) after each of them."""
        return self._resolver.who(trust, now, progress)

    def whois(self, leaf: int, trust: TrustAnchors, now: float) -> Whois:
        """Resolve one member; raise `RoomError` if there is none at this leaf, or its credential is malformed."""
        return self._resolver.whois(leaf, trust, now)

    def resolve(self, leaf: int, trust: TrustAnchors, now: float) -> ResolvedMember:
        """Return the person behind a leaf; raise a subclass of `IdentityError`, or `RoomError`."""
        return self._resolver.resolve(leaf, trust, now)

    # --- changing it ----------------------------------------------------------------------------------------

    def stage(self, intent: CommitIntent, now: float) -> PendingCommit:
        """Make a commit that does all of an intent; raise `EngineError` or `RoomError`. See `Committer.stage`."""
        return self._committer.stage(intent, now)

    def pending(self, request: UpdateRequest) -> PendingCommit:
        """Return a commit that was pending when the process ended; raise `EngineError` if there is none such."""
        return self._committer.pending(request)

    def follow(self, event: CommitEvent, now: float) -> Followed:
        """Process another member's accepted commit. See `Follower.follow` for what it raises and returns."""
        return self._follower.follow(event, now)

    def adopt(self, snapshot: Snapshot) -> None:
        """Take over the hub's Tree Wrap tree; raise `Desynchronised` if it is not valid. See `Follower.adopt`."""
        self._follower.adopt(snapshot)

    def departure(self) -> Departure:
        """Sign this member's departure, with which any member may remove it; send it as `ContentKind.DEPARTURE`.

        It can't be withdrawn while this leaf is in the room.
        """
        return own_departure(self._local)

    def departing(self, departure: Departure) -> int:
        """Return the leaf that a departure removes; raise `RoomError` if it is no other member's, or not valid."""
        return departing_leaf(self._local, departure)

    def report(self, commit: bytes, kind: RepairKind) -> CommitReport:
        """Make the report that a commit of this epoch can't be processed; or, as an admin, the order to undo it."""
        content = CommitReportTBS(self.uri, self.epoch, self.own_leaf, digest(commit), kind)
        return sign_report(content, self.signing_key)

    def check_undone(self, event: ReportEvent, commit: bytes) -> None:
        """Check an admin's order to undo a commit that can't be processed here. See `reopening.check_undone`."""
        check_undone(self._local, event, commit)

    def check_order(self, event: ReportEvent) -> None:
        """Check an admin's order to undo the commit that began this epoch. See `reopening.check_order`."""
        check_order(self._local, event)

    # --- messages -------------------------------------------------------------------------------------------

    def encrypt(self, content: Content) -> SubmitMessageRequest:
        """Make an application message for the hub; raise `RemovedFromRoom`."""
        if self.removed:
            raise RemovedFromRoom("this client was removed from the room")
        message = self._local.group.encrypt(content.padded())
        message_hash = digest(message)
        tag = echo_tag(self._local.leaf.echo_key, message_hash)
        tbs = SubmitTBS(self.uri, self.epoch, self.own_leaf, message_hash, tag)
        return sign_submit(tbs, message, self.signing_key)

    def is_own(self, message: TaggedMessage) -> bool:
        """Say whether this leaf sent a message, from this or another copy of its state.

        Any member can make a message that names another's leaf as its sender, or submit one again. Nobody else can
        make the echo tag.
        """
        expected = echo_tag(self._local.leaf.echo_key, digest(message.message.encoded))
        return hmac.compare_digest(message.echo_tag, expected)

    def decrypt(self, message: PrivateMessage) -> tuple[int, Content]:
        """Return the sender's leaf and the content; raise `EngineError`, `ParseError`."""
        sender, plaintext = self._local.group.decrypt(message)
        return sender, Content.from_padded(plaintext)
