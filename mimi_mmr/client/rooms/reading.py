"""What comes in a room's queue: all of a page or nothing of it, and whatever is wrong with one event."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AsyncExitStack

from mimi_mmr.client.key_packages.shelves import Inbox
from mimi_mmr.client.rooms.kept import Joined, Kept
from mimi_mmr.client.transport.following import Follower
from mimi_mmr.errors import (
    EngineError,
    HubRefusal,
    MmrError,
    ParseError,
    PeerError,
    PrivatePathFailed,
    RoomError,
    StateError,
    WrongEpoch,
    from_code,
)
from mimi_mmr.member.committing import PendingCommit
from mimi_mmr.member.leaves import PreparedLeaf
from mimi_mmr.member.whois import Whois
from mimi_mmr.mls.wire import PrivateMessage, parse_application, parse_message
from mimi_mmr.protocol.content import Content, ContentKind
from mimi_mmr.protocol.queues import QueuePage
from mimi_mmr.protocol.room.events import ApplicationEvent, CommitEvent, EventKind, FanoutMessage
from mimi_mmr.protocol.room.requests import (
    RepairKind,
    Snapshot,
    SnapshotTBS,
    UpdateCode,
    UpdateRoomResponse,
    sign_snapshot,
)
from mimi_mmr.uris import MimiUri

UPDATE_ATTEMPTS = 4
RETRY_SECONDS = 0.5
CLOCK_STEP = 300  # a clock's error is a mark: say no more of the time than is needed
MOST_HELD = 48  # of a page's 64: a hub that does not answer must not stop the rooms that share the queue
HISTORY = (ContentKind.TEXT, ContentKind.ASSET)


class Reading(Kept):
    """A client's rooms, as they are read."""

    # --- a commit on its way -------------------------------------------------------------------------

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
            with self._changing(joined):
                joined.unanswered = None
                pending.reject()
                self._keep(joined)
            if isinstance(error, WrongEpoch):
                return False
            raise
        with self._changing(joined):
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

    async def _try_to_settle(self, joined: Joined) -> None:
        """Before reading; what can't be settled now is no reason to read nothing."""
        try:
            await self._settle_commit(joined)
        except (PrivatePathFailed, PeerError):
            return
        except StateError:
            raise
        except MmrError as error:
            joined.problems.append(f"a commit of this client's was refused: {error}")

    # --- pages ---------------------------------------------------------------------------------------

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
                    if all(queued.sequence <= inbox.acknowledged for queued in page.messages):
                        pages.stored(page)
                    yield count
                    if joined.inbox is not inbox or joined.room.removed:
                        break

    async def take_page(self, joined: Joined, page: QueuePage) -> int:
        """Process a page of a room's queue, whichever way it was collected; how many events were taken."""
        inbox = joined.inbox
        rooms = [other for other in self.rooms.values() if other.inbox is inbox]
        async with AsyncExitStack() as locks:
            for room in sorted(rooms, key=lambda one: str(one.uri)):
                await locks.enter_async_context(room.lock)
                await self._try_to_settle(room)
            taken = self._take(rooms, inbox, page)
            for room in rooms:
                if page.messages and room.room.diverged and not room.room.removed:
                    await self._reconcile(room)
        for room in rooms:
            if page.messages and room.unprocessed is not None:
                await self._report(room, RepairKind.CANNOT_PROCESS)
            await self._follow_up(room)
        return taken

    def _take(self, rooms: Sequence[Joined], inbox: Inbox, page: QueuePage) -> int:
        """All of a page or, if the process dies or the vault fails, nothing of it: then it comes again.

        Of a room with an unanswered commit, what belongs after that commit can't be read before its answer. It
        stays in the queue, with all that follows; what of that is other rooms' is read all the same, and known by
        its number when it comes again.
        """
        held: list[MimiUri] = []
        taken = 0
        with self._changing(*rooms):
            for queued in page.messages:
                if queued.sequence <= inbox.acknowledged:
                    continue
                self._dispatch(rooms, queued.message, held)
                if not held:
                    inbox.acknowledged = queued.sequence
                taken += not held
            if page.messages or inbox.lost != page.lost:
                inbox.lost = page.lost
                self._keep_inbox(inbox)
                for room in rooms:
                    self._keep(room)
        return taken

    async def _follow_up(self, joined: Joined) -> None:
        """What some events want done; for the floors above."""

    # --- events --------------------------------------------------------------------------------------

    def _dispatch(self, rooms: Sequence[Joined], message: bytes, held: list[MimiUri]) -> None:
        """One event of a queue, to the room it is for: a last-resort KeyPackage may have led to several."""
        try:
            fanout = FanoutMessage.from_bytes(message)
        except ParseError as error:
            for joined in rooms:
                joined.problems.append(f"an event that can't be read: {error}")
            return
        for joined in rooms:
            if fanout.room == joined.uri and fanout.sequence > joined.last_sequence:
                if self._too_early(joined, fanout, held):
                    held.append(joined.uri)
                else:
                    self._process(joined, fanout)
                return
        self._stray(rooms, fanout)

    def _too_early(self, joined: Joined, fanout: FanoutMessage, held: Collection[MimiUri]) -> bool:
        """Whether an event has to wait for the answer to this client's own commit."""
        if joined.unanswered is None or len(held) >= MOST_HELD:
            return False
        return joined.uri in held or _epoch(fanout) > joined.room.epoch

    def _stray(self, rooms: Sequence[Joined], fanout: FanoutMessage) -> None:
        """A repetition (at least once is what the hub promises), or for a room that this client is not in."""

    def _process(self, joined: Joined, fanout: FanoutMessage) -> None:
        """One event. What is wrong with it is noted as a problem: the next one must not wait behind it."""
        try:
            if fanout.kind is EventKind.COMMIT:
                self._follow_commit(joined, CommitEvent.from_bytes(fanout.event))
            elif fanout.kind is EventKind.APPLICATION:
                self._receive(joined, ApplicationEvent.from_bytes(fanout.event).message, fanout.timestamp)
            elif fanout.kind is EventKind.JOIN_REQUEST:
                self._knock(joined, fanout.event)
            joined.last_sequence = fanout.sequence  # only now: anybody could have said a number
        except StateError:
            raise  # the vault's, not the event's: the page is to come again
        except EngineError as error:
            joined.problems.append(f"event {fanout.sequence}: {error}")
            if fanout.kind is EventKind.COMMIT and not joined.room.removed:
                joined.unprocessed = CommitEvent.from_bytes(fanout.event).commit
        except MmrError as error:
            joined.desynchronised |= fanout.kind is EventKind.COMMIT and not joined.room.removed
            joined.problems.append(f"event {fanout.sequence}: {error}")

    def _follow_commit(self, joined: Joined, event: CommitEvent) -> None:
        followed = joined.room.follow(event, self._clock())
        joined.problems += followed.problems
        joined.unanswered = None  # this one came first, and following it has rejected ours
        joined.unprocessed, joined.desynchronised = (
            None,
            False,
        )  # nothing is missing: it was of the right epoch
        if joined.departures and not joined.room.removed:
            present = joined.room.clients()
            joined.departures = {one: what for one, what in joined.departures.items() if one in present}

    def _knock(self, joined: Joined, event: bytes) -> None:
        """Somebody wants to join by a link; for the floors above."""

    def _receive(self, joined: Joined, message: bytes, timestamp: int) -> None:
        leaf, content = joined.room.decrypt(parse_application(message))
        sender = self._pinned(joined.room.whois(leaf, self.trust, self._clock()))
        if content.kind in HISTORY:
            joined.messages.append(sender, content, timestamp // 1000)
        else:
            self._instructed(joined, sender, content)

    def _instructed(self, joined: Joined, sender: Whois, content: Content) -> None:
        """A message from client to client rather than from person to person; for the floors above."""
        raise RoomError(f"a message of kind {content.kind.name}, which has no place in this room")

    # --- repair --------------------------------------------------------------------------------------

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
        with self._changing(joined):
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


def _epoch(fanout: FanoutMessage) -> int:
    """The epoch that an event belongs to; 0 if it belongs to none, or can't be read."""
    try:
        if fanout.kind is EventKind.COMMIT:
            return CommitEvent.from_bytes(fanout.event).auth.content.epoch
        if fanout.kind is EventKind.APPLICATION:
            message = parse_message(ApplicationEvent.from_bytes(fanout.event).message)
            return message.epoch if isinstance(message, PrivateMessage) else 0
    except MmrError:
        pass
    return 0
