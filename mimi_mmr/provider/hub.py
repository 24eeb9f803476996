"""The hub's endpoints: requests to the state machine, its outcome to the store, events to the outbox."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from weakref import WeakValueDictionary

from mimi_mmr.errors import HubRefusal, IdentityError, MmrError, TreeMismatch, WrongEpoch
from mimi_mmr.hub.links import check_join, check_order
from mimi_mmr.hub.mode import HubMode
from mimi_mmr.hub.state import HubRoom
from mimi_mmr.protocol.key_packages import KeyMaterialRequest
from mimi_mmr.protocol.room.link_orders import JoinRequest, LinkKind, LinkOrder
from mimi_mmr.protocol.room.requests import (
    CommitReport,
    CreateRoomRequest,
    RepairKind,
    SnapshotRequest,
    SubmitMessageRequest,
    UpdateCode,
    UpdateRequest,
    UpdateRoomResponse,
)
from mimi_mmr.provider.http import Call, Reply, Router
from mimi_mmr.provider.outbox import OutboxWorker
from mimi_mmr.provider.peers import Peers
from mimi_mmr.provider.store.hub import HubStore, to_snapshot
from mimi_mmr.uris import Kind, MimiUri

ROLE = "hub"
CACHED_ROOMS = 64
MAX_ERROR_TEXT = 512
JOIN_ATTEMPTS = 4


class HubService:
    """Rooms of one provider domain. Mount its routes beside a plain MIMI hub's; the mode is per room."""

    def __init__(
        self,
        domain: str,
        store: HubStore,
        outbox: OutboxWorker,
        peers: Peers,
        claim_locally: Callable[[KeyMaterialRequest, str], object],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Serve rooms at `domain`; `claim_locally` answers key-material requests for this very provider."""
        self._domain = domain
        self._mode = HubMode(domain, {domain, *peers.urls})
        self._store = store
        self._outbox = outbox
        self._peers = peers
        self._claim_locally = claim_locally
        self._clock = clock
        self._cache: OrderedDict[str, HubRoom] = OrderedDict()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # as long as one is held

    def mount(self, router: Router) -> None:
        """Add the endpoints."""
        router.add("POST", "/v1/rooms", self.create, role=ROLE, limit=CreateRoomRequest.LIMIT)
        router.add("POST", "/v1/update/{room}", self.update, role=ROLE, limit=UpdateRequest.LIMIT)
        limit = SubmitMessageRequest.LIMIT
        router.add("POST", "/v1/submitMessage/{room}", self.submit, role=ROLE, limit=limit)
        router.add("POST", "/v1/report/{room}", self.report, role=ROLE)
        router.add("POST", "/v1/snapshot/{room}", self.snapshot, role=ROLE)
        router.add("POST", "/v1/links/{room}", self.links, role=ROLE)
        limit = JoinRequest.LIMIT
        router.add("POST", "/v1/joinRequests/{room}", self.join_request, role=ROLE, limit=limit)
        router.add("POST", "/v1/keyMaterial/{provider}", self.key_material, role=ROLE)

    # --- endpoints -----------------------------------------------------------------------------------

    async def create(self, call: Call) -> Reply:
        """POST /v1/rooms."""
        new = self._mode.create(CreateRoomRequest.from_bytes(call.body), self._clock())
        await self._store.create(new)
        return Reply(201)

    async def update(self, call: Call) -> Reply:
        """POST /v1/update/{roomId} (-06, "Update Room State")."""
        room = self._room(call)
        try:
            await self._update(room, UpdateRequest.from_bytes(call.body))
        except MmrError as error:
            return Reply(body=_refusal(error).to_bytes())
        accepted = UpdateRoomResponse(UpdateCode.SUCCESS, "", "", int(self._clock() * 1000))
        return Reply(body=accepted.to_bytes())

    async def _update(self, room: MimiUri, request: UpdateRequest) -> None:
        async with self._lock(room):
            state = await self._state(room)
            try:
                accepted = self._mode.update(state, request, self._clock())
            except WrongEpoch:
                auth = request.auth.content
                if await self._store.began_with(room, auth.epoch + 1, auth.commit_hash):
                    return  # the very commit that was accepted, sent again because its answer was lost
                raise
            try:
                await self._store.advance(accepted, self._clock())
            except WrongEpoch:
                self._cache.pop(str(room), None)  # another worker was first: read its outcome next time
                raise
            accepted.commit()
        self._outbox.wake()

    async def submit(self, call: Call) -> Reply:
        """POST /v1/submitMessage/{roomId} (-06, "Submit a Message")."""
        room = self._room(call)
        try:
            await self._submit(room, SubmitMessageRequest.from_bytes(call.body))
        except MmrError as error:
            return Reply(body=_refusal(error).to_bytes())
        accepted = UpdateRoomResponse(UpdateCode.SUCCESS, "", "", int(self._clock() * 1000))
        return Reply(body=accepted.to_bytes())

    async def _submit(self, room: MimiUri, request: SubmitMessageRequest) -> None:
        async with self._lock(room):
            state = await self._state(room)
            events = self._mode.submit(state, request)
            await self._store.submit(room, state.epoch, events, self._clock())
        self._outbox.wake()

    async def report(self, call: Call) -> Reply:
        """POST /v1/report/{roomId}: a member can't process the last commit, or an admin has it undone."""
        room, report = self._room(call), CommitReport.from_bytes(call.body)
        content = report.content
        async with self._lock(room):
            epoch = await self._store.epoch(room)
            before = await self._store.snapshot(room, content.epoch)
            self._mode.check_report(before, epoch, report)
            if not await self._store.began_with(room, epoch, content.commit_hash):
                raise HubRefusal("the report names another commit than the one that began this epoch")
            if content.kind is RepairKind.CANNOT_PROCESS:
                await self._store.report(room, epoch, content.sender)
            else:
                await self._store.reopen(room, epoch)
                self._cache.pop(str(room), None)
        return Reply(200)

    async def snapshot(self, call: Call) -> Reply:
        """POST /v1/snapshot/{roomId}: both trees and the policy as of the epoch that a Welcome is for."""
        room = self._room(call)
        request = SnapshotRequest.from_bytes(call.body)
        request.verify()
        if request.content.room != room:
            raise HubRefusal("the request for a snapshot is for another room")
        state = await self._store.snapshot(room, request.content.epoch)
        self._mode.allow_snapshot(state.ratchet, request, self._clock())
        return Reply(body=to_snapshot(state).to_bytes())

    async def links(self, call: Call) -> Reply:
        """POST /v1/links/{roomId}: a member makes a join link known, or revokes one."""
        room, order = self._room(call), LinkOrder.from_bytes(call.body)
        async with self._lock(room):
            state = await self._state(room)
            link = check_order(state, order, self._clock())
            if order.content.kind is LinkKind.CREATE:
                await self._store.create_link(room, state.epoch, link, self._clock())
            else:
                await self._store.revoke_link(room, state.epoch, link.id)
        return Reply(200)

    async def join_request(self, call: Call) -> Reply:
        """POST /v1/joinRequests/{roomId}: somebody with a link asks to be added; for members to decide.

        The very same request again, its answer lost, is confirmed again, and neither counted nor passed on.
        """
        room, request = self._room(call), JoinRequest.from_bytes(call.body)
        digest = hashlib.sha256(call.body).digest()
        async with self._lock(room):
            for _ in range(JOIN_ATTEMPTS):
                try:
                    await self._join(room, request, digest)
                    break
                except (
                    WrongEpoch
                ):  # another worker took a commit meanwhile; whoever asks is no member to be told
                    continue
            else:
                raise HubRefusal("too much is going on in this room: try again")
        self._outbox.wake()
        return Reply(200)

    async def _join(self, room: MimiUri, request: JoinRequest, digest: bytes) -> None:
        wanted = request.content.link_id
        state = await self._state(room)
        link = await self._store.link(room, wanted)
        if not await self._store.passed_on(room, wanted, digest):
            events = check_join(state, link, request, self._clock())
            await self._store.join(room, state.epoch, wanted, digest, events, self._clock())

    async def key_material(self, call: Call) -> Reply:
        """POST /v1/keyMaterial/{provider}: pass a sealed claim on; what comes back is sealed, too."""
        request = KeyMaterialRequest.from_bytes(call.body)
        if request.provider != call.names["provider"]:
            raise HubRefusal("the claim is for another provider than the path names")
        if request.provider == self._domain:
            return Reply(body=bytes(await self._claim_locally(request, self._domain)))  # type: ignore[misc]
        return Reply(body=await self._peers.send(request.provider, "claim", call.body))

    # --- state ---------------------------------------------------------------------------------------

    def _room(self, call: Call) -> MimiUri:
        return MimiUri(self._domain, Kind.ROOM, call.names["room"])

    def _lock(self, room: MimiUri) -> asyncio.Lock:
        lock = self._locks.get(str(room))
        if lock is None:
            lock = self._locks[str(room)] = asyncio.Lock()
        return lock

    async def _state(self, room: MimiUri) -> HubRoom:
        epoch = await self._store.epoch(room)
        state = self._cache.pop(str(room), None)
        if state is None or state.epoch != epoch:
            state = await self._store.load(room)
        self._cache[str(room)] = state
        if len(self._cache) > CACHED_ROOMS:
            self._cache.popitem(last=False)
        return state


def _refusal(error: MmrError) -> UpdateRoomResponse:
    text = str(error)[:MAX_ERROR_TEXT]
    if isinstance(error, WrongEpoch):
        return UpdateRoomResponse(UpdateCode.WRONG_EPOCH, text, error.code, error.current_epoch)
    if isinstance(error, (TreeMismatch, IdentityError)) or not isinstance(error, HubRefusal):
        return UpdateRoomResponse(UpdateCode.INVALID_PROPOSAL, text, error.code)
    return UpdateRoomResponse(UpdateCode.NOT_ALLOWED, text, error.code)
