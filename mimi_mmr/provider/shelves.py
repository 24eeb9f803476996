"""Endpoints of shelves: KeyPackage sets wait until a contact claims them with its fetch token."""

from __future__ import annotations

import time
from collections.abc import Callable

from mimi_mmr.crypto.sealing import SealedBox, SealingKey
from mimi_mmr.crypto.secret import FetchToken
from mimi_mmr.errors import NoKeyPackages, NotAllowed
from mimi_mmr.protocol.endpoints import CLAIM, ORDER_SHELF, UPLOAD_KEY_PACKAGES, ProviderRole
from mimi_mmr.protocol.key_packages import (
    CLAIM_MEMORY,
    MAX_SET_LIFETIME,
    REQUEST_SKEW,
    ClaimStatus,
    KeyMaterialAnswer,
    KeyMaterialRequest,
    SetUpload,
    ShelfOrder,
    ShelfOrderKind,
    ShelfReport,
    check_set,
    open_claim,
    seal_answer,
    shelf_id,
)
from mimi_mmr.provider.http import Call, Router
from mimi_mmr.provider.peers import Peers
from mimi_mmr.provider.record import Recorder
from mimi_mmr.provider.store.deliveries import DeliveryStore


class ShelfService:
    """Shelves of one provider domain."""

    def __init__(
        self,
        domain: str,
        store: DeliveryStore,
        key_material_key: SealingKey,
        recorder: Recorder,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Open claims with `key_material_key`, the provider's HPKE key for them."""
        self._domain = domain
        self._store = store
        self._key_material_key = key_material_key
        self._recorder = recorder
        self._clock = clock

    def mount_direct(self, router: Router, peers: Peers) -> None:
        """Mount the endpoint that hubs call; they must prove that they are peers."""
        router.serve(CLAIM, self.claimed, admit=peers.admission(CLAIM))

    def mount_oblivious(self, router: Router) -> None:
        """Mount the endpoints that answer through the gateway only."""
        router.serve(UPLOAD_KEY_PACKAGES, self.upload)
        router.serve(ORDER_SHELF, self.order)

    async def upload(self, call: Call[None, SetUpload]) -> None:
        """Put one set on a shelf."""
        upload = call.request
        upload.verify()
        now = self._clock()
        packages = [entry.key_package for entry in upload.content.key_packages.entries]
        leaves = check_set(packages, now)
        if not now < upload.content.expiry <= now + MAX_SET_LIFETIME:
            raise NotAllowed(f"a KeyPackage set is kept for at most {MAX_SET_LIFETIME} seconds from now")
        if any(leaf.queue.domain != self._domain for leaf in leaves):
            raise NotAllowed("a KeyPackage set is kept by the provider of its queues")
        await self._store.upload(upload)

    async def order(self, call: Call[None, ShelfOrder]) -> ShelfReport:
        """Report on a shelf, take sets back from it, or empty and close it."""
        order = call.request
        order.verify()
        content, now = order.content, self._clock()
        if abs(now - content.issued) > REQUEST_SKEW:
            raise NotAllowed(
                "the order to a shelf is of over an hour ago, or of the future: the sender's clock is off"
            )
        if content.serials and content.kind is not ShelfOrderKind.TAKE_BACK:
            raise NotAllowed("only an order to take sets back names any")
        return await self._store.order(order, content.issued + REQUEST_SKEW + 1)

    async def claimed(self, call: Call[str, KeyMaterialRequest]) -> SealedBox:
        """Answer a claim that a peer forwarded."""
        return await self.claim(call.request, call.subject)

    async def claim(self, request: KeyMaterialRequest, hub: str) -> SealedBox:
        """Answer a sealed claim that `hub` forwarded; every answer is sealed to the requester."""
        now = self._clock()
        claim = open_claim(request, self._key_material_key, hub, now)
        self._recorder.write(ProviderRole.DELIVERIES, "opened", body=claim.to_bytes())
        seen = b"claim" + request.claim.ciphertext
        if not await self._store.first_time(seen, now, now + CLAIM_MEMORY):
            raise NoKeyPackages("this claim was made before; a new one is needed for each fetch")
        answer = KeyMaterialAnswer(ClaimStatus.NOTHING, False, None)
        seal_answer(answer, claim.response_key)  # an invalid key is refused before a set is taken
        shelf = shelf_id(FetchToken(claim.token), claim.upload_public_key)
        taken = await self._store.claim(shelf, claim.upload_public_key, now)
        if taken is not None:
            answer = KeyMaterialAnswer(ClaimStatus.TAKEN, taken[1], taken[0])
        return seal_answer(answer, claim.response_key)
