"""The hub's state machine for a minimal metadata room: requests in, staged changes and events out.

Sans-IO: no clock, socket or database. Every check of a request comes before any change. The result is a staged
value that the caller stores in one transaction and then commits to memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field

from mimi_mmr.errors import (
    HubRefusal,
    IdentityError,
    InvalidCommit,
    NotAllowed,
    ParseError,
    TreeMismatch,
    UnknownSender,
    WrongEpoch,
    WrongSigner,
)
from mimi_mmr.hub.state import EpochId, HubRoom, Member, Outgoing, TreeRows, outgoing
from mimi_mmr.mls.ratchet.tree import RatchetTree, TreeChange
from mimi_mmr.mls.wire import (
    LeafNode,
    PublicCommit,
    WelcomeMessage,
    parse_application,
    parse_commit,
    parse_message,
)
from mimi_mmr.protocol.key_packages import MAX_CLIENTS, REQUEST_SKEW, check_leaf, check_lifetime
from mimi_mmr.protocol.room.departures import Leaver, departed
from mimi_mmr.protocol.room.events import (
    ApplicationEvent,
    CommitEvent,
    EventKind,
    ReportEvent,
    WelcomeEvent,
)
from mimi_mmr.protocol.room.policy import Role, RoomPolicy, SignedPolicy
from mimi_mmr.protocol.room.reopening import check_reopening, users_that_count
from mimi_mmr.protocol.room.requests import (
    CommitAuth,
    CommitAuthTBS,
    CommitReport,
    CreateRoomRequest,
    SnapshotRequest,
    SubmitMessageRequest,
    SubmitTBS,
    UpdateRequest,
    digest,
    group_id,
)
from mimi_mmr.protocol.room.tree_changes import (
    check_member_update,
    check_rebuilt,
    expected_changes,
    wrong_leaves,
)
from mimi_mmr.uris import Kind, MimiUri
from treewrap import ChangeKind, PublicTree, StagedPublic, Suite, TreeUpdate, TreeWrapError

SNAPSHOT_CLOCK_SKEW = REQUEST_SKEW


@dataclass(frozen=True, slots=True)
class NewRoom:
    """A room about to be stored."""

    state: HubRoom
    rows: TreeRows


@dataclass(frozen=True, slots=True)
class AcceptedCommit:
    """A commit that passed every check. Call `commit()` to update the state in memory after the store has it."""

    state: HubRoom
    epoch: int
    rows: TreeRows
    policy: SignedPolicy
    sealed_state: bytes | None = field(repr=False)
    auth: CommitAuth
    events: tuple[Outgoing, ...]
    _change: TreeChange
    _wrap: StagedPublic | None
    _added: tuple[tuple[int, Member], ...]

    def commit(self) -> None:
        """Make the next epoch the current one."""
        self._change.commit()
        if self._wrap is not None:
            self._wrap.commit()
        for leaf in self._change.removed:
            del self.state.members[leaf]
        self.state.members.update(self._added)
        self.state.epoch = self.epoch
        self.state.commit_hash = self.commit_hash
        self.state.policy = self.policy
        self.state.sealed_state = self.sealed_state

    @property
    def commit_hash(self) -> bytes:
        """The hash of the MLS commit (32 bytes)."""
        return self.auth.content.commit_hash

    @property
    def id(self) -> EpochId:
        """Which epoch it begins."""
        return EpochId(self.epoch, self.commit_hash)

    @property
    def ends_links(self) -> bool:
        """Whether this commit ends the room's join links: the members that it removes know them."""
        return bool(self._change.removed)


def check_reported(current: EpochId, report: CommitReport) -> None:
    """Check that a report is about the commit that began the current epoch; raise `WrongEpoch` or `HubRefusal`."""
    if report.content.epoch + 1 != current.number:
        raise WrongEpoch(current.number)
    if report.content.commit_hash != current.commit_hash:
        raise HubRefusal("the report names another commit than the one that began this epoch")


class HubMode:
    """The rules of minimal metadata rooms, for the hub of one provider domain."""

    def __init__(self, domain: str, reachable: Container[str] | None = None) -> None:
        """Make the rules for rooms at `domain`, with members at `reachable` provider domains (None: any)."""
        self.domain = domain
        self._reachable = reachable

    # --- create --------------------------------------------------------------------------------------

    def create(self, request: CreateRoomRequest, now: float) -> NewRoom:
        """Check a new room, whose creator is at leaf 0; raise a subclass of `HubRefusal` or `IdentityError`."""
        room = request.content.room
        if room.domain != self.domain or room.kind is not Kind.ROOM:
            raise NotAllowed(f"rooms here have URIs of {self.domain}")
        ratchet = RatchetTree.from_bytes(request.ratchet_tree)
        if sorted(ratchet.leaves) != [0]:
            raise InvalidCommit("a new room has exactly one leaf, at index 0")
        ratchet.verify(group_id(room))
        leaf = ratchet.leaves[0]
        request.verify(leaf.signature_key)
        identity = check_leaf(leaf.identity, leaf.signature_key, now)
        creator = Member.of(leaf, identity)
        self._check_first_policy(request.policy, room, creator)
        wrap, rows = self._first_tree(request, creator)
        state = HubRoom(room, 0, ratchet, wrap, request.policy, {0: creator})
        node = ratchet.node_bytes(0)
        return NewRoom(state, TreeRows({0: node}, rows.wrap, rows.wrap_header))

    def _check_first_policy(self, signed: SignedPolicy, room: MimiUri, creator: Member) -> None:
        signed.verify(creator.signature_key)
        policy = signed.policy
        if policy.room != room or signed.signer != 0 or policy.serial != 0:
            raise NotAllowed("the policy is not this room's first")
        if policy.role(creator.user) is not Role.ADMIN:
            raise NotAllowed("the policy does not make the creator an admin")

    def _first_tree(self, request: CreateRoomRequest, creator: Member) -> tuple[PublicTree, TreeRows]:
        try:
            wrap = PublicTree.create(Suite(request.arity), group_id(request.content.room))
            update = TreeUpdate.from_bytes(request.tree_update)
            staged = wrap.stage(update, epoch=0)
        except (TreeWrapError, ValueError) as error:
            raise TreeMismatch(f"the first Tree Wrap update does not verify: {error}") from None
        shown = request.policy.policy.shows_identity(creator.user)
        if dict(update.changes) != ({0: ChangeKind.SET} if shown else {}):
            raise TreeMismatch(
                "the first update sets leaf 0, where the policy shows its identity, and no other"
            )
        if staged.tree_hash != request.content.tree_hash or update.epoch != 0:
            raise TreeMismatch("tree hash or epoch of the first update is not the one that was signed")
        rows = TreeRows({}, staged.rows, staged.header)
        staged.commit()
        return wrap, rows

    # --- update --------------------------------------------------------------------------------------

    def update(self, state: HubRoom, request: UpdateRequest, now: float) -> AcceptedCommit:
        """Check a commit against the room; raise a subclass of `HubRefusal` or `IdentityError`."""
        auth = request.auth.content
        sender = self._authenticate(state, request, auth)
        commit = self._commit_message(state, request)
        change = state.ratchet.apply(commit, state.group_id)
        self._check_path(change, sender)
        policy = self._next_policy(state, request, sender)
        added = self._check_adds(state, change, sender, now)
        self._check_removes(state, request, change, sender)
        self._check_welcome(request, change)
        sealed_state = self._next_sealed_state(state, request, change)
        wrap = self._stage_tree(state, request, policy.policy, change, added)
        rows = TreeRows(change.rows, wrap.rows if wrap else {}, wrap.header if wrap else state.wrap.header)
        events = tuple(self._events(state, request, added))
        return AcceptedCommit(
            state, state.epoch + 1, rows, policy, sealed_state, request.auth, events, change, wrap, added
        )

    def _authenticate(
        self,
        state: HubRoom,
        request: UpdateRequest | SubmitMessageRequest,
        content: CommitAuthTBS | SubmitTBS,
    ) -> Member:
        """Return the member who signed. The signature is checked first: only members may learn the epoch."""
        if content.room != state.room:
            raise WrongSigner("the request was signed for another room")
        sender = state.members.get(content.sender)
        if sender is None:
            raise UnknownSender(f"no member at leaf {content.sender}")
        request.verify(sender.signature_key)
        if content.epoch != state.epoch:
            raise WrongEpoch(state.epoch)
        return sender

    def _commit_message(self, state: HubRoom, request: UpdateRequest) -> PublicCommit:
        message = parse_commit(request.commit)
        auth = request.auth.content
        if (message.group_id, message.epoch) != (state.group_id, state.epoch):
            raise InvalidCommit("the commit is for another group or epoch than the request says")
        if message.sender != auth.sender:
            raise WrongSigner("the commit is by another leaf than the one that signed the request")
        return message

    def _check_path(self, change: TreeChange, sender: Member) -> None:
        leaf = change.new_leaf
        if leaf and (leaf.identity, leaf.signature_key) != (sender.identity, sender.signature_key):
            raise InvalidCommit("a leaf's credential and signature key are fixed for its life")

    def _next_policy(self, state: HubRoom, request: UpdateRequest, sender: Member) -> SignedPolicy:
        signed = request.policy or state.policy
        if request.policy is not None:
            leaf = request.auth.content.sender
            request.policy.check_succession(state.policy.policy, leaf, sender.user, sender.signature_key)
        if signed.policy.hash != request.auth.content.policy_hash:
            raise NotAllowed("the commit was signed under another policy than the room's")
        return signed

    def _next_sealed_state(self, state: HubRoom, request: UpdateRequest, change: TreeChange) -> bytes | None:
        if change.removed and state.sealed_state is not None and request.room_state is None:
            raise TreeMismatch("a commit that removes comes with the members-only state sealed anew")
        sealed = state.sealed_state if request.room_state is None else request.room_state
        if digest(sealed) != request.auth.content.room_state_hash:
            raise NotAllowed("the commit was signed over another members-only state than the room's")
        return sealed

    def _check_adds(
        self, state: HubRoom, change: TreeChange, sender: Member, now: float
    ) -> tuple[tuple[int, Member], ...]:
        if not change.added:
            return ()
        gone = set(change.removed)
        staying = [member for leaf, member in state.members.items() if leaf not in gone]
        clients = {member.client for member in staying}
        of_user = Counter(member.user for member in staying)
        users = frozenset(of_user)
        added = []
        for leaf, package in change.added:
            member = self._new_member(leaf, package.leaf_node, now)
            allow = (
                state.policy.policy.allow_add if member.user in users else state.policy.policy.allow_return
            )
            allow(sender.user, member.user)
            if member.client in clients:
                raise InvalidCommit(f"leaf {leaf}: the client pseudonym is in the room already")
            clients.add(member.client)
            of_user[member.user] += 1
            if of_user[member.user] > MAX_CLIENTS:  # own clients need no role, so this limits them
                raise NotAllowed(f"leaf {leaf}: a user has at most {MAX_CLIENTS} clients in a room")
            added.append((leaf, member))
        return tuple(added)

    def _check_removes(
        self, state: HubRoom, request: UpdateRequest, change: TreeChange, sender: Member
    ) -> None:
        members = {leaf: state.members[leaf] for leaf in change.removed}
        leavers = {leaf: Leaver(member.client, member.signature_key) for leaf, member in members.items()}
        asked = departed(state.room, request.departures, leavers)
        for leaf in members.keys() - asked:
            state.policy.policy.allow_remove(sender.user, members[leaf].user)

    def _new_member(self, index: int, leaf: LeafNode, now: float) -> Member:
        try:
            check_lifetime(leaf, now)
            identity = check_leaf(leaf.identity, leaf.signature_key, now)
        except (IdentityError, ParseError) as error:
            error.args = (f"leaf {index}: {error}",)
            raise
        if self._reachable is not None and identity.queue.domain not in self._reachable:
            raise NotAllowed(f"leaf {index}: its provider {identity.queue.domain} is no peer of this hub")
        return Member.of(leaf, identity)

    def _check_welcome(self, request: UpdateRequest, change: TreeChange) -> None:
        wanted = {package.ref for _, package in change.added}
        found: set[bytes] = set()
        if request.welcome is not None:
            message = parse_message(request.welcome)
            if not isinstance(message, WelcomeMessage):
                raise InvalidCommit("expected an MLS Welcome")
            found = set(message.refs)
        if found != wanted:
            raise InvalidCommit("the Welcome is not for exactly the KeyPackages that the commit adds")
        proven = [proof.key_package_ref for proof in request.welcome_proofs]
        if len(proven) != len(wanted) or set(proven) != wanted:
            raise InvalidCommit("the proofs are not for exactly the KeyPackages that the commit adds")

    def _stage_tree(
        self,
        state: HubRoom,
        request: UpdateRequest,
        policy: RoomPolicy,
        change: TreeChange,
        added: tuple[tuple[int, Member], ...],
    ) -> StagedPublic | None:
        signed_hash = request.auth.content.tree_hash
        if request.tree_update is None:
            if change.added or change.removed or request.member_update is not None:
                raise TreeMismatch("a commit that adds or removes comes with a Tree Wrap update")
            if signed_hash != state.wrap.tree_hash:
                raise TreeMismatch("the signed tree hash is not the room's")
            return None
        try:
            update = TreeUpdate.from_bytes(request.tree_update)
            staged = state.wrap.stage(update, epoch=state.epoch + 1)
        except TreeWrapError as error:
            raise TreeMismatch(f"the Tree Wrap update does not verify: {error}") from None
        if update.seals:
            raise TreeMismatch("the Tree Wrap update seals the root to join links, which rooms do not use")
        check_member_update(request.member_update, update)
        self._check_changes(policy, update, change, added, request.auth.content.sender)
        if update.rebuilt:
            role = state.policy.policy.role(state.members[request.auth.content.sender].user)
            check_rebuilt(state.wrap, update, staged, may_drop=role is Role.ADMIN)
        if (update.epoch, staged.tree_hash) != (state.epoch + 1, signed_hash):
            raise TreeMismatch("epoch or tree hash of the Tree Wrap update is not the one that was signed")
        return staged

    def _check_changes(
        self,
        policy: RoomPolicy,
        update: TreeUpdate,
        change: TreeChange,
        added: tuple[tuple[int, Member], ...],
        committer: int,
    ) -> None:
        users = ((leaf, member.user) for leaf, member in added)
        expected = expected_changes(policy, change.removed, users)
        wrong = wrong_leaves(dict(update.changes), expected, committer)
        if wrong:
            raise TreeMismatch(f"the Tree Wrap update does not match the commit at leaf {wrong[0]}")

    def _events(
        self, state: HubRoom, request: UpdateRequest, added: tuple[tuple[int, Member], ...]
    ) -> Iterator[Outgoing]:
        sender = request.auth.content.sender
        event = CommitEvent(
            request.auth,
            request.commit,
            request.member_update,
            request.policy,
            request.departures,
            request.room_state,
        )
        others = (member for leaf, member in state.members.items() if leaf != sender)
        yield from outgoing(others, EventKind.COMMIT, event.to_bytes())
        if request.welcome is not None:
            welcome = WelcomeEvent(request.auth, request.welcome, request.welcome_proofs)
            yield from outgoing((member for _, member in added), EventKind.WELCOME, welcome.to_bytes())

    # --- a commit that members can't process ----------------------------------------------------------

    def check_report(self, before: HubRoom, after: HubRoom, report: CommitReport) -> None:
        """Check a report about the commit between two epochs; raise a subclass of `HubRefusal`.

        Only the last commit can be reported, by a member of the epoch before it. `after` is the current epoch.
        """
        content = report.content
        if content.room != before.room:
            raise WrongSigner("the report was signed for another room")
        sender = before.members.get(content.sender)
        if sender is None:
            raise UnknownSender(f"no member at leaf {content.sender}")
        report.verify(sender.signature_key)
        check_reported(after.id, report)

    def reopen(
        self,
        before: HubRoom,
        after: HubRoom,
        order: CommitReport,
        undone: CommitAuth | None,
        reports: Mapping[int, CommitReport | None],
    ) -> tuple[Outgoing, ...]:
        """Check a checked report that orders to undo the commit between two epochs; return its events.

        `undone` is that commit's signature, and `reports` are those about it, by the leaf of the reporter; either
        is None if an older version stored it without a signature. Raises `NotAllowed`.
        """
        actor = before.members[order.content.sender].user
        maker = before.members.get(undone.content.sender) if undone else None
        committer = maker.user if maker else None
        by_user: dict[MimiUri, CommitReport | None] = {}
        for leaf, report in reports.items():
            if leaf in before.members:
                user = before.members[leaf].user
                by_user[user] = by_user.get(user) or report
        rosters = before.roster, after.roster
        check_reopening(*rosters, committer=committer, actor=actor, reporters=by_user)
        counted = users_that_count(*rosters, committer) - {actor}
        grounds = tuple(report for user, report in by_user.items() if report and user in counted)[:1]
        policy = None if after.policy == before.policy else after.policy
        event = ReportEvent(order, grounds, undone, policy)
        everybody = {
            member.signature_key: member for member in (*before.members.values(), *after.members.values())
        }
        del everybody[before.members[order.content.sender].signature_key]
        return outgoing(everybody.values(), EventKind.COMMIT_REPORT, event.to_bytes())

    # --- submit and read -----------------------------------------------------------------------------

    def submit(self, state: HubRoom, request: SubmitMessageRequest) -> tuple[Outgoing, ...]:
        """Check an application message; raise a subclass of `HubRefusal`.

        All members get it, its sender too: a provider then can't tell by the deliveries who sent it, and a client
        notices a message that another copy of its state has sent.
        """
        content = request.content
        self._authenticate(state, request, content)
        message = parse_application(request.app_message)
        if (message.group_id, message.epoch) != (state.group_id, state.epoch):
            raise InvalidCommit("the message is for another group or epoch than the request says")
        event = ApplicationEvent(request.app_message, content.echo_tag)
        return outgoing(state.members.values(), EventKind.APPLICATION, event.to_bytes())

    def check_snapshot(self, room: MimiUri, request: SnapshotRequest, now: float) -> None:
        """Check a request for a snapshot of this room: time and signature; raise a subclass of `HubRefusal`.

        The caller then has to check that a leaf of that epoch has the key. None of this needs a tree.
        """
        if request.content.room != room:
            raise HubRefusal("the request for a snapshot is for another room")
        if abs(now - request.content.issued) > SNAPSHOT_CLOCK_SKEW:
            raise NotAllowed(
                "the request for a snapshot is too old, or of the future: the sender's clock is off"
            )
        request.verify()
