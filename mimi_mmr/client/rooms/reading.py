"""The processing of a room's queue: each page as a whole, with errors noted event by event."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import AsyncExitStack

from mimi_mmr.client.context import Context
from mimi_mmr.client.rooms.delivery import CommitDelivery
from mimi_mmr.client.rooms.events import IncomingEvent
from mimi_mmr.client.rooms.membership import Membership, MembershipState, Occurrence
from mimi_mmr.client.rooms.memberships import Memberships
from mimi_mmr.client.rooms.repair import RoomRepair
from mimi_mmr.client.rooms.roster import Roster
from mimi_mmr.client.transport.following import QueueFollower
from mimi_mmr.client.transport.queues import Queues
from mimi_mmr.client.transport.read_queues import ReadQueue, ReadQueues
from mimi_mmr.client.waiting import wait_until
from mimi_mmr.errors import (
    Desynchronised,
    EngineError,
    MmrError,
    NotYet,
    OwnMessage,
    ParseError,
    RoomError,
    StateError,
)
from mimi_mmr.member.whois import Whois
from mimi_mmr.protocol.content import Content, ContentKind
from mimi_mmr.protocol.queues import QueuePage
from mimi_mmr.protocol.room.events import CommitEvent, FanoutMessage, ReportEvent, TaggedMessage
from mimi_mmr.protocol.room.link_orders import JoinRequest
from mimi_mmr.protocol.room.requests import digest
from mimi_mmr.uris import MimiUri

MOST_HELD = 48  # of a page's 64: a hub without an answer must not stop other rooms with this queue
HELD_SECONDS = 5.0  # seconds between two tries of a commit that is not valid yet, while a queue is followed
HISTORY = (ContentKind.TEXT, ContentKind.ASSET)

Handler = Callable[[Membership, Whois, Content], None]


class Reading:
    """The part that reads the queues of this client's rooms.

    The wiring sets the listeners. `handlers` take messages from client to client, by their kind; `join_request`
    take requests to join by a link; `stray` take events of rooms that this client is not in. These run inside the
    page's transaction. `page_read` run after it, for each room that shares the queue.
    """

    def __init__(
        self,
        context: Context,
        memberships: Memberships,
        queues: Queues,
        read_queues: ReadQueues,
        delivery: CommitDelivery,
        repair: RoomRepair,
        roster: Roster,
    ) -> None:
        self._context = context
        self._memberships = memberships
        self._queues = queues
        self._read_queues = read_queues
        self._delivery = delivery
        self._repair = repair
        self._roster = roster
        self.handlers: dict[ContentKind, Handler] = {}
        self.join_request: list[Callable[[Membership, JoinRequest], None]] = []
        self.stray: list[Callable[[Sequence[Membership], FanoutMessage], None]] = []
        self.page_read: list[Callable[[Membership], Awaitable[None]]] = []
        self._due: dict[MimiUri, float] = {}  # rooms with a commit that is not valid yet, and when it will be

    # --- pages ---------------------------------------------------------------------------------------

    async def sync(self, membership: Membership, wait: float = 0.0) -> int:
        """Process a room's queue, waiting up to `wait` seconds for events; return how many events were taken."""
        queue = membership.queue
        page = await self._queues.collect(queue.token, queue.acknowledged, wait)
        taken = await self.take_page(membership, page)
        if not taken:
            await self._wait_for_held(queue, wait)
        return taken

    async def read_all(self, membership: Membership) -> None:
        """Process a room's queue to its end."""
        while await self.sync(membership):
            pass

    async def follow(self, membership: Membership) -> AsyncIterator[int]:
        """Process a room's queue continuously over a WebSocket; yield the number of events of each page.

        Ends when this client is no longer in the room. Raises `PrivatePathFailed` when no WebSocket can be opened;
        the long poll of `sync` is an alternative, and as private.
        """
        while not membership.removed:
            queue = membership.queue
            async with QueueFollower(self._context.path, queue.token, queue.acknowledged) as pages:
                async for page in pages:
                    count = await self.take_page(membership, page)
                    if all(queued.sequence <= queue.acknowledged for queued in page.messages):
                        pages.stored(page)
                    yield count
                    await self._wait_for_held(queue, HELD_SECONDS)
                    if membership.queue is not queue or membership.removed:
                        break

    async def take_page(self, membership: Membership, page: QueuePage) -> int:
        """Process a page of a room's queue that was already collected; return how many events were taken."""
        queue = membership.queue
        rooms = self._memberships.sharing(queue)
        async with AsyncExitStack() as locks:
            for room in sorted(rooms, key=lambda one: str(one.uri)):
                await locks.enter_async_context(room.lock)
                await self._delivery.try_to_settle(room)
            taken = self._take(rooms, queue, page)
            for room in rooms:
                if page.messages and room.room.diverged and not room.removed:
                    await self._repair.reconcile(room)
        for room in rooms:
            if page.messages and room.state is MembershipState.BLOCKED:
                # a member who has missed an event can't process commits that are good
                await self._repair.report(room)
            for listener in self.page_read:
                await listener(room)
        return taken

    def _take(self, rooms: Sequence[Membership], queue: ReadQueue, page: QueuePage) -> int:
        """Take a page in one transaction: if the process dies or the vault fails, the whole page comes again.

        A room with an unanswered commit can't process later epochs' events before the answer. Such an event, and
        all events behind it, stay in the queue. The same holds for a commit whose KeyPackages are not valid yet by
        this device's clock. Those of other rooms are processed all the same; when they come again, they are
        recognised by their sequence number.
        """
        held: list[MimiUri] = []
        taken = 0
        with self._memberships.changing(*rooms):
            self._compare(rooms, queue, page)
            moved = page.messages or page.acknowledged > queue.acknowledged
            queue.acknowledge(page.acknowledged)  # those are gone, whatever is held back of the others
            for queued in page.messages:
                if queued.sequence <= queue.acknowledged:
                    continue
                self._dispatch(rooms, queued.message, held)
                if not held:
                    queue.acknowledge(queued.sequence)
                taken += not held
            if moved or queue.position.lost != page.lost:
                queue.note_lost(page.lost)
                self._read_queues.save(queue)
                for room in rooms:
                    self._memberships.save(room)
        if not taken and not held:
            queue.read_at = self._context.clock()
        return taken

    def _compare(self, rooms: Sequence[Membership], queue: ReadQueue, page: QueuePage) -> None:
        """Compare what the provider says was acknowledged with what this vault has read.

        A client acknowledges only what its vault has. If more is gone from the queue than was acknowledged or lost,
        a newer copy of this vault has read it.
        """
        lost = max(0, page.lost - queue.position.lost)
        if page.acknowledged - queue.acknowledged > lost:
            for room in rooms:
                self._note_older_copy(room)

    def _note_older_copy(self, membership: Membership) -> None:
        if not membership.older_copy and not membership.removed:
            membership.sent.note_older_copy()
            self._context.notify(
                "the state of this device is an older copy: a newer one has read or sent messages in the room"
                f" {membership.uri}, which may be missing here"
            )

    # --- events --------------------------------------------------------------------------------------

    def _dispatch(self, rooms: Sequence[Membership], message: bytes, held: list[MimiUri]) -> None:
        """Pass an event to its room: several rooms may share the queue after a last-resort KeyPackage."""
        try:
            fanout = FanoutMessage.from_bytes(message)
        except ParseError as error:
            for room in rooms:
                room.note(f"an event that can't be read: {error}")
            return
        for room in rooms:
            if fanout.room == room.uri and fanout.sequence > room.place.last_sequence:
                event = IncomingEvent.of(fanout)
                if self._too_early(room, event, held) or not self._process(room, event):
                    held.append(room.uri)
                return
        # A repetition (the hub delivers at least once), or an event of a room that this client is not in.
        for listener in self.stray:
            listener(rooms, fanout)

    def _too_early(self, membership: Membership, event: IncomingEvent, held: Collection[MimiUri]) -> bool:
        """Say whether an event waits for the answer to this client's own commit, or for an event before it."""
        if membership.uri in self._due and membership.uri in held:
            return True
        if membership.place.pending is None or len(held) >= MOST_HELD:
            return False
        return membership.uri in held or event.epoch > membership.room.epoch

    def _process(self, membership: Membership, event: IncomingEvent) -> bool:
        """Process one event; return False if it is a commit that has to come again, since it is not valid yet.

        Any other error is noted as a problem, so that it does not block the next event.
        """
        sequence = event.fanout.sequence
        try:
            self._take_in(membership, event)
            membership.read_to(sequence)  # only once it was accepted: anybody could send a number
        except StateError:
            raise  # a failure of the vault, not of the event: the page has to come again
        except NotYet as error:
            self._hold(membership, error)
            return False
        except EngineError as error:
            membership.note(f"event {sequence}: {error}")
            if isinstance(event.body, CommitEvent):
                membership.occurred(Occurrence.COMMIT_UNPROCESSABLE, event.body.commit)
        except MmrError as error:
            if event.is_commit:
                membership.occurred(Occurrence.COMMIT_MISSED)
            membership.note(f"event {sequence}: {error}")
        self._due.pop(membership.uri, None)
        return True

    def _hold(self, membership: Membership, error: NotYet) -> None:
        if membership.uri not in self._due:
            membership.note(f"a commit waits until it is valid: {error}")
        self._due[membership.uri] = error.due

    async def _wait_for_held(self, queue: ReadQueue, seconds: float) -> None:
        """Wait, for at most `seconds`, until the commits that are held back in a queue are valid."""
        rooms = {room.uri for room in self._memberships.sharing(queue)}
        due = [self._due[uri] for uri in rooms & self._due.keys()]
        if due:
            await wait_until(min(due), self._context.clock, seconds)

    def _take_in(self, membership: Membership, event: IncomingEvent) -> None:
        body = event.body
        if isinstance(body, MmrError):
            raise body
        if isinstance(body, CommitEvent):
            self._follow_commit(membership, body)
        elif isinstance(body, TaggedMessage):
            self._receive(membership, body, event.fanout.timestamp)
        elif isinstance(body, ReportEvent):
            self._take_order(membership, body)
        elif isinstance(body, JoinRequest):
            for listener in self.join_request:
                listener(membership, body)

    def _follow_commit(self, membership: Membership, event: CommitEvent) -> None:
        unprocessed = membership.place.unprocessed
        if unprocessed is not None and event.commit != unprocessed:
            raise Desynchronised(
                "a commit in the place of the one that can't be processed here, which no admin has had undone"
            )
        followed = membership.room.follow(event, self._context.clock())
        membership.note(*followed.problems)
        # this commit was accepted first, and following it has rejected our pending one
        membership.set_pending(None)
        membership.sent.note_new_epoch()
        membership.occurred(Occurrence.REMOVED if followed.removed_self else Occurrence.COMMIT_FOLLOWED)
        if membership.departures and not membership.removed:
            present = membership.room.members.by_client
            still = {one: what for one, what in membership.departures.items() if one in present}
            membership.set_departures(still)

    def _take_order(self, membership: Membership, event: ReportEvent) -> None:
        """Take an admin's order, which the hub has carried out, to undo the last commit."""
        room, unprocessed = membership.room, membership.place.unprocessed
        if unprocessed is not None:
            room.check_undone(event, unprocessed)
            membership.occurred(Occurrence.COMMIT_UNDONE)
        else:
            room.check_order(event)
            membership.note("the hub has undone, for an admin, a commit that this client has followed")
            membership.occurred(Occurrence.COMMIT_MISSED)

    def _receive(self, membership: Membership, tagged: TaggedMessage, timestamp: int) -> None:
        message = tagged.message
        if membership.sent.came_back(digest(message.encoded), message.epoch):
            return
        try:
            leaf, content = membership.room.decrypt(message)
        except OwnMessage:
            if not membership.room.is_own(tagged):
                raise RoomError(
                    "a message that names this client's leaf as its sender, and is not by it"
                ) from None
            if message.epoch == membership.room.epoch:  # of an earlier epoch: its keys are not used any more
                self._note_older_copy(membership)
            return
        sender = self._roster.whois(membership.room, leaf)
        if content.kind in HISTORY:
            # The hub's time of acceptance may be any number: a message is not shown as of the future.
            accepted = min(timestamp // 1000, int(self._context.clock()))
            membership.messages.append(sender, content, accepted)
            return
        handler = self.handlers.get(content.kind)
        if handler is None:
            raise RoomError(f"a message of kind {content.kind.name}, which has no place in this room")
        handler(membership, sender, content)
