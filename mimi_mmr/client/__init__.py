"""What an application programs against: one user's device, its contacts and its rooms.

Async. State is in memory: the MLS library keeps KeyPackage secrets in the process, so a client lives as long as
its process does.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import ssl
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from mimi_mmr.account import Account
from mimi_mmr.certificates import TrustAnchors
from mimi_mmr.connections import (
    ConnectionKeyOffer,
    make_response,
    open_response,
    seal_response,
)
from mimi_mmr.contacts import Contact, IncomingRequest, OutgoingRequest
from mimi_mmr.content import AssetReference, Content, ContentKind, seal_asset
from mimi_mmr.credentials import VerifiedDevice, resolve
from mimi_mmr.endpoints import (
    AssetLocation,
    ReplyDeposit,
)
from mimi_mmr.errors import (
    BindingRejected,
    ConnectionRefused,
    EngineError,
    HubRefusal,
    IdentityError,
    MmrError,
    NotAllowed,
    ParseError,
    PeerError,
    PrivatePathFailed,
    RoomError,
    SealedBoxRejected,
    WrongEpoch,
    from_code,
)
from mimi_mmr.hub.messages import (
    ApplicationEvent,
    CommitEvent,
    EventKind,
    FanoutMessage,
    RepairKind,
    Snapshot,
    SnapshotTBS,
    UpdateCode,
    UpdateRoomResponse,
    WelcomeEvent,
    sign_snapshot,
)
from mimi_mmr.hub.policy import Identities
from mimi_mmr.keypackages import (
    CLAIM_LIFETIME,
    KeyMaterialClaim,
    KeyPackageSet,
    OpenKeyPackage,
    SetUploadTBS,
    check_set,
    fetch_token,
    open_answer,
    seal_claim,
    shelf_id,
    sign_upload,
    unwrap,
    wrap,
)
from mimi_mmr.leaves import PreparedKeyPackage, PreparedLeaf
from mimi_mmr.mls.engine import MlsEngine
from mimi_mmr.mls.mls_rs import MlsRsEngine
from mimi_mmr.private_path import PrivatePath, gather
from mimi_mmr.room import PendingCommit, Room, Standing, Whois
from mimi_mmr.sealing import Kem, SealedBox, SealingKey
from mimi_mmr.stock import KeyPackageStock
from mimi_mmr.uris import Kind, MimiUri, random_uri

SET_LIFETIME = 30 * 86400
COMMIT_ATTEMPTS = 8
UPDATE_ATTEMPTS = 4
RETRY_SECONDS = 0.5
ADD_BATCH = 100
CLOCK_STEP = 300  # a clock's error is a mark: say no more of the time than is needed


@dataclass(frozen=True, slots=True)
class Message:
    """A message that came in a room: what, and from whom, as the room knew its sender when it came."""

    sender: Whois
    content: Content

    @property
    def text(self) -> str:
        """The text; "" for another kind of content."""
        return self.content.body.decode(errors="replace") if self.content.kind is ContentKind.TEXT else ""


@dataclass(slots=True)
class Joined:
    """A room that this client is in: its state, its queue, and what came and was not read.

    `problems` says what was wrong with what came. After a commit that the hub accepted and this member could not
    process (`unprocessed`, reported to the hub) an admin has to reopen the room. Once an event was missed the room
    is `desynchronised`: what comes later can't be read, and somebody has to add this client anew.
    """

    room: Room
    leaf: PreparedLeaf
    acknowledged: int = 0
    last_sequence: int = 0
    lost: int = 0
    messages: deque[Message] = field(default_factory=deque)
    problems: list[str] = field(default_factory=list)
    desynchronised: bool = False
    unprocessed: bytes | None = None
    unanswered: PendingCommit | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def uri(self) -> MimiUri:
        """The room's URI."""
        return self.room.uri


@dataclass(slots=True)
class _Waiting:
    """A KeyPackage that is out: somebody may add us with it. `contact` if it is for a connection room."""

    package: PreparedKeyPackage
    contact: Contact | None = None
    acknowledged: int = 0
    failures: int = 0


class Client(Account):
    """One device of one user: its account, its contacts, its rooms."""

    def __init__(
        self,
        user: str,
        device: str,
        domain: str,
        url: str,
        trust: TrustAnchors,
        *,
        ssl_context: ssl.SSLContext | None = None,
        source_address: str | None = None,
        engine: MlsEngine | None = None,
        key_package_slot: float = 60.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """A client of `user` at provider `domain`, reached at `url`.

        KeyPackages say the second in which they were made; they are made at multiples of `key_package_slot`
        seconds, together with everybody else's.
        """
        path = PrivatePath(
            domain, url, trust, ssl_context=ssl_context, source_address=source_address, clock=clock
        )
        super().__init__(
            MimiUri(domain, Kind.USER, user), MimiUri(domain, Kind.DEVICE, device), path, trust, clock
        )
        self.contacts: dict[MimiUri, Contact] = {}
        self.rooms: dict[MimiUri, Joined] = {}
        self._stock = KeyPackageStock(
            engine or MlsRsEngine(), self.path, self._queues, key_package_slot, clock
        )
        self._waiting: dict[bytes, _Waiting] = {}
        self._introductions: deque[tuple[Contact, Joined]] = deque()
        self._looking = asyncio.Lock()

    # --- connecting ----------------------------------------------------------------------------------

    async def accept(self, incoming: IncomingRequest) -> Contact:
        """Say yes, with a KeyPackage for the connection room, which the requester will make.

        Raises `BindingRejected` if the user is a contact already, with another identity key.
        """
        self._check_known(incoming.device)
        contact = Contact(incoming.device, pinned=False)
        package = (await self._stock.take(self.me, 1))[0]
        response = make_response(self.me, incoming.request.hash, [package.open])
        content = incoming.request.content
        sealed = seal_response(response, content.connection_response_key)
        self._waiting[package.ref] = _Waiting(package, contact)
        inbox = content.reply_inbox
        body = ReplyDeposit(inbox.queue, sealed).to_bytes()
        await self.path.call(inbox.domain, "POST", "/v1/replyInbox", body)
        await self._settle(incoming)
        return contact

    async def complete_connection(self, outgoing: OutgoingRequest, wait: float = 20.0) -> Contact | None:
        """Look for the response; if it is there, make the connection room. None if it isn't yet."""
        page = await self._queues.collect(outgoing.inbox, 0, wait)
        for queued in page.messages:
            try:
                packages, device = self._open_response(outgoing, queued.message)
            except (IdentityError, ConnectionRefused, SealedBoxRejected, ParseError) as error:
                self.refused.append(f"connection response: {error}")
                continue
            contact = Contact(device, outgoing.pinned)
            joined = await self.create_room()
            contact.room = joined.uri
            await self._commit(joined, add=packages)
            await self._commit(joined)  # an Add-only commit heals nobody: this one does
            await self._introduce(contact, joined)
            return contact
        return None

    def _open_response(
        self, outgoing: OutgoingRequest, message: bytes
    ) -> tuple[list[OpenKeyPackage], VerifiedDevice]:
        self._check_known(outgoing.recipient)
        request_hash = outgoing.request.hash
        box = SealedBox.from_bytes(message)
        response = open_response(box, outgoing.response_key, request_hash)
        device = response.verify(request_hash, outgoing.recipient, self.trust, self._clock())
        packages = list(response.content.key_packages)
        self._check_packages(packages, device)
        return packages, device

    def _check_known(self, device: VerifiedDevice) -> None:
        """An identity key, once known, is not replaced in passing."""
        known = self.contacts.get(device.user)
        if known is not None and known.device.identity_key != device.identity_key:
            raise BindingRejected("a contact of this name has another identity key")

    async def _introduce(self, contact: Contact, joined: Joined) -> None:
        """Send this side's connection key; from then on the contact can fetch KeyPackages."""
        self._check_known(contact.device)
        known = self.contacts.get(contact.user)
        contact.pinned = contact.pinned or (known is not None and known.pinned)
        self.contacts[contact.user] = contact
        content = Content(ContentKind.CONNECTION_KEY, contact.offer().to_bytes())
        await self.send(joined, content)

    # --- KeyPackages ---------------------------------------------------------------------------------

    async def publish_key_packages(self, contact: Contact, count: int = 1) -> None:
        """Put `count` sets on the shelf of one contact, through another provider's relay."""
        token = fetch_token(contact.own_key)
        shelf = shelf_id(token, contact.upload_key.public)
        for package in await self._stock.take(self.me, count):
            self._waiting[package.ref] = _Waiting(package)
            entries = KeyPackageSet((wrap(package.open, contact.own_key),))
            expiry = int(self._clock()) // 86400 * 86400 + SET_LIFETIME
            content = SetUploadTBS(shelf, secrets.token_bytes(16), False, expiry, entries)
            upload = sign_upload(content, contact.upload_key)
            await self.path.call(self.user.domain, "POST", "/v1/keyPackages", upload.to_bytes())

    async def prepare_key_packages(self, count: int) -> None:
        """Have at least `count` KeyPackages in stock; see `KeyPackageStock`."""
        await self._stock.prepare(self.me, count)

    async def claim(self, contact: Contact, hub: str) -> list[OpenKeyPackage]:
        """Take a contact's KeyPackage set, through the hub of the room that it is for, which sees neither of us.

        Raises `NoKeyPackages`; a subclass of `IdentityError` when it is somebody else's.
        """
        if contact.theirs is None:
            raise RoomError("this contact has not sent a connection key yet")
        provider = contact.user.domain
        key, keys = SealingKey.generate(Kem.X_WING), await self.path.provider(provider)
        claim = KeyMaterialClaim(
            1,
            hub,
            provider,
            fetch_token(contact.theirs.key).reveal(),
            contact.theirs.upload_public_key,
            key.public,
            int(self._clock()) + CLAIM_LIFETIME,
        )
        request = seal_claim(claim, keys.key_material_key)
        answer = await self.path.call(hub, "POST", f"/v1/keyMaterial/{provider}", request.to_bytes())
        taken = open_answer(SealedBox.from_bytes(answer), key)
        packages = [unwrap(entry, contact.theirs.key) for entry in taken.entries]
        self._check_packages(packages, contact.device)
        return packages

    def _check_packages(self, packages: Sequence[OpenKeyPackage], whose: VerifiedDevice) -> None:
        """Refuse KeyPackages that are not this very person's, whatever provider or hub served them."""
        now = self._clock()
        leaves = check_set([package.key_package for package in packages], now)
        for package, leaf in zip(packages, leaves, strict=True):
            key = leaf.credential.signature_public_key  # which `check_set` has found to be the leaf's
            member = resolve(leaf.credential, package.ilk, key, self.trust, now)
            if (member.device.user, member.device.identity_key) != (whose.user, whose.identity_key):
                raise BindingRejected("a KeyPackage of the set is another user's than the contact's")

    # --- rooms ---------------------------------------------------------------------------------------

    async def create_room(self, identities: Identities = Identities.EVERYONE, arity: int = 16) -> Joined:
        """A new minimal metadata room on one's own provider, with oneself as admin."""
        leaf = await self._stock.leaf(self.me)
        uri = random_uri(self.user.domain, Kind.ROOM, secrets.token_bytes(16))
        room, request = Room.create(uri, leaf, identities, arity)
        await self.path.call(uri.domain, "POST", "/v1/rooms", request.to_bytes())
        joined = self.rooms[uri] = Joined(room, leaf)
        return joined

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
        self, joined: Joined, *, add: Sequence[OpenKeyPackage] = (), remove: Sequence[int] = ()
    ) -> None:
        """Commit; when another commit came first, follow that one and try again."""
        meant = joined.room.participants() if remove else {}
        for _ in range(COMMIT_ATTEMPTS):
            async with joined.lock:
                await self._settle_commit(joined)
                present = joined.room.participants() if remove else {}
                still = [leaf for leaf in remove if present.get(leaf) == meant.get(leaf)]
                if remove and not still:
                    return  # somebody else has removed them
                joined.unanswered = joined.room.stage(add=add, remove=still)
                if await self._settle_commit(joined):
                    return
            await self.sync(joined, wait=5.0)
        raise RoomError(f"{COMMIT_ATTEMPTS} commits in a row lost to others'")

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
            joined.unanswered = None
            pending.reject()
            if isinstance(error, WrongEpoch):
                return False
            raise
        joined.unanswered = None
        pending.accept()
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
        _raise_refusal(UpdateRoomResponse.from_bytes(answer))

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
                _raise_refusal(UpdateRoomResponse.from_bytes(answer))
            except WrongEpoch:
                await self.sync(joined, wait=5.0)
            else:
                return
        raise RoomError(f"the room moved on {COMMIT_ATTEMPTS} times while a message was being sent")

    def who(self, joined: Joined) -> list[Whois]:
        """Every member, resolved as far as policy and credentials allow.

        A contact's identity key is pinned: somebody of that name with another key is unverified in every room.
        """
        return [self._pinned(entry) for entry in joined.room.who(self.trust, self._clock())]

    def _pinned(self, entry: Whois) -> Whois:
        try:
            if entry.member is not None:
                self._check_known(entry.member.device)
        except BindingRejected as error:
            why = f"leaf {entry.leaf}: {error}"
            return replace(entry, standing=Standing.UNVERIFIED, member=None, why=why)
        return entry

    # --- assets --------------------------------------------------------------------------------------

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

    # --- what comes in -------------------------------------------------------------------------------

    async def sync(self, joined: Joined, wait: float = 0.0) -> int:
        """Process what is in a room's queue, waiting up to `wait` seconds for something; how many events."""
        page = await self._queues.collect(joined.leaf.queue, joined.acknowledged, wait)
        async with joined.lock:
            await self._settle_commit(joined)
            joined.lost = page.lost
            for queued in page.messages:
                if queued.sequence > joined.acknowledged:
                    self._process(joined, queued.message)
                    joined.acknowledged = queued.sequence
            if page.messages and joined.room.diverged and not joined.room.removed:
                await self._reconcile(joined)
        if page.messages and joined.unprocessed is not None:
            await self._report(joined, RepairKind.CANNOT_PROCESS)
        return len(page.messages)

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

    async def check_invitations(self, wait: float = 0.0) -> list[Joined]:
        """Look into the queues of KeyPackages that are out, and join what they were used for.

        Waits up to `wait` seconds, or until one of them was used.
        """
        async with self._looking:
            await self._introduce_all()
            joined = await self._join_all(await self._look_into(self._waiting, 0.0))
            if joined or not wait:
                return joined
            # whose hub can't be reached is asked again at the next look, and keeps nobody waiting
            quiet = {ref: waiting for ref, waiting in self._waiting.items() if not waiting.failures}
            return await self._join_all(await self._look_into(quiet, wait))

    async def _join_all(self, used: Sequence[tuple[bytes, FanoutMessage, int]]) -> list[Joined]:
        found = [await self._try_to_join(*invitation) for invitation in used]
        return [joined for joined in found if joined is not None]

    async def _try_to_join(self, ref: bytes, fanout: FanoutMessage, sequence: int) -> Joined | None:
        """Join. What can't be reached now is tried again at the next look; what is no good is passed over.

        The KeyPackage stays out in both cases: a worthless Welcome must not cost us the one that is meant.
        """
        waiting = self._waiting[ref]
        try:
            joined = await self._join(waiting, fanout, sequence)
        except (PrivatePathFailed, PeerError) as error:
            self.refused.append(f"invitation, to be tried again: {error}")
            waiting.failures += 1
            return None
        except MmrError as error:
            self.refused.append(f"invitation: {error}")
            waiting.acknowledged = sequence
            return None
        del self._waiting[ref]
        if waiting.contact is not None:
            self._introductions.append((waiting.contact, joined))
        await self._introduce_all()
        await self.sync(joined)
        return joined

    async def _introduce_all(self) -> None:
        """Send connection keys that are due; one that can't be sent now stays due."""
        while self._introductions:
            contact, joined = self._introductions[0]
            try:
                await self._introduce(contact, joined)
            except (PrivatePathFailed, PeerError) as error:
                self.refused.append(f"introduction, to be tried again: {error}")
                return
            self._introductions.popleft()

    async def _look_into(
        self, queues: Mapping[bytes, _Waiting], wait: float
    ) -> list[tuple[bytes, FanoutMessage, int]]:
        looks = {asyncio.create_task(self._look(ref, waiting, wait)) for ref, waiting in queues.items()}
        used: list[tuple[bytes, FanoutMessage, int]] = []
        until = asyncio.FIRST_COMPLETED if wait else asyncio.ALL_COMPLETED
        try:
            while looks and not used:
                done, looks = await asyncio.wait(looks, return_when=until)
                used += [found for look in done for found in look.result()]
        finally:
            for look in looks:  # nothing is lost: what they would have seen is there for the next look
                look.cancel()
            await asyncio.gather(*looks, return_exceptions=True)
        return used

    async def _look(
        self, ref: bytes, waiting: _Waiting, wait: float
    ) -> list[tuple[bytes, FanoutMessage, int]]:
        """A Welcome is acknowledged when it has been followed; anything else in this queue is not for us yet."""
        page = await self._queues.collect(waiting.package.leaf.queue, waiting.acknowledged, wait)
        for queued in page.messages:
            try:
                fanout = FanoutMessage.from_bytes(queued.message)
            except ParseError as error:
                self.refused.append(f"an event that can't be read: {error}")
            else:
                if fanout.kind is EventKind.WELCOME:
                    return [(ref, fanout, queued.sequence)]
            waiting.acknowledged = queued.sequence
        return []

    async def _join(self, waiting: _Waiting, fanout: FanoutMessage, sequence: int) -> Joined:
        leaf = waiting.package.leaf
        event = WelcomeEvent.from_bytes(fanout.event)
        epoch = event.auth.content.epoch + 1
        room = Room.join(leaf, event, await self._snapshot(fanout.room, epoch, leaf))
        joined = Joined(room, leaf, sequence, fanout.sequence)
        joined.problems += [f"leaf {at}: {problem}" for at, problem in room.problems.items()]
        if waiting.contact is not None:
            self._check_known(waiting.contact.device)
            self._check_connection_room(joined, waiting.contact)
            waiting.contact.room = joined.uri
        self.rooms[joined.uri] = joined
        return joined

    async def _snapshot(self, room: MimiUri, epoch: int, leaf: PreparedLeaf) -> Snapshot:
        tbs = SnapshotTBS(room, epoch, leaf.key.public, int(self._clock()) // CLOCK_STEP * CLOCK_STEP)
        request = sign_snapshot(tbs, leaf.key).to_bytes()
        return Snapshot.from_bytes(
            await self.path.call(room.domain, "POST", f"/v1/snapshot/{room.name}", request)
        )

    def _check_connection_room(self, joined: Joined, contact: Contact) -> None:
        """A connection room holds the two who connect, and nobody else."""
        others = [entry for entry in self.who(joined) if entry.leaf != joined.room.own_leaf]
        found = [
            (entry.member.device.user, entry.member.device.identity_key) for entry in others if entry.member
        ]
        if found != [(contact.user, contact.device.identity_key)] or len(others) != 1:
            raise BindingRejected("the connection room is not one with the person who asked to connect")

    def _process(self, joined: Joined, message: bytes) -> None:
        """One event. What is wrong with it is noted as a problem: the next one must not wait behind it."""
        try:
            fanout = FanoutMessage.from_bytes(message)
        except ParseError as error:
            joined.problems.append(f"an event that can't be read: {error}")
            return
        if fanout.room != joined.uri or fanout.sequence <= joined.last_sequence:
            return  # a repetition, or another room's: at least once is what the hub promises
        try:
            if fanout.kind is EventKind.COMMIT:
                followed = joined.room.follow(CommitEvent.from_bytes(fanout.event), self._clock())
                joined.problems += followed.problems
            elif fanout.kind is EventKind.APPLICATION:
                self._receive(joined, ApplicationEvent.from_bytes(fanout.event).message)
            joined.last_sequence = fanout.sequence  # only now: anybody could have said a number
        except EngineError as error:
            joined.problems.append(f"event {fanout.sequence}: {error}")
            if fanout.kind is EventKind.COMMIT and not joined.room.removed:
                joined.unprocessed = CommitEvent.from_bytes(fanout.event).commit
        except MmrError as error:
            joined.desynchronised |= fanout.kind is EventKind.COMMIT and not joined.room.removed
            joined.problems.append(f"event {fanout.sequence}: {error}")

    def _receive(self, joined: Joined, message: bytes) -> None:
        leaf, content = joined.room.decrypt(message)
        sender = self._pinned(joined.room.whois(leaf, self.trust, self._clock()))
        if content.kind is ContentKind.CONNECTION_KEY:
            self._take_offer(joined, sender, ConnectionKeyOffer.from_bytes(content.body))
        else:
            joined.messages.append(Message(sender, content))

    def _take_offer(self, joined: Joined, sender: Whois, offer: ConnectionKeyOffer) -> None:
        """A connection key counts only in the room with the contact, from the contact."""
        contact = self._contact_of(joined)
        key = sender.member.device.identity_key if sender.member else None
        if contact is None or key != contact.device.identity_key:
            raise ConnectionRefused("a connection key from somebody who is not the contact of this room")
        if contact.theirs is None or offer.key_version > contact.theirs.key_version:
            contact.theirs = offer

    def _contact_of(self, joined: Joined) -> Contact | None:
        return next((contact for contact in self.contacts.values() if contact.room == joined.uri), None)


def _raise_refusal(answer: UpdateRoomResponse) -> None:
    """Raise what the hub said, unless it accepted."""
    if answer.code is UpdateCode.SUCCESS:
        return
    if answer.code is UpdateCode.WRONG_EPOCH:
        raise WrongEpoch(answer.number)
    error = from_code(answer.error_code, answer.error_description)
    # An answer is an answer, also for a reason that is unknown here: a `PeerError` would say that there was none.
    raise HubRefusal(str(error)) if isinstance(error, PeerError) else error
