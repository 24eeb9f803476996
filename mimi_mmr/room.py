"""A member's room: a real MLS group, the Tree Wrap tree, and the identities that the two together give.

Sans-IO. Requests for the hub come out, events of the hub go in. What the hub says is believed only as far as a
member signed it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from mimi_mmr.certificates import TrustAnchors
from mimi_mmr.content import Content
from mimi_mmr.credentials import LeafIdentity, ResolvedMember, resolve
from mimi_mmr.errors import (
    Desynchronised,
    IdentityError,
    InvalidCommit,
    JoinRefused,
    MmrError,
    NotAllowed,
    ParseError,
    RemovedFromRoom,
    RoomError,
    StateRejected,
    WrongSigner,
)
from mimi_mmr.hub.changes import expected_changes, wrong_leaves
from mimi_mmr.hub.departures import Departure, Leaver, departed, departures_hash, sign_departure
from mimi_mmr.hub.links import (
    MAX_USES,
    JoinRequest,
    LinkKind,
    LinkOrder,
    LinkOrderTBS,
    sign_link_order,
)
from mimi_mmr.hub.messages import (
    CommitAuth,
    CommitAuthTBS,
    CommitEvent,
    CommitReport,
    CommitReportTBS,
    CreateRoomRequest,
    CreateRoomTBS,
    RepairKind,
    Snapshot,
    SubmitMessageRequest,
    SubmitTBS,
    UpdateRequest,
    WelcomeEvent,
    digest,
    sign_commit,
    sign_report,
    sign_submit,
)
from mimi_mmr.hub.policy import Identities, Role, RoomPolicy, SignedPolicy, default_policy, sign_policy
from mimi_mmr.hub.state import group_id
from mimi_mmr.keypackages import OpenKeyPackage, check_leaf, check_set, pseudonym_of
from mimi_mmr.labels import SigningKey
from mimi_mmr.leaves import PreparedLeaf
from mimi_mmr.links import JoinLink, LinkSeed, LiveLink, open_join_request
from mimi_mmr.mls.engine import Applied, MlsGroup, StagedCommit
from mimi_mmr.mls.former import FormerGroup
from mimi_mmr.mls.wire import LeafNode, PublicCommit, Remove, parse_message
from mimi_mmr.room_state import STATE_SECRET, MembersOnlyState, StateSecret, open_state, seal_state
from mimi_mmr.saved_room import VERSION as SAVED_VERSION
from mimi_mmr.saved_room import LeafProblem, SavedRoom
from mimi_mmr.secret import IdentityLinkKey
from mimi_mmr.uris import MimiUri
from treewrap import (
    Blank,
    Change,
    EpochSecret,
    LeafSecret,
    MemberUpdate,
    Rebuild,
    RoomSecret,
    Set,
    SetRoomSecret,
    Staged,
    Suite,
    TreeWrapError,
    WrapTree,
)
from treewrap import StagedCommit as StagedTree

EXPORTER_LABEL = b"TreeWrap"
POLICY_SECRET = "policy"  # noqa: S105  # the name of a place in the Tree Wrap root, not a password


class Standing(enum.Enum):
    """What is known of the person behind a pseudonym."""

    VERIFIED = "verified"
    UNVERIFIED = "unverified"
    HIDDEN = "hidden"


@dataclass(frozen=True, slots=True)
class Whois:
    """A member as another member sees it. `why` says what failed for one that is unverified."""

    leaf: int
    user: MimiUri
    client: MimiUri
    role: Role
    standing: Standing
    member: ResolvedMember | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Followed:
    """What an accepted commit did, and what was wrong with it, if a member or the hub cheated."""

    sender: int
    added: tuple[int, ...]
    removed: tuple[int, ...]
    removed_self: bool
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PendingCommit:
    """A commit on its way to the hub. `accept()` when the hub said yes, `reject()` when it did not.

    `request` is what to keep of it: `Room.pending` makes the same again of it in another process.
    """

    request: UpdateRequest
    _room: Room
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
class _Beside:
    """What goes with a commit beside MLS and tree, where it changes."""

    policy: SignedPolicy | None
    departures: tuple[Departure, ...]
    room_state: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Before:
    """Whom a commit concerns: their user pseudonyms, who of the removed asked for it, and what is wrong there."""

    users: Mapping[int, MimiUri | None]
    departed: frozenset[int]
    problems: tuple[str, ...] = ()


@dataclass(slots=True)
class Room:
    """One membership."""

    uri: MimiUri
    policy: SignedPolicy
    _group: MlsGroup
    _tree: WrapTree
    _leaf: PreparedLeaf
    _hub_hash: bytes
    problems: dict[int, str] = field(default_factory=dict)
    removed: bool = False
    _sealed_state: bytes | None = field(default=None, repr=False)
    _state: MembersOnlyState = field(default_factory=MembersOnlyState, repr=False)
    _state_stale: bool = False  # sealed badly by somebody: the next commit of ours seals it anew

    # --- beginning -----------------------------------------------------------------------------------

    @classmethod
    def create(
        cls, uri: MimiUri, leaf: PreparedLeaf, identities: Identities = Identities.EVERYONE, arity: int = 16
    ) -> tuple[Room, CreateRoomRequest]:
        """A room of one, and the request that makes it on the hub."""
        group = leaf.client.create_group(group_id(uri))
        user = leaf.identity.credential.user_pseudonym
        policy = sign_policy(default_policy(uri, user, identities), 0, leaf.key)
        tree = WrapTree.create(Suite(arity), group_id(uri))
        changes: list[Change] = [_policy_secret(policy)]
        if policy.policy.shows_identity(user):
            changes.append(Set(0, LeafSecret(leaf.ilk.reveal())))
        staged = tree.stage(changes, epoch=0, epoch_secret=_epoch_secret(group))
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
        _authenticate(event.auth, group.leaf(auth.sender))
        if digest(event.welcome) != auth.welcome_hash:
            raise WrongSigner("the Welcome is not the one that its committer signed")
        tree = _open_tree(snapshot, group, auth.tree_hash)
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

    # --- at rest -------------------------------------------------------------------------------------

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

    def pending(self, request: UpdateRequest) -> PendingCommit:
        """A commit of this room's that was on its way when the process ended, to be accepted or rejected.

        Raises `EngineError` if it is not the one that the MLS storage keeps for this epoch.
        """
        mls = self._group.staged_commit(request.commit, request.welcome)
        tree: Staged | None = None
        try:
            if request.member_update is not None:
                tree = self._tree.follow(request.member_update, _staged_secret(mls, self._group))
        except TreeWrapError as error:
            mls.reject()
            raise RoomError(f"the commit can't be taken up again: {error}") from error
        return PendingCommit(request, self, mls, tree, request.policy or self.policy)

    # --- reading -------------------------------------------------------------------------------------

    @property
    def epoch(self) -> int:
        """The MLS epoch."""
        return self._group.epoch

    @property
    def own_leaf(self) -> int:
        """This client's leaf index."""
        return self._group.own_leaf

    @property
    def tree_hash(self) -> bytes:
        """What every member's Tree Wrap tree hashes to (32 bytes)."""
        return self._tree.tree_hash

    @property
    def diverged(self) -> bool:
        """Whether the hub keeps another tree than this member computed: a committer cheated; see `adopt`."""
        return self._tree.tree_hash != self._hub_hash

    @property
    def state(self) -> MembersOnlyState:
        """What members share: name, topic, join links; as it was last if what came since does not open."""
        return self._state

    @property
    def signing_key(self) -> SigningKey:
        """This leaf's signature key, for requests to the hub."""
        return self._leaf.key

    def participants(self) -> dict[int, LeafIdentity]:
        """Leaf -> pseudonymous identity, of every member whose credential parses."""
        found = {}
        for index, leaf in self._group.leaves().items():
            try:
                found[index] = LeafIdentity.from_bytes(leaf.identity)
            except ParseError as error:
                self.problems.setdefault(index, f"the credential is malformed: {error}")
        return found

    def who(
        self, trust: TrustAnchors, now: float, progress: Callable[[int, int], None] | None = None
    ) -> list[Whois]:
        """Every member, resolved as far as the room's policy and their credentials allow.

        `progress` is told after each of them how many are done, and of how many.
        """
        known = sorted(self.participants().items())
        found = []
        for leaf, identity in known:
            found.append(self._whois(leaf, identity, trust, now))
            if progress is not None:
                progress(len(found), len(known))
        return found

    def whois(self, leaf: int, trust: TrustAnchors, now: float) -> Whois:
        """One member; raises `RoomError` if there is none at this leaf, or its credential is malformed."""
        identity = self._identity(leaf)
        if identity is None:
            raise RoomError(f"no member at leaf {leaf} whose credential can be read")
        return self._whois(leaf, identity, trust, now)

    def resolve(self, leaf: int, trust: TrustAnchors, now: float) -> ResolvedMember:
        """The person behind a leaf; raises a subclass of `IdentityError` that names the leaf, or `RoomError`."""
        node = self._group.leaf(leaf)
        if node is None:
            raise RoomError(f"no member at leaf {leaf}")
        secret = self._secret(leaf)
        if secret is None:
            raise RoomError(f"leaf {leaf} does not show its identity")
        return self._resolve(leaf, LeafIdentity.from_bytes(node.identity), secret, trust, now)

    def _resolve(
        self, leaf: int, identity: LeafIdentity, secret: LeafSecret, trust: TrustAnchors, now: float
    ) -> ResolvedMember:
        key, ilk = self._signature_key(leaf), IdentityLinkKey(secret.reveal())
        try:
            identity.check_place(key)
            return resolve(identity.credential, ilk, key, trust, now)
        except IdentityError as error:
            raise type(error)(f"leaf {leaf}: {error}") from None

    def _signature_key(self, leaf: int) -> bytes:
        """Of the member at this leaf; nobody's if there is none."""
        node = self._group.leaf(leaf)
        return node.signature_key if node else b""

    def _secret(self, leaf: int) -> LeafSecret | None:
        """What the Tree Wrap tree holds for a leaf; None if it is blank there."""
        try:
            return self._tree.secret(leaf)
        except KeyError:
            return None

    def _whois(self, leaf: int, identity: LeafIdentity, trust: TrustAnchors, now: float) -> Whois:
        credential = identity.credential
        user, client = credential.user_pseudonym, credential.client_pseudonym
        role = self.policy.policy.role(user)
        secret = self._secret(leaf)
        try:
            if secret is None:
                self._check_hidden(leaf, identity, now)
                return Whois(leaf, user, client, role, Standing.HIDDEN)
            member = self._resolve(leaf, identity, secret, trust, now)
        except MmrError as error:
            return Whois(leaf, user, client, role, Standing.UNVERIFIED, why=str(error))
        return Whois(leaf, user, client, role, Standing.VERIFIED, member)

    def _check_hidden(self, leaf: int, identity: LeafIdentity, now: float) -> None:
        """A member without a link key in the tree: its pseudonym must hold, and the policy must hide its name."""
        try:
            identity.check_place(self._signature_key(leaf))
            identity.credential.verify(now)
        except IdentityError as error:
            raise type(error)(f"leaf {leaf}: {error}") from None
        if self.policy.policy.shows_identity(identity.credential.user_pseudonym):
            raise IdentityError(
                f"leaf {leaf}: its identity link key is missing, which the policy wants shown"
            )

    # --- changing ------------------------------------------------------------------------------------

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
        identity where the policy hides it, which can't be taken back.
        """
        if self.removed:
            raise RemovedFromRoom("this client was removed from the room")
        remove = sorted({*remove, *map(self.departing, departures)})
        signed = sign_policy(policy, self.own_leaf, self._leaf.key) if policy else self.policy
        mls = self._group.stage_commit([package.key_package for package in add], remove)
        try:
            sealed, changes = self._seal_state(mls.epoch, state, removes=bool(remove))
            changes += self._changes(mls, add, remove, signed if policy or remove or self.diverged else None)
            changes += self._own_change(reveal=reveal)
            tree = self._stage_tree(mls, changes) if changes or add else None
        except (MmrError, TreeWrapError, ValueError) as error:
            mls.reject()  # or nothing could be staged ever after
            raise RoomError(f"the commit can't be made: {error}") from error
        beside = _Beside(signed if policy else None, tuple(departures), sealed)
        return PendingCommit(self._request(mls, tree, beside), self, mls, tree, signed)

    def _request(self, mls: StagedCommit, tree: StagedTree | None, beside: _Beside) -> UpdateRequest:
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

    def _seal_state(
        self, epoch: int, state: MembersOnlyState | None, *, removes: bool
    ) -> tuple[bytes | None, list[Change]]:
        """The members-only state sealed for the coming epoch, if need be, with the room secret that it takes."""
        stale = self._sealed_state is not None and (removes or self._state_stale)
        if state is None and not stale:
            return None, []
        state = state or self._state
        state = replace(state, links=()) if removes else state
        secret = StateSecret.generate()
        change = SetRoomSecret(STATE_SECRET, RoomSecret(secret.reveal()))
        return seal_state(state, secret, self.uri, epoch), [change]

    def _state_secret(self) -> StateSecret | None:
        try:
            return StateSecret(self._tree.room_secret(STATE_SECRET).reveal())
        except KeyError:
            return None

    def _open_state(self, sealed: bytes) -> MembersOnlyState:
        secret = self._state_secret()
        if secret is None:
            raise StateRejected("the Tree Wrap root has no secret for the members-only state")
        return open_state(sealed, secret, self.uri)

    def _take_state(self, sealed: bytes | None) -> str:
        """Take over what a commit or a snapshot brought, or check what there is; what is wrong with it, or ""."""
        if sealed is not None:
            self._sealed_state = sealed
        problem = ""
        if self._sealed_state is not None:
            try:
                self._state = self._open_state(self._sealed_state)
            except StateRejected as error:
                problem = str(error)
        self._state_stale = bool(problem) or (self._state_stale and sealed is None)
        return problem

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

    def _changes(
        self,
        mls: StagedCommit,
        add: Sequence[OpenKeyPackage],
        remove: Sequence[int],
        policy: SignedPolicy | None,
    ) -> list[Change]:
        changes: list[Change] = [Blank(leaf) for leaf in remove]
        for leaf, package in zip(mls.added, add, strict=True):
            if self.policy.policy.shows_identity(pseudonym_of([package])):
                changes.append(Set(leaf, LeafSecret(package.identity_link_key)))
        if policy is not None:
            changes.append(_policy_secret(policy))  # a removal replaces every room secret: keep this one
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
        secret = _staged_secret(mls, self._group)
        return self._tree.stage(changes, epoch=mls.epoch, epoch_secret=secret)

    # --- following -----------------------------------------------------------------------------------

    def follow(self, event: CommitEvent, now: float) -> Followed:
        """Process another member's accepted commit.

        Raises `WrongSigner` or `Desynchronised` before anything changed if the event is not one that a member
        made for this epoch. A commit that a member made badly is followed all the same, and the result says
        what is wrong: the group goes on, and names stay what can be verified.
        """
        auth = event.auth.content
        if auth.room != self.uri or auth.epoch != self.epoch:
            raise Desynchronised(f"expected a commit of epoch {self.epoch}, got one of epoch {auth.epoch}")
        _authenticate(event.auth, self._group.leaf(auth.sender))
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
        tree = _open_tree(snapshot, self._group, self._hub_hash)
        shown = set(tree.leaves())
        for leaf in set(self._tree.leaves()) - {self.own_leaf}:
            if leaf not in shown or tree.secret(leaf) != self._tree.secret(leaf):
                raise Desynchronised(f"leaf {leaf} is not in the hub's tree as this member knows it")
        if _policy_hash(tree) != self.policy.policy.hash:
            raise Desynchronised("the policy in the hub's tree is not the room's")
        self._tree = tree

    def _check_state(self, event: CommitEvent) -> None:
        sealed = self._sealed_state if event.room_state is None else event.room_state
        if digest(sealed) != event.auth.content.room_state_hash:
            raise Desynchronised(
                "the committer signed another members-only state than the one that the hub sent"
            )

    def _follow_state(self, event: CommitEvent, applied: Applied, before: StateSecret | None) -> list[str]:
        """`before` is the secret of the state before: to seal another under it would leave it to old members."""
        problem = self._take_state(event.room_state)
        if not problem and event.room_state is not None and self._state_secret() == before:
            problem = "the members-only state is under a secret that was used before"
        if not problem and applied.removed and self._state.links:
            self._state = replace(self._state, links=())
            problem = "the members-only state keeps join links, which end with a removal"
        self._state_stale |= bool(problem)
        return [f"leaf {applied.sender}: {problem}"] if problem else []

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

    def _follow_tree(self, event: CommitEvent, applied: Applied, policy: SignedPolicy) -> list[str]:
        if event.member_update is None:
            if applied.added or applied.removed:
                return ["the commit adds or removes without a Tree Wrap update"]
            same = event.auth.content.tree_hash == self._tree.tree_hash
            return [] if same else ["the committer's tree is not this member's"]
        problems = []
        try:
            update = MemberUpdate.from_bytes(event.member_update)
            problems += self._check_changes(update, applied)
            staged = self._tree.follow(update, _epoch_secret(self._group))
        except TreeWrapError as error:
            computed = getattr(error, "staged", None)
            problems.append(f"the Tree Wrap update: {error}")
            if computed is None:
                return problems
            staged = computed
        staged.commit()
        if self._tree.tree_hash != event.auth.content.tree_hash:
            problems.append("the committer's tree hash is not the one that follows from its changes")
        if _policy_hash(self._tree) != policy.policy.hash:
            problems.append("the policy in the Tree Wrap root is not the room's")
        return problems

    def _check_changes(self, update: MemberUpdate, applied: Applied) -> list[str]:
        """Under the policy that was in force when the commit was made."""
        users = ((leaf, self._user(leaf)) for leaf in applied.added)
        added = ((leaf, user) for leaf, user in users if user is not None)
        expected = expected_changes(self.policy.policy, applied.removed, added)
        found = {leaf: kind for leaf, kind, _ in update.leaves}
        wrong = wrong_leaves(found, expected, applied.sender)
        return [f"leaf {leaf}: the Tree Wrap update does not match the commit" for leaf in wrong]

    def _identity(self, leaf: int) -> LeafIdentity | None:
        """Who is at a leaf; None if there is nobody, or a credential that does not parse."""
        node = self._group.leaf(leaf)
        try:
            return LeafIdentity.from_bytes(node.identity) if node else None
        except ParseError:
            return None

    def _user(self, leaf: int) -> MimiUri | None:
        """The user pseudonym at a leaf; None as for `_identity`."""
        identity = self._identity(leaf)
        return identity.credential.user_pseudonym if identity else None

    def _before(self, event: CommitEvent) -> _Before:
        """Who a commit is from, and whom it removes, as they are before it."""
        commit = parse_message(event.commit)
        if not isinstance(commit, PublicCommit):
            raise Desynchronised("expected a commit as an MLS PublicMessage")
        removed = [proposal.leaf for proposal in commit.proposals if isinstance(proposal, Remove)]
        users = {leaf: self._user(leaf) for leaf in (commit.sender, *removed)}
        try:
            return _Before(users, departed(self.uri, event.departures, self._leavers(removed)))
        except InvalidCommit as error:
            return _Before(users, frozenset(), (f"leaf {commit.sender} sent what is no departure: {error}",))

    def _check_rights(self, applied: Applied, before: _Before) -> list[str]:
        """What the hub should have refused, by the policy that members hold."""
        policy, sender = self.policy.policy, before.users[applied.sender]
        problems = list(before.problems)
        if sender is None:
            return [*problems, f"leaf {applied.sender}: its credential is malformed"]
        try:
            for leaf in applied.added:
                policy.allow_add(sender, self._user(leaf) or sender)
            for leaf in set(applied.removed) - before.departed:
                policy.allow_remove(sender, before.users[leaf] or sender)
        except NotAllowed as error:
            problems.append(f"leaf {applied.sender} did what it may not do: {error}")
        return problems

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

    def report(self, commit: bytes, kind: RepairKind) -> CommitReport:
        """Tell the hub that a commit of this epoch can't be processed; or, as an admin, have it undone."""
        content = CommitReportTBS(self.uri, self.epoch, self.own_leaf, digest(commit), kind)
        return sign_report(content, self._leaf.key)

    # --- join links ----------------------------------------------------------------------------------

    def make_link(self, expiry: int, uses: int) -> LiveLink:
        """A link that lets `uses` people ask to join until `expiry` (seconds); raises `NotAllowed`.

        It lives once it stands in the members-only state (`stage(state=…)`), and then the hub has its order
        (`link_order`); that way round, or a request might come that no member can open.
        """
        credential = self._leaf.identity.credential
        self.policy.policy.allow_invite(credential.user_pseudonym)
        if not 0 < uses <= MAX_USES:
            raise NotAllowed(f"a join link is for 1 to {MAX_USES} uses, not {uses}")
        return LiveLink(LinkSeed.generate().reveal(), credential.client_pseudonym, expiry, uses)

    def join_link(self, live: LiveLink) -> JoinLink:
        """What to give to people."""
        return live.link(self.uri, self.policy.policy.identities)

    def link_order(self, live: LiveLink, kind: LinkKind = LinkKind.CREATE) -> LinkOrder:
        """Tell the hub of a link, or revoke it; for the room's current epoch."""
        link = self.join_link(live)
        key = link.signing_key.public
        content = LinkOrderTBS(
            self.uri, self.epoch, self.own_leaf, kind, link.id, key, live.expiry, live.uses_left
        )
        return sign_link_order(content, self._leaf.key)

    def open_join_request(self, event: JoinRequest, now: float) -> list[OpenKeyPackage]:
        """The KeyPackages of somebody who asks to join by one of the room's links, to be added in one commit.

        Raises `JoinRefused`; `IdentityError`, `ParseError` or `InvalidCommit` if they are not a sound set. Stage the Add with
        `state_after_join`, which counts the use: the hub's count is its own.
        """
        live, link = self._live_link(event)
        live.check(now)
        event.verify(link.signing_key.public)
        packages = open_join_request(link, event.content.box)
        leaves = check_set([package.key_package for package in packages], now)
        present = {identity.credential.client_pseudonym for identity in self.participants().values()}
        if present & {leaf.credential.client_pseudonym for leaf in leaves}:
            raise JoinRefused("whoever asks to join has been added already")
        return list(packages)

    def state_after_join(self, event: JoinRequest) -> MembersOnlyState:
        """The members-only state with one use of the request's link less; raises `JoinRefused`."""
        live, _ = self._live_link(event)
        links = (one.used() if one == live else one for one in self._state.links)
        return replace(self._state, links=tuple(one for one in links if one.uses_left))

    def _live_link(self, event: JoinRequest) -> tuple[LiveLink, JoinLink]:
        for live in self._state.links:
            link = self.join_link(live)
            if (event.content.room, event.content.link_id) == (self.uri, link.id):
                return live, link
        raise JoinRefused("a request to join by none of the room's links")

    # --- messages ------------------------------------------------------------------------------------

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

    # --- checks --------------------------------------------------------------------------------------

    def _check_policy_secret(self) -> None:
        if _policy_hash(self._tree) != self.policy.policy.hash:
            raise Desynchronised("the policy in the Tree Wrap root is not the one that the hub serves")


def _epoch_secret(group: MlsGroup) -> EpochSecret:
    return EpochSecret(group.export_secret(EXPORTER_LABEL, group.group_id, 32))


def _staged_secret(mls: StagedCommit, group: MlsGroup) -> EpochSecret:
    return EpochSecret(mls.export_secret(EXPORTER_LABEL, group.group_id, 32))


def _policy_hash(tree: WrapTree) -> bytes:
    try:
        return tree.room_secret(POLICY_SECRET).reveal()
    except (KeyError, TreeWrapError):
        return b""


def _policy_secret(policy: SignedPolicy) -> SetRoomSecret:
    return SetRoomSecret(POLICY_SECRET, RoomSecret(policy.policy.hash))


def _authenticate(auth: CommitAuth, leaf: LeafNode | None) -> None:
    if leaf is None:
        raise WrongSigner(f"no member at leaf {auth.content.sender}, which the commit says it is from")
    auth.verify(leaf.signature_key)


def _open_tree(snapshot: Snapshot, group: MlsGroup, tree_hash: bytes) -> WrapTree:
    try:
        return WrapTree.open(snapshot.public_tree, _epoch_secret(group), tree_hash, epoch=group.epoch)
    except TreeWrapError as error:
        raise Desynchronised(f"the hub's Tree Wrap tree: {error}") from None
