"""Rooms of this client, and what it does there: commits and messages on their way to hubs."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace

from mimi_mmr.client.people.contacts import Contact
from mimi_mmr.client.rooms.kept import Joined
from mimi_mmr.client.rooms.reading import CLOCK_STEP, HISTORY, Reading, raise_refusal
from mimi_mmr.client.storage.history import Message
from mimi_mmr.client.transport.private_path import gather
from mimi_mmr.errors import NotAllowed, RoomError, WrongEpoch
from mimi_mmr.member.intent import CommitIntent
from mimi_mmr.member.room import Room
from mimi_mmr.protocol.assets import AssetLocation
from mimi_mmr.protocol.content import AssetReference, Content, ContentKind, seal_asset
from mimi_mmr.protocol.key_packages import OpenKeyPackage, client_of
from mimi_mmr.protocol.room.departures import Departure
from mimi_mmr.protocol.room.members_only import MembersOnlyState
from mimi_mmr.protocol.room.policy import Identities, RoomPolicy
from mimi_mmr.protocol.room.requests import RepairKind, UpdateRoomResponse
from mimi_mmr.uris import Kind, MimiUri, random_uri

__all__ = ["CLOCK_STEP", "Joined", "Rooms", "raise_refusal"]

COMMIT_ATTEMPTS = 8
ADD_BATCH = 100


class Rooms(Reading):
    """A client's rooms."""

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
            await self._commit(joined, state=lambda room: replace(room.members_only.state, name=name))
        await self._entered(joined)
        return joined

    async def _entered(self, joined: Joined) -> None:
        """This client has come into a room; for the floors above."""

    async def add(self, joined: Joined, contacts: Sequence[Contact]) -> None:
        """Add contacts who are not there yet, in as few commits as can be, and heal.

        Raises what the claim or the hub says, and may be called again when an answer was lost: who came in the
        first time is not added twice.
        """
        await self._be_decided(joined)
        present = self._present(joined)
        missing = [contact for contact in contacts if contact.user not in present]
        for start in range(0, len(missing), ADD_BATCH):
            some = missing[start : start + ADD_BATCH]
            claimed = await gather([self.claim(contact, joined.uri.domain) for contact in some])
            added = self._added_for(joined)
            with self.vault.transaction():
                for contact, packages in zip(some, claimed, strict=True):
                    for package in packages:
                        added[str(client_of(package)).encode()] = str(contact.user).encode()
            await self._commit(joined, add=[package for packages in claimed for package in packages])
        await self._commit(joined)

    def _present(self, joined: Joined) -> set[MimiUri]:
        """Whose leaves are in a room, as far as this client can tell; those that are to be removed don't count."""
        entries = self.who(joined)
        clients = {str(entry.client).encode() for entry in entries}
        added = self._added_for(joined)
        for gone in [client for client in added if client not in clients]:
            del added[gone]
        users = (self._user_at(joined, entry) for entry in entries if entry.client not in joined.departures)
        return {user for user in users if user is not None}

    async def _be_decided(self, joined: Joined) -> None:
        """Know what became of a commit that is on its way, before deciding by who is in the room."""
        async with joined.lock:
            settled = await self._settle_commit(joined)
        if not settled:
            await self.sync(joined)

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
    ) -> bool:
        """Commit; when another commit came first, follow that one and try again, for what is still to be done.

        False if there was nothing left to be done: somebody else has removed whom this was to remove.
        """
        intent = CommitIntent(
            tuple(add),
            joined.room.members.at(remove),
            tuple(departures),
            (lambda _: policy(joined.room)) if policy else None,
            (lambda _: state(joined.room)) if state else None,
            reveal,
        )
        for _ in range(COMMIT_ATTEMPTS):
            async with joined.lock:
                await self._settle_commit(joined)
                due = intent.due(joined.room.members)
                if due is None:
                    return False
                with self._changing(joined):
                    joined.unanswered = joined.room.stage(due)
                    self._keep(joined)
                if await self._settle_commit(joined):
                    return True
            await self.sync(joined, wait=5.0)
        raise RoomError(f"{COMMIT_ATTEMPTS} commits in a row lost to others'")

    async def reopen(self, joined: Joined) -> None:
        """As an admin, have the hub undo the last commit, which members can't process; then heal.

        Raises `RoomError` if this member could process it, and what the hub says.
        """
        if joined.unprocessed is None:
            raise RoomError("there is no commit that this member could not process")
        await self._report(joined, RepairKind.REOPEN)
        joined.unprocessed = None
        await self._commit(joined)

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
        if content.kind in HISTORY:
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
