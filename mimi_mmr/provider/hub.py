"""The hub's endpoints: they pass requests to the state machine, its results to the store, events to the outbox."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from weakref import WeakValueDictionary

from mimi_mmr.crypto.sealing import SealedBox
from mimi_mmr.errors import HubRefusal, IdentityError, MmrError, TreeMismatch, UnknownSender, WrongEpoch
from mimi_mmr.hub.links import check_join, check_order, check_use
from mimi_mmr.hub.mode import HubMode, check_reported
from mimi_mmr.hub.state import HubRoom
from mimi_mmr.protocol.endpoints import (
    CLAIM,
    CREATE_ROOM,
    KEY_MATERIAL,
    ORDER_LINK,
    REPORT_COMMIT,
    REQUEST_JOIN,
    SNAPSHOT,
    SUBMIT_MESSAGE,
    UPDATE_ROOM,
)
from mimi_mmr.protocol.key_packages import KeyMaterialRequest
from mimi_mmr.protocol.room.link_orders import JoinRequest, LinkKind, LinkOrder
from mimi_mmr.protocol.room.requests import (
    CommitReport,
    CreateRoomRequest,
    RepairKind,
    Snapshot,
    SnapshotRequest,
    SubmitMessageRequest,
    UpdateCode,
    UpdateRequest,
    UpdateRoomResponse,
)
from mimi_mmr.provider.http import Arrival, Call, Encoded, Router
from mimi_mmr.provider.outbox import OutboxWorker
from mimi_mmr.provider.peers import Peers
from mimi_mmr.provider.store.hub import HubStore, to_snapshot
from mimi_mmr.uris import Kind, MimiUri

CACHED_ROOMS = 64
MAX_ERROR_TEXT = 512
JOIN_ATTEMPTS = 4
SNAPSHOTS_AT_ONCE = 4


class HubService:
    """Rooms of one provider domain. Its routes can be mounted beside those of a hub for plain MIMI rooms."""

    def __init__(
        self,
        domain: str,
        store: HubStore,
        outbox: OutboxWorker,
        peers: Peers,
        claim_locally: Callable[[KeyMaterialRequest, str], Awaitable[SealedBox]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Serve rooms at `domain`; `claim_locally` answers key-material requests for this provider."""
        self._domain = domain
        self._mode = HubMode(domain, {domain, *peers.urls})
        self._store = store
        self._outbox = outbox
        self._peers = peers
        self._claim_locally = claim_locally
        self._clock = clock
        self._snapshots = asyncio.Semaphore(SNAPSHOTS_AT_ONCE)
        self._cache: OrderedDict[str, HubRoom] = OrderedDict()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # only locks in use

    def mount_oblivious(self, router: Router) -> None:
        """Mount the endpoints; all of them answer through the gateway only."""
        router.serve(CREATE_ROOM, self.create)
        router.serve(UPDATE_ROOM, self.update, admit=self._room, refuse=_refusal)
        router.serve(SUBMIT_MESSAGE, self.submit, admit=self._room, refuse=_refusal)
        router.serve(REPORT_COMMIT, self.report, admit=self._room)
        router.serve(SNAPSHOT, self.snapshot, admit=self._room)
        router.serve(ORDER_LINK, self.links, admit=self._room)
        router.serve(REQUEST_JOIN, self.join_request, admit=self._room)
        router.serve(KEY_MATERIAL, self.key_material)

    async def _room(self, arrival: Arrival) -> tuple[MimiUri, bytes]:
        """Admit every request for a room; its subject is the room that the path names."""
        return MimiUri(self._domain, Kind.ROOM, arrival.names["room"]), await arrival.body()

    # --- endpoints -----------------------------------------------------------------------------------

    async def create(self, call: Call[None, CreateRoomRequest]) -> None:
        """Create a room."""
        await self._store.create(self._mode.create(call.request, self._clock()))

    async def update(self, call: Call[MimiUri, UpdateRequest]) -> UpdateRoomResponse:
        """Accept or refuse a commit (-06, "Update Room State")."""
        await self._update(call.subject, call.request)
        return self._accepted()

    async def _update(self, room: MimiUri, request: UpdateRequest) -> None:
        auth = request.auth
        async with self._lock(room):
            await self._check_signer(room, auth.content.sender, auth.verify)
            state = await self._state(room)
            try:
                accepted = self._mode.update(state, request, self._clock())
            except WrongEpoch:
                if await self._store.began_with(room, auth.content.epoch + 1, auth.content.commit_hash):
                    return  # the accepted commit again: the client lost the answer
                raise
            try:
                await self._store.advance(accepted, self._clock())
            except WrongEpoch:
                self._cache.pop(str(room), None)  # another worker was first: reload the room next time
                raise
            accepted.commit()
        self._outbox.wake()

    async def submit(self, call: Call[MimiUri, SubmitMessageRequest]) -> UpdateRoomResponse:
        """Accept or refuse an application message (-06, "Submit a Message")."""
        await self._submit(call.subject, call.request)
        return self._accepted()

    async def _submit(self, room: MimiUri, request: SubmitMessageRequest) -> None:
        async with self._lock(room):
            await self._check_signer(room, request.content.sender, request.verify)
            state = await self._state(room)
            events = self._mode.submit(state, request)
            await self._store.submit(room, state.id, events, self._clock())
        self._outbox.wake()

    def _accepted(self) -> UpdateRoomResponse:
        return UpdateRoomResponse(UpdateCode.SUCCESS, "", "", int(self._clock() * 1000))

    async def report(self, call: Call[MimiUri, CommitReport]) -> None:
        """Record that a member can't process the last commit, or undo that commit for an admin."""
        room, report = call.subject, call.request
        async with self._lock(room):
            await self._check_key(room, report.content.sender, report.verify, report.content.epoch)
            check_reported(await self._store.epoch(room), report)
            state = await self._state(room)
            before = await self._store.snapshot(room, report.content.epoch)
            self._mode.check_report(before, state, report)
            if report.content.kind is RepairKind.CANNOT_PROCESS:
                await self._store.report(room, state.id, report)
            else:
                await self._reopen(before, state, report)
        self._outbox.wake()

    async def _reopen(self, before: HubRoom, state: HubRoom, order: CommitReport) -> None:
        room, undone = state.room, state.id
        auth, reports = await self._store.auth(room, undone), await self._store.reports(room, undone)
        events = self._mode.reopen(before, state, order, auth, reports)
        await self._store.reopen(room, undone, before.id, events, self._clock())
        self._cache.pop(str(room), None)

    async def snapshot(self, call: Call[MimiUri, SnapshotRequest]) -> Snapshot:
        """Return both trees and the policy of the epoch that a Welcome is for."""
        room, request = call.subject, call.request
        key, epoch = request.content.signature_public_key, request.content.epoch
        self._mode.check_snapshot(room, request, self._clock())
        if not await self._store.has_leaf_key(room, key, epoch):
            raise UnknownSender("no leaf of that epoch has this signature key")
        async with self._snapshots:
            return to_snapshot(await self._store.snapshot(room, epoch))

    async def links(self, call: Call[MimiUri, LinkOrder]) -> None:
        """Register a member's join link, or revoke it."""
        room, order = call.subject, call.request
        async with self._lock(room):
            await self._check_signer(room, order.content.sender, order.verify)
            state = await self._state(room)
            link = check_order(state, order, self._clock())
            if order.content.kind is LinkKind.CREATE:
                await self._store.create_link(room, state.id, link, self._clock())
            else:
                await self._store.revoke_link(room, state.id, link.id)

    async def join_request(self, call: Call[MimiUri, JoinRequest]) -> None:
        """Forward a request to join, made with a join link, to the members, who decide.

        A retry of the same request after a lost answer is confirmed again; it is not counted or forwarded again.
        """
        room, digest = call.subject, hashlib.sha256(call.body).digest()
        async with self._lock(room):
            for _ in range(JOIN_ATTEMPTS):
                try:
                    await self._join(room, call.request, digest)
                    break
                except WrongEpoch:
                    continue  # another worker accepted a commit; a joiner can't handle WrongEpoch, so retry here
            else:
                raise HubRefusal("too much is going on in this room: try again")
        self._outbox.wake()

    async def _join(self, room: MimiUri, request: JoinRequest, digest: bytes) -> None:
        wanted = request.content.link_id
        await self._store.epoch(room)  # raises if there is no such room
        link = await self._store.link(room, wanted)
        if await self._store.passed_on(room, wanted, digest):
            return
        check_use(room, link, request, self._clock())
        state = await self._state(room)
        events = check_join(state, link, request, self._clock())
        await self._store.join(room, state.id, wanted, digest, events, self._clock())

    async def key_material(self, call: Call[None, KeyMaterialRequest]) -> SealedBox | Encoded[SealedBox]:
        """Forward a sealed claim to the KeyPackages' provider; return its sealed answer."""
        request = call.request
        if request.provider != call.names["provider"]:
            raise HubRefusal("the claim is for another provider than the path names")
        if request.provider == self._domain:
            return await self._claim_locally(request, self._domain)
        return Encoded(await self._peers.send(request.provider, CLAIM, call.body))

    # --- state ---------------------------------------------------------------------------------------

    def _lock(self, room: MimiUri) -> asyncio.Lock:
        lock = self._locks.get(str(room))
        if lock is None:
            lock = self._locks[str(room)] = asyncio.Lock()
        return lock

    async def _check_signer(self, room: MimiUri, sender: int, verify: Callable[[bytes], None]) -> None:
        """Check who signed a request for a room whose trees would have to be loaded for it.

        All checks follow with the room. This one reads one row, so that nobody but members can have a room loaded.
        """
        if str(room) not in self._cache:
            await self._check_key(room, sender, verify)

    async def _check_key(
        self, room: MimiUri, sender: int, verify: Callable[[bytes], None], epoch: int | None = None
    ) -> None:
        """Check a signature against the key of a leaf in an epoch, by default the current one."""
        key = await self._store.leaf_key(room, sender, epoch)
        if key is None:
            await self._store.epoch(room)  # raises if there is no such room
            raise UnknownSender(f"no member at leaf {sender}")
        verify(key)

    async def _state(self, room: MimiUri) -> HubRoom:
        epoch = await self._store.epoch(room)
        state = self._cache.pop(str(room), None)
        if state is None or state.id != epoch:
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
