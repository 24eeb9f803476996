"""Rooms of this client: commits on their way to hubs, messages out, queues in, and who is there."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace

from mimi_mmr.client.history import History, Message
from mimi_mmr.client.saved import SavedJoined, SavedLeaf
from mimi_mmr.client.shelves import Inbox, Shelves
from mimi_mmr.collecting import Follower
from mimi_mmr.contacts import Contact
from mimi_mmr.content import AssetReference, Content, ContentKind, seal_asset
from mimi_mmr.endpoints import AssetLocation, QueuePage
from mimi_mmr.errors import (
    BindingRejected,
    EngineError,
    HubRefusal,
    MmrError,
    NotAllowed,
    ParseError,
    PeerError,
    PrivatePathFailed,
    RoomError,
    WrongEpoch,
    from_code,
)
from mimi_mmr.hub.messages import (
    ApplicationEvent,
    CommitEvent,
    Departure,
    EventKind,
    FanoutMessage,
    RepairKind,
    Snapshot,
    SnapshotTBS,
    UpdateCode,
    UpdateRoomResponse,
    sign_snapshot,
)
from mimi_mmr.hub.policy import Identities, RoomPolicy
from mimi_mmr.keypackages import OpenKeyPackage
from mimi_mmr.leaves import PreparedLeaf
from mimi_mmr.private_path import gather
from mimi_mmr.room import PendingCommit, Room, Standing, Whois
from mimi_mmr.room_state import MembersOnlyState
from mimi_mmr.saved_room import SavedRoom
from mimi_mmr.uris import Kind, MimiUri, random_uri

COMMIT_ATTEMPTS = 8
UPDATE_ATTEMPTS = 4
RETRY_SECONDS = 0.5
ADD_BATCH = 100
CLOCK_STEP = 300  # a clock's error is a mark: say no more of the time than is needed
MAX_PROBLEMS = 200
_HISTORY = (ContentKind.TEXT, ContentKind.ASSET)


@dataclass(slots=True, eq=False)
class Joined:
    """A room that this client is in: its state, its queue, and what came.

    `problems` says what was wrong with what came. After a commit that the hub accepted and this member could not
    process (`unprocessed`, reported to the hub) an admin has to reopen the room. Once an event was missed the room
    is `desynchronised`: what comes later can't be read, and somebody has to add this client anew. `rotate` is set
    while this client should change its pseudonym here. `departures` are those of members who asked to go.
    """

    room: Room
    leaf: PreparedLeaf
    inbox: Inbox
    messages: History
    last_sequence: int = 0
    problems: list[str] = field(default_factory=list)
    desynchronised: bool = False
    rotate: bool = False
    unprocessed: bytes | None = None
    unanswered: PendingCommit | None = None
    departures: list[Departure] = field(default_factory=list)
    invited_by: MimiUri | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    kept: object = None

    @property
    def uri(self) -> MimiUri:
        """The room's URI."""
        return self.room.uri

    @property
    def lost(self) -> int:
        """Messages that the provider could not keep for this client."""
        return self.inbox.lost

    @property
    def acknowledged(self) -> int:
        """How far the queue has been read."""
        return self.inbox.acknowledged

    def version(self) -> object:
        """Changes with whatever `SavedRoom` holds."""
        room = self.room
        return room.epoch, room.tree_hash, room.diverged, room.removed, dict(room.problems)


class Rooms(Shelves):
    """A client's rooms."""

    def _open_rooms(self) -> None:
        """The rooms that the vault has. One that can't be restored is noted, and kept for another try."""
        self.rooms: dict[MimiUri, Joined] = {}
        self._room_rows = self.vault.table("rooms")
        self._joined_rows = self.vault.table("memberships")
        for name, row in self._joined_rows.items():
            try:
                joined = self._restored(
                    SavedRoom.from_bytes(self._room_rows[name]), SavedJoined.from_bytes(row)
                )
            except MmrError as error:
                self.notices.add(f"the room {name.decode()} can't be restored: {error}", self._clock())
            else:
                self.rooms[joined.uri] = joined

    def _restored(self, saved: SavedRoom, membership: SavedJoined) -> Joined:
        key = membership.leaf.key()
        leaf = membership.leaf.leaf(self._engine, self._mls_rows(key))
        room = Room.restore(saved, leaf)
        joined = Joined(
            room,
            leaf,
            self._inbox(leaf.queue),
            History(self.vault, room.uri),
            membership.last_sequence,
            list(membership.problems),
            membership.desynchronised,
            membership.rotate,
            membership.unprocessed,
            departures=list(membership.departures),
            invited_by=membership.invited_by,
        )
        if membership.unanswered is not None:
            joined.unanswered = room.pending(membership.unanswered)
        joined.kept = joined.version()
        return joined

    def _enter(self, room: Room, leaf: PreparedLeaf, inbox: Inbox) -> Joined:
        """A room that this client has just come into; stored with everything that was so far in memory only."""
        joined = Joined(room, leaf, inbox, History(self.vault, room.uri))
        self.rooms[room.uri] = joined
        with self.vault.transaction():
            self._keep_inbox(inbox)
            self._keep(joined)
        return joined

    def _keep(self, joined: Joined) -> None:
        """Write what changed of a room; inside a transaction with what changed it."""
        name = str(joined.uri).encode()
        del joined.problems[:-MAX_PROBLEMS]
        joined.room.store()
        if joined.kept != joined.version():
            self._room_rows[name] = joined.room.saved().to_bytes()
            joined.kept = joined.version()
        self._joined_rows[name] = SavedJoined(
            SavedLeaf.of(joined.leaf),
            joined.last_sequence,
            joined.desynchronised,
            joined.rotate,
            joined.unprocessed,
            joined.unanswered.request if joined.unanswered else None,
            tuple(joined.departures),
            joined.invited_by,
            tuple(problem[:1024] for problem in joined.problems),
        ).to_bytes()

    async def forget(self, joined: Joined) -> None:
        """Drop a room that this client is no longer in, with its messages."""
        name = str(joined.uri).encode()
        self.rooms.pop(joined.uri, None)
        with self.vault.transaction():
            self._joined_rows.pop(name, None)
            self._room_rows.pop(name, None)
            self.vault.drop(f"messages {joined.uri}")
            self._drop_leaf(joined.leaf)
        if not any(other.inbox is joined.inbox for other in self.rooms.values()):
            await self._drop_inbox(joined.inbox)

    def _drop_leaf(self, leaf: PreparedLeaf) -> None:
        if not any(other.leaf.key.public == leaf.key.public for other in self.rooms.values()):
            self.vault.drop(f"mls {leaf.key.public.hex()}")

    # --- making and changing -------------------------------------------------------------------------

    async def create_room(
        self, identities: Identities = Identities.EVERYONE, arity: int = 16, *, name: str = ""
    ) -> Joined:
        """A new minimal metadata room on one's own provider, with oneself as admin."""
        leaf = await self._stock.leaf(self.me)
        uri = random_uri(self.user.domain, Kind.ROOM, secrets.token_bytes(16))
        room, request = Room.create(uri, leaf, identities, arity)
        await self.path.call(uri.domain, "POST", "/v1/rooms", request.to_bytes())
        joined = self._enter(room, leaf, self._inbox(leaf.queue))
        if name:
            await self._commit(joined, state=lambda room: replace(room.state, name=name))
        await self._entered(joined)
        return joined

    async def _entered(self, joined: Joined) -> None:
        """This client has come into a room; for the floors above."""

    async def add(self, joined: Joined, contacts: Sequence[Contact]) -> None:
        """Add contacts, in as few commits as can be, and heal; raises what the claim or the hub says."""
        hub = joined.uri.domain
        for start in range(0, len(contacts), ADD_BATCH):
            claims = [self.claim(contact, hub) for contact in contacts[start : start + ADD_BATCH]]
            packages = [package for taken in await gather(claims) for package in taken]
            await self._commit(joined, add=packages)
        await self._commit(joined)

    async def remove(self, joined: Joined, leaves: Sequence[int]) -> None:
        """Remove members by leaf; whoever takes such a leaf meanwhile stays."""
        await self._commit(joined, remove=leaves)

    async def update(self, joined: Joined) -> None:
        """Heal: fresh keys on this leaf's path."""
        await self._commit(joined)

    async def _commit(
        self,
        joined: Joined,
        *,
        add: Sequence[OpenKeyPackage] = (),
        remove: Sequence[int] = (),
        departures: Sequence[Departure] = (),
        policy: Callable[[Room], RoomPolicy] | None = None,
        state: Callable[[Room], MembersOnlyState] | None = None,
        reveal: bool = False,
    ) -> None:
        """Commit; when another commit came first, follow that one and try again, for what is still to be done."""
        meant = joined.room.participants() if remove else {}
        for _ in range(COMMIT_ATTEMPTS):
            async with joined.lock:
                await self._settle_commit(joined)
                present = joined.room.participants() if remove else {}
                still = [leaf for leaf in remove if present.get(leaf) == meant.get(leaf)]
                going = self._still_there(joined, departures)
                if (remove or departures) and not still and not going:
                    return  # somebody else has removed them
                with self.vault.transaction():
                    joined.unanswered = joined.room.stage(
                        add=add,
                        remove=still,
                        departures=going,
                        policy=policy(joined.room) if policy else None,
                        state=state(joined.room) if state else None,
                        reveal=reveal,
                    )
                    self._keep(joined)
                if await self._settle_commit(joined):
                    return
            await self.sync(joined, wait=5.0)
        raise RoomError(f"{COMMIT_ATTEMPTS} commits in a row lost to others'")

    def _still_there(self, joined: Joined, departures: Sequence[Departure]) -> list[Departure]:
        if not departures:
            return []
        present = {who.credential.client_pseudonym for who in joined.room.participants().values()}
        return [one for one in departures if one.content.client_pseudonym in present]

    async def _settle_commit(self, joined: Joined) -> bool:
        """Have the hub's answer to a commit that is on its way; whether it was accepted, or there was none.

        While there is no answer the commit stays on its way, and is sent again before anything else is done: the
        hub may have accepted it.
        """
        pending = joined.unanswered
        if pending is None:
            return True
        try:
            await self._update(joined, pending)
        except (PrivatePathFailed, PeerError):
            raise
        except MmrError as error:
            with self.vault.transaction():
                joined.unanswered = None
                pending.reject()
                self._keep(joined)
            if isinstance(error, WrongEpoch):
                return False
            raise
        with self.vault.transaction():
            joined.unanswered = None
            pending.accept()
            self._keep(joined)
        return True

    async def _update(self, joined: Joined, pending: PendingCommit) -> None:
        """Send a commit. When the answer is lost the very same is sent again: the hub knows it if it took it."""
        path, body = f"/v1/update/{joined.uri.name}", pending.request.to_bytes()
        for attempt in range(UPDATE_ATTEMPTS):
            try:
                answer = await self.path.call(joined.uri.domain, "POST", path, body)
                break
            except (PrivatePathFailed, PeerError):
                if attempt == UPDATE_ATTEMPTS - 1:
                    raise
                await asyncio.sleep(RETRY_SECONDS * 2**attempt)
        raise_refusal(UpdateRoomResponse.from_bytes(answer))

    # --- sending -------------------------------------------------------------------------------------

    async def send(self, joined: Joined, content: Content | str) -> None:
        """Send to everybody in the room; encrypted anew if a commit came first."""
        content = Content.text(content) if isinstance(content, str) else content
        path = f"/v1/submitMessage/{joined.uri.name}"
        for _ in range(COMMIT_ATTEMPTS):
            async with joined.lock:
                await self._settle_commit(joined)
                request = joined.room.encrypt(content)
                answer = await self.path.call(joined.uri.domain, "POST", path, request.to_bytes())
            try:
                raise_refusal(UpdateRoomResponse.from_bytes(answer))
            except WrongEpoch:
                await self.sync(joined, wait=5.0)
            else:
                self._remember_own(joined, content)
                return
        raise RoomError(f"the room moved on {COMMIT_ATTEMPTS} times while a message was being sent")

    def _remember_own(self, joined: Joined, content: Content) -> None:
        if content.kind in _HISTORY:
            me = joined.room.whois(joined.room.own_leaf, self.trust, self._clock())
            joined.messages.append(me, content, int(self._clock()), own=True)

    async def send_asset(self, joined: Joined, name: str, data: bytes) -> AssetReference:
        """Encrypt, put on one's own provider's asset host, and tell the room."""
        key, ciphertext = seal_asset(data)
        answer = await self.path.call(self.user.domain, "POST", "/v1/assets", ciphertext)
        url = AssetLocation.from_bytes(answer).url
        reference = AssetReference(url, name, len(data), key, hashlib.sha256(ciphertext).digest())
        await self.send(joined, Content(ContentKind.ASSET, reference.to_bytes()))
        return reference

    async def fetch_asset(self, joined: Joined, message: Message) -> bytes:
        """Download through relay, gateway and the hub's proxy; only from the host of the sender's provider."""
        reference = AssetReference.from_bytes(message.content.body)
        provider = await self.path.provider(message.sender.user.domain)
        if not provider.asset_origin or not reference.url.startswith(provider.asset_origin + "/"):
            raise NotAllowed("the asset is not on the asset host of its sender's provider")
        return reference.open(await self.path.download(joined.uri.domain, reference.url))

    # --- who -----------------------------------------------------------------------------------------

    def who(self, joined: Joined, progress: Callable[[int, int], None] | None = None) -> list[Whois]:
        """Every member, resolved as far as policy and credentials allow; `progress` gets (done, total).

        A contact's identity key is pinned: somebody of that name with another key is unverified in every room.
        """
        return [self._pinned(entry) for entry in joined.room.who(self.trust, self._clock(), progress)]

    def _pinned(self, entry: Whois) -> Whois:
        try:
            if entry.member is not None:
                self._check_known(entry.member.device)
        except BindingRejected as error:
            why = f"leaf {entry.leaf}: {error}"
            return replace(entry, standing=Standing.UNVERIFIED, member=None, why=why)
        return entry

    def _leaves_of(self, joined: Joined, user: MimiUri) -> list[int]:
        """Leaves that a user pseudonym has in a room."""
        present = joined.room.participants().items()
        return sorted(leaf for leaf, identity in present if identity.credential.user_pseudonym == user)

    # --- what comes in -------------------------------------------------------------------------------

    async def sync(self, joined: Joined, wait: float = 0.0) -> int:
        """Process what is in a room's queue, waiting up to `wait` seconds for something; how many events."""
        inbox = joined.inbox
        page = await self._queues.collect(inbox.token, inbox.acknowledged, wait)
        return await self.take_page(joined, page)

    async def follow(self, joined: Joined) -> AsyncIterator[int]:
        """Process a room's queue as it comes, over a WebSocket; how many events a page had, page by page.

        Ends when this client is no longer in the room. Raises `PrivatePathFailed` when there is no such path; the
        long poll of `sync` is another one, and as private.
        """
        while not joined.room.removed:
            inbox = joined.inbox
            async with Follower(self.path, inbox.token, inbox.acknowledged) as pages:
                async for page in pages:
                    count = await self.take_page(joined, page)
                    pages.stored(page)
                    yield count
                    if joined.inbox is not inbox or joined.room.removed:
                        break

    async def take_page(self, joined: Joined, page: QueuePage) -> int:
        """Process a page of a room's queue, whichever way it was collected; how many events."""
        inbox = joined.inbox
        rooms = [other for other in self.rooms.values() if other.inbox is inbox]
        async with AsyncExitStack() as locks:
            for room in sorted(rooms, key=lambda one: str(one.uri)):
                await locks.enter_async_context(room.lock)
                await self._settle_commit(room)
            self._take(rooms, inbox, page)
            for room in rooms:
                if page.messages and room.room.diverged and not room.room.removed:
                    await self._reconcile(room)
        for room in rooms:
            if page.messages and room.unprocessed is not None:
                await self._report(room, RepairKind.CANNOT_PROCESS)
            await self._follow_up(room)
        return len(page.messages)

    def _take(self, rooms: Iterable[Joined], inbox: Inbox, page: QueuePage) -> None:
        """All of a page or, if the process dies, nothing of it: then it comes again."""
        rooms = list(rooms)
        with self.vault.transaction():
            for queued in page.messages:
                if queued.sequence > inbox.acknowledged:
                    self._dispatch(rooms, queued.message)
                    inbox.acknowledged = queued.sequence
            if page.messages or inbox.lost != page.lost:
                inbox.lost = page.lost
                self._keep_inbox(inbox)
                for room in rooms:
                    self._keep(room)

    async def _follow_up(self, joined: Joined) -> None:
        """What some events want done; for the floors above."""

    def _dispatch(self, rooms: Sequence[Joined], message: bytes) -> None:
        """One event of a queue, to the room it is for: a last-resort KeyPackage may have led to several."""
        try:
            fanout = FanoutMessage.from_bytes(message)
        except ParseError as error:
            for joined in rooms:
                joined.problems.append(f"an event that can't be read: {error}")
            return
        for joined in rooms:
            if fanout.room == joined.uri and fanout.sequence > joined.last_sequence:
                self._process(joined, fanout)
                return
        self._stray(rooms, fanout)

    def _stray(self, rooms: Sequence[Joined], fanout: FanoutMessage) -> None:
        """A repetition (at least once is what the hub promises), or for a room that this client is not in."""

    def _process(self, joined: Joined, fanout: FanoutMessage) -> None:
        """One event. What is wrong with it is noted as a problem: the next one must not wait behind it."""
        try:
            if fanout.kind is EventKind.COMMIT:
                followed = joined.room.follow(CommitEvent.from_bytes(fanout.event), self._clock())
                joined.problems += followed.problems
            elif fanout.kind is EventKind.APPLICATION:
                self._receive(joined, ApplicationEvent.from_bytes(fanout.event).message, fanout.timestamp)
            elif fanout.kind is EventKind.JOIN_REQUEST:
                self._knock(joined, fanout.event)
            joined.last_sequence = fanout.sequence  # only now: anybody could have said a number
        except EngineError as error:
            joined.problems.append(f"event {fanout.sequence}: {error}")
            if fanout.kind is EventKind.COMMIT and not joined.room.removed:
                joined.unprocessed = CommitEvent.from_bytes(fanout.event).commit
        except MmrError as error:
            joined.desynchronised |= fanout.kind is EventKind.COMMIT and not joined.room.removed
            joined.problems.append(f"event {fanout.sequence}: {error}")

    def _knock(self, joined: Joined, event: bytes) -> None:
        """Somebody wants to join by a link; for the floors above."""

    def _receive(self, joined: Joined, message: bytes, timestamp: int) -> None:
        leaf, content = joined.room.decrypt(message)
        sender = self._pinned(joined.room.whois(leaf, self.trust, self._clock()))
        if content.kind in _HISTORY:
            joined.messages.append(sender, content, timestamp // 1000)
        else:
            self._instructed(joined, sender, content)

    def _instructed(self, joined: Joined, sender: Whois, content: Content) -> None:
        """A message from client to client rather than from person to person; for the floors above."""
        raise RoomError(f"a message of kind {content.kind.name}, which has no place in this room")

    # --- repair --------------------------------------------------------------------------------------

    async def reopen(self, joined: Joined) -> None:
        """As an admin, have the hub undo the last commit, which members can't process; then heal.

        Raises `RoomError` if this member could process it, and what the hub says.
        """
        if joined.unprocessed is None:
            raise RoomError("there is no commit that this member could not process")
        await self._report(joined, RepairKind.REOPEN)
        joined.unprocessed = None
        await self._commit(joined)

    async def _report(self, joined: Joined, kind: RepairKind) -> None:
        report = joined.room.report(joined.unprocessed or b"", kind)
        path = f"/v1/report/{joined.uri.name}"
        try:
            await self.path.call(joined.uri.domain, "POST", path, report.to_bytes())
        except MmrError as error:
            if kind is RepairKind.REOPEN:
                raise
            joined.problems.append(f"the hub did not take the report of a commit: {error}")

    async def _reconcile(self, joined: Joined) -> None:
        """A committer gave the hub another tree than the members: take the hub's over, if it is sound."""
        try:
            joined.room.adopt(await self._snapshot(joined.uri, joined.room.epoch, joined.leaf))
        except MmrError as error:
            joined.problems.append(
                f"the hub's tree is not this member's, and stays so until a commit: {error}"
            )
        with self.vault.transaction():
            self._keep(joined)

    async def _snapshot(self, room: MimiUri, epoch: int, leaf: PreparedLeaf) -> Snapshot:
        tbs = SnapshotTBS(room, epoch, leaf.key.public, int(self._clock()) // CLOCK_STEP * CLOCK_STEP)
        request = sign_snapshot(tbs, leaf.key).to_bytes()
        return Snapshot.from_bytes(
            await self.path.call(room.domain, "POST", f"/v1/snapshot/{room.name}", request)
        )


def raise_refusal(answer: UpdateRoomResponse) -> None:
    """Raise what the hub said, unless it accepted."""
    if answer.code is UpdateCode.SUCCESS:
        return
    if answer.code is UpdateCode.WRONG_EPOCH:
        raise WrongEpoch(answer.number)
    error = from_code(answer.error_code, answer.error_description)
    # An answer is an answer, also for a reason that is unknown here: a `PeerError` would say that there was none.
    raise HubRefusal(str(error)) if isinstance(error, PeerError) else error
