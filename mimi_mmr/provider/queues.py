"""Endpoints of queues and reply inboxes: messages wait until a client collects them with the access token."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterable

from mimi_mmr.crypto.sealing import SealingKey
from mimi_mmr.crypto.secret import AccessToken
from mimi_mmr.errors import NotAllowed, UnknownQueue
from mimi_mmr.protocol.deposits import ReplyDeposit
from mimi_mmr.protocol.endpoints import COLLECT, CREATE_QUEUE, DELETE_QUEUE, NOTIFY, REPLY, ProviderRole
from mimi_mmr.protocol.queues import (
    CollectRequest,
    QueueOrder,
    QueuePage,
    QueueRemoval,
    open_queue_id,
    queue_id,
)
from mimi_mmr.protocol.room.deliveries import NotifyRequest
from mimi_mmr.protocol.room.events import FanoutMessage
from mimi_mmr.provider.http import Call, Router
from mimi_mmr.provider.peers import Peers
from mimi_mmr.provider.record import Recorder
from mimi_mmr.provider.store.deliveries import DeliveryStore

MAX_WAIT = 25.0
MAX_PAGE = 256


class Arrivals:
    """Waiting long polls by queue; a new message ends those of its queue."""

    def __init__(self) -> None:
        """Start with no long polls."""
        self._waiting: dict[bytes, set[asyncio.Event]] = {}
        self._closing = False

    def close(self) -> None:
        """End every long poll before the provider stops."""
        self._closing = True
        self.notify(list(self._waiting))

    def notify(self, queues: Iterable[bytes]) -> None:
        """End the long polls of these queues: they have new messages."""
        for queue in queues:
            for event in self._waiting.get(queue, ()):
                event.set()

    async def wait(self, queue: bytes, event: asyncio.Event, seconds: float) -> None:
        """Wait at most `seconds` for `event`, which `listen` returned for this queue."""
        try:
            async with asyncio.timeout(seconds):
                await event.wait()
        except TimeoutError:
            return  # the answer is then an empty page
        finally:
            self.leave(queue, event)

    def listen(self, queue: bytes) -> asyncio.Event:
        """Return an event for the next message; call this before reading the queue, to miss no message."""
        event = asyncio.Event()
        if self._closing:
            event.set()
        self._waiting.setdefault(queue, set()).add(event)
        return event

    def leave(self, queue: bytes, event: asyncio.Event) -> None:
        """Stop listening."""
        waiting = self._waiting.get(queue, set())
        waiting.discard(event)
        if not waiting:
            self._waiting.pop(queue, None)


class QueueService:
    """Queues of one provider domain."""

    def __init__(
        self,
        store: DeliveryStore,
        queue_key: SealingKey,
        recorder: Recorder,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Open queue ids with `queue_key`, the provider's HPKE key for them."""
        self._store = store
        self._queue_key = queue_key
        self._recorder = recorder
        self._clock = clock
        self._arrivals = Arrivals()

    def mount_direct(self, router: Router, peers: Peers) -> None:
        """Mount the endpoint that hubs call; they must prove that they are peers."""
        router.serve(NOTIFY, self.notified, admit=peers.admission(NOTIFY))

    def mount_oblivious(self, router: Router) -> None:
        """Mount the endpoints that answer through the gateway only."""
        router.serve(CREATE_QUEUE, self.create)
        router.serve(DELETE_QUEUE, self.delete)
        router.serve(COLLECT, self.collect)
        router.serve(REPLY, self.reply)

    def stopping(self) -> None:
        """End long polls, so that a shutdown does not wait for them."""
        self._arrivals.close()

    async def create(self, call: Call[None, QueueOrder]) -> None:
        """Create a queue."""
        order = call.request
        queue = queue_id(AccessToken(order.token))
        await self._store.create_queue(queue, accepts_deposits=order.accepts_deposits)

    async def delete(self, call: Call[None, QueueRemoval]) -> None:
        """Delete a queue; the answer is the same if it does not exist."""
        queue = queue_id(AccessToken(call.request.token))
        await self._store.delete_queue(queue)
        self._arrivals.notify([queue])  # its long polls then learn that it is gone

    async def collect(self, call: Call[None, CollectRequest]) -> QueuePage:
        """Delete acknowledged messages and return the next ones (long poll)."""
        request = call.request
        queue = queue_id(AccessToken(request.token))
        arrival = self._arrivals.listen(queue)
        try:
            page = await self._page(queue, request)
            if not page.messages and request.wait_ms:
                await self._arrivals.wait(queue, arrival, min(request.wait_ms / 1000, MAX_WAIT))
                page = await self._page(queue, request)
        finally:
            self._arrivals.leave(queue, arrival)
        return page

    async def _page(self, queue: bytes, request: CollectRequest) -> QueuePage:
        return await self._store.collect(queue, request.acknowledged, max(1, min(request.limit, MAX_PAGE)))

    async def reply(self, call: Call[None, ReplyDeposit]) -> None:
        """Put an anonymous connection response into a reply inbox."""
        deposit = call.request
        await self._store.deposit(deposit.queue, deposit.response.to_bytes(), self._clock())
        self._arrivals.notify([deposit.queue])

    async def notified(self, call: Call[str, NotifyRequest]) -> None:
        """Accept fan-out from a peer."""
        await self.notify(call.subject, call.request, call.body)

    async def notify(self, hub: str, request: NotifyRequest, body: bytes) -> None:
        """Accept fan-out from a hub (-06, "Fanout Messages and Room Events"); a repeated request changes nothing.

        `body` is the unparsed request, which identifies a repeated one.
        """
        if request.hub != hub:
            raise NotAllowed("the notification names another hub than its sender")
        if FanoutMessage.from_bytes(request.message).room.domain != hub:
            raise NotAllowed("the notification is for a room of another hub")
        queues = []
        for delivery in request.deliveries:
            try:
                queue = open_queue_id(self._queue_key, delivery.encrypted_queue_id, delivery.leaf_binding)
            except UnknownQueue:
                continue  # a copied or invented address: skip it, deliver to the others
            self._recorder.write(ProviderRole.DELIVERIES, "opened", body=queue)
            queues.append(queue)
        transaction = b"notify" + hub.encode() + hashlib.sha256(body).digest()
        self._arrivals.notify(await self._store.put(queues, request.message, transaction, self._clock()))
