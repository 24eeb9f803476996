"""Endpoints of queues, reply inboxes and shelves: a provider's work for nobody in particular."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterable

from mimi_mmr.crypto.sealing import SealingKey
from mimi_mmr.crypto.secret import AccessToken, FetchToken
from mimi_mmr.errors import NoKeyPackages, NotAllowed, UnknownQueue
from mimi_mmr.protocol.deposits import ReplyDeposit
from mimi_mmr.protocol.key_packages import (
    CLAIM_LIFETIME,
    MAX_SET_LIFETIME,
    ClaimStatus,
    KeyMaterialAnswer,
    KeyMaterialRequest,
    SetUpload,
    ShelfOrder,
    ShelfOrderKind,
    check_set,
    open_claim,
    seal_answer,
    shelf_id,
)
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
from mimi_mmr.provider.http import Call, Reply, Router
from mimi_mmr.provider.record import Recorder
from mimi_mmr.provider.store.deliveries import DeliveryStore

ROLE = "deliveries"
MAX_WAIT = 25.0
ORDER_AGE = 300


class Arrivals:
    """Who waits for which queue, so that a long poll ends when something comes."""

    def __init__(self) -> None:
        """Nobody waits."""
        self._waiting: dict[bytes, set[asyncio.Event]] = {}
        self._closing = False

    def close(self) -> None:
        """Let everybody go who waits: the provider is about to stop."""
        self._closing = True
        self.notify(list(self._waiting))

    def notify(self, queues: Iterable[bytes]) -> None:
        """Something came for these."""
        for queue in queues:
            for event in self._waiting.get(queue, ()):
                event.set()

    async def wait(self, queue: bytes, event: asyncio.Event, seconds: float) -> None:
        """Until `event`, which `listen` gave for this queue, or the time is over."""
        try:
            await asyncio.wait_for(event.wait(), seconds)
        except TimeoutError:
            return  # an empty page is the answer then
        finally:
            self.leave(queue, event)

    def listen(self, queue: bytes) -> asyncio.Event:
        """Start to listen, before looking whether there is something already."""
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


class DeliveryService:
    """Queues and shelves of one provider domain."""

    def __init__(
        self,
        domain: str,
        store: DeliveryStore,
        queue_key: SealingKey,
        key_material_key: SealingKey,
        recorder: Recorder,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Open queue ids and claims with the provider's two HPKE keys."""
        self._domain = domain
        self._store = store
        self._queue_key = queue_key
        self._key_material_key = key_material_key
        self._clock = clock
        self._recorder = recorder
        self._arrivals = Arrivals()

    def stopping(self) -> None:
        """End long polls, so that a shutdown does not wait for them."""
        self._arrivals.close()

    def mount(self, router: Router) -> None:
        """Add the endpoints that answer through the gateway only."""
        router.add("POST", "/v1/queues", self.create_queue, role=ROLE)
        router.add("POST", "/v1/queues/delete", self.delete_queue, role=ROLE)
        router.add("POST", "/v1/queues/collect", self.collect, role=ROLE)
        router.add("POST", "/v1/replyInbox", self.reply, role=ROLE)
        router.add("POST", "/v1/keyPackages", self.upload, role=ROLE, limit=SetUpload.LIMIT)
        router.add("POST", "/v1/keyPackages/order", self.order, role=ROLE, limit=ShelfOrder.LIMIT)

    # --- queues --------------------------------------------------------------------------------------

    async def create_queue(self, call: Call) -> Reply:
        """POST /v1/queues."""
        order = QueueOrder.from_bytes(call.body)
        queue = queue_id(AccessToken(order.token))
        await self._store.create_queue(queue, accepts_deposits=order.accepts_deposits)
        return Reply(201)

    async def delete_queue(self, call: Call) -> Reply:
        """POST /v1/queues/delete: forget a queue; the same answer if there is none (any more)."""
        queue = queue_id(AccessToken(QueueRemoval.from_bytes(call.body).token))
        await self._store.delete_queue(queue)
        self._arrivals.notify([queue])  # who waits for it learns that it is gone
        return Reply(200)

    async def collect(self, call: Call) -> Reply:
        """POST /v1/queues/collect: a long poll."""
        request = CollectRequest.from_bytes(call.body)
        queue = queue_id(AccessToken(request.token))
        arrival = self._arrivals.listen(queue)
        try:
            page = await self._page(queue, request)
            if not page.messages and request.wait_ms:
                await self._arrivals.wait(queue, arrival, min(request.wait_ms / 1000, MAX_WAIT))
                page = await self._page(queue, request)
        finally:
            self._arrivals.leave(queue, arrival)
        return Reply(body=page.to_bytes())

    async def _page(self, queue: bytes, request: CollectRequest) -> QueuePage:
        return await self._store.collect(queue, request.acknowledged, max(1, min(request.limit, 256)))

    async def reply(self, call: Call) -> Reply:
        """POST /v1/replyInbox: a connection response, from nobody."""
        deposit = ReplyDeposit.from_bytes(call.body)
        await self._store.deposit(deposit.queue, deposit.response.to_bytes(), self._clock())
        self._arrivals.notify([deposit.queue])
        return Reply(202)

    async def notify(self, hub: str, body: bytes) -> None:
        """Fan-out from a hub (-06, "Fanout Messages and Room Events"); a repetition changes nothing."""
        request = NotifyRequest.from_bytes(body)
        if request.hub != hub:
            raise NotAllowed("the notification names another hub than its sender")
        if FanoutMessage.from_bytes(request.message).room.domain != hub:
            raise NotAllowed("the notification is for a room of another hub")
        queues = []
        for delivery in request.deliveries:
            try:
                queue = open_queue_id(self._queue_key, delivery.encrypted_queue_id, delivery.leaf_binding)
            except UnknownQueue:
                continue  # a copied or invented address reaches nobody, and costs the others nothing
            self._recorder.write(ROLE, "opened", body=queue)
            queues.append(queue)
        transaction = b"notify" + hub.encode() + hashlib.sha256(body).digest()
        self._arrivals.notify(await self._store.put(queues, request.message, transaction, self._clock()))

    # --- shelves -------------------------------------------------------------------------------------

    async def upload(self, call: Call) -> Reply:
        """POST /v1/keyPackages: one set for a shelf."""
        upload = SetUpload.from_bytes(call.body)
        upload.verify()
        now = self._clock()
        packages = [entry.key_package for entry in upload.content.key_packages.entries]
        leaves = check_set(packages, now)
        if not now < upload.content.expiry <= now + MAX_SET_LIFETIME:
            raise NotAllowed(f"a KeyPackage set is kept for at most {MAX_SET_LIFETIME} seconds from now")
        if any(leaf.queue.domain != self._domain for leaf in leaves):
            raise NotAllowed("a KeyPackage set is kept by the provider of its queues")
        await self._store.upload(upload)
        return Reply(201)

    async def order(self, call: Call) -> Reply:
        """POST /v1/keyPackages/order: report on a shelf, take sets back from it, or empty and close it."""
        order = ShelfOrder.from_bytes(call.body)
        order.verify()
        content, now = order.content, self._clock()
        if abs(now - content.issued) > ORDER_AGE:
            raise NotAllowed(f"expected an order to a shelf of the last {ORDER_AGE} seconds")
        if content.serials and content.kind is not ShelfOrderKind.TAKE_BACK:
            raise NotAllowed("only an order to take sets back names any")
        report = await self._store.order(order, content.issued + ORDER_AGE + 1)
        return Reply(body=report.to_bytes())

    async def claim(self, request: KeyMaterialRequest, hub: str) -> bytes:
        """A sealed claim that `hub` passed on; the answer is sealed to the requester, whatever it says."""
        now = self._clock()
        claim = open_claim(request, self._key_material_key, hub, now)
        self._recorder.write(ROLE, "opened", body=claim.to_bytes())
        seen = b"claim" + request.claim.ciphertext
        if not await self._store.first_time(seen, now, now + 2 * CLAIM_LIFETIME):
            raise NoKeyPackages("this claim was made before; a new one is needed for each fetch")
        answer = KeyMaterialAnswer(ClaimStatus.NOTHING, False, None)
        seal_answer(answer, claim.response_key)  # an unsound key is refused before anything is taken for it
        shelf = shelf_id(FetchToken(claim.token), claim.upload_public_key)
        taken = await self._store.claim(shelf, claim.upload_public_key, now)
        if taken is not None:
            answer = KeyMaterialAnswer(ClaimStatus.TAKEN, taken[1], taken[0])
        return seal_answer(answer, claim.response_key).to_bytes()
