"""KeyPackages: put on shelves for contacts, taken from theirs, and watched until somebody uses them."""

from __future__ import annotations

import enum
import secrets
import ssl
import time
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass

from mimi_mmr.client.account import Account, saved_account
from mimi_mmr.client.devices.shared import SharedKind
from mimi_mmr.client.key_packages.stock import KeyPackageStock
from mimi_mmr.client.people.contacts import Contact
from mimi_mmr.client.storage.records import SavedContact, SavedInbox, SavedKeyPackage, SavedLeaf, SavedShelf
from mimi_mmr.client.storage.vault import Vault
from mimi_mmr.client.transport.private_path import PrivatePath
from mimi_mmr.crypto.certificates import TrustAnchors
from mimi_mmr.crypto.sealing import Kem, SealedBox, SealingKey
from mimi_mmr.crypto.secret import AccessToken
from mimi_mmr.crypto.signing import SigningKey, key_package_ref
from mimi_mmr.errors import (
    BindingRejected,
    MmrError,
    NotAllowed,
    PeerError,
    PrivatePathFailed,
    RoomError,
    StateError,
)
from mimi_mmr.member.leaves import PreparedKeyPackage
from mimi_mmr.mls.engine import MlsEngine
from mimi_mmr.mls.mls_rs import MlsRsEngine
from mimi_mmr.protocol.credentials import VerifiedDevice, resolve
from mimi_mmr.protocol.key_packages import (
    CLAIM_LIFETIME,
    KeyMaterialClaim,
    KeyPackageSet,
    OpenKeyPackage,
    SetUploadTBS,
    ShelfOrderKind,
    ShelfOrderTBS,
    ShelfReport,
    check_set,
    fetch_token,
    open_answer,
    seal_claim,
    sign_order,
    sign_upload,
    unwrap,
    wrap,
)
from mimi_mmr.uris import Kind, MimiUri

DAY, MINUTE = 86400, 60
SET_LIFETIME = 30 * DAY
SET_RENEWAL = 7 * DAY
SETS = 2
LAST_RESORTS = 2
UPLOAD_ATTEMPTS = 3


class Errand(enum.IntEnum):
    """What is owed to one's own provider."""

    DELETE_QUEUE = 1
    CLOSE_SHELF = 2


class Shelf:
    """A contact's shelf as it is now: while sets for it are being made, its key may change."""

    def __init__(self, contact: Contact) -> None:
        """Of this contact."""
        self.id, self.key, self.upload_key = contact.shelf, contact.own_key, contact.upload_key


@dataclass(slots=True, eq=False)
class Inbox:
    """A queue as its reader knows it: how far it was read, and how many messages the provider lost."""

    token: AccessToken
    acknowledged: int = 0
    lost: int = 0


@dataclass(slots=True, eq=False)
class Waiting:
    """A KeyPackage that is out: somebody may add us with it.

    `contact` if it is for the connection room with somebody; else `user` may say for whose shelf it was made, and
    `serial` in which set; or `room` that it is for this one only. Once the process that made it ended it is `dead`:
    its private keys are gone, and a Welcome for it leads to a request to be added again. `reused` if it is a last
    resort that was given away more than once; `used` counts the Welcomes that came, `failures` the times that
    joining failed; `not_before` (by the event loop's clock) is when to try again.
    """

    package: PreparedKeyPackage
    inbox: Inbox
    expiry: int
    contact: Contact | None = None
    user: MimiUri | None = None
    serial: bytes = b""
    last_resort: bool = False
    room: MimiUri | None = None
    dead: bool = False
    reused: bool = False
    used: int = 0
    failures: int = 0
    not_before: float = 0.0


class Shelves(Account):
    """An account with contacts, and KeyPackage sets for each of them on a shelf of its own."""

    def __init__(
        self,
        user: str,
        device: str,
        domain: str,
        url: str,
        trust: TrustAnchors,
        *,
        vault: Vault | None = None,
        ssl_context: ssl.SSLContext | None = None,
        source_address: str | None = None,
        engine: MlsEngine | None = None,
        key_package_slot: float = 60.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """A client of `user` at provider `domain`, reached at `url`; as `vault` has it, or new.

        Without a vault nothing outlives the process. KeyPackages say the second in which they were made; they are
        made at multiples of `key_package_slot` seconds, together with everybody else's.
        """
        person, this = MimiUri(domain, Kind.USER, user), MimiUri(domain, Kind.DEVICE, device)
        vault = vault or Vault.in_memory()
        saved = saved_account(vault)
        if saved is not None and (saved.user, saved.device) != (person, this):
            raise StateError(f"the state is that of {saved.user} on {saved.device}")
        path = PrivatePath(
            domain, url, trust, ssl_context=ssl_context, source_address=source_address, clock=clock
        )
        super().__init__(person, this, url, path, trust, vault, clock)
        self._engine = engine or MlsRsEngine()
        self._stock = KeyPackageStock(
            self._engine, path, self._queues, key_package_slot, clock, self._mls_rows
        )
        self._inbox_rows = self.vault.table("inboxes")
        self._waiting_rows = self.vault.table("key packages")
        self._errands = self.vault.table("errands")
        saved_inboxes = (SavedInbox.from_bytes(row) for row in self._inbox_rows.values())
        self._inboxes = {
            saved.token: Inbox(AccessToken(saved.token), saved.acknowledged, saved.lost)
            for saved in saved_inboxes
        }
        self.contacts: dict[MimiUri, Contact] = {}
        for _, value in self._shared.items(SharedKind.CONTACT):
            contact = SavedContact.from_bytes(value).contact()
            self.contacts[contact.user] = contact
        self._waiting: dict[bytes, Waiting] = {
            ref: self._restored_waiting(SavedKeyPackage.from_bytes(row))
            for ref, row in self._waiting_rows.items()
        }

    # --- what is kept --------------------------------------------------------------------------------

    def _mls_rows(self, leaf_key: SigningKey) -> MutableMapping[bytes, bytes]:
        return self.vault.table(f"mls {leaf_key.public.hex()}")

    def _keep_contact(self, contact: Contact) -> None:
        self.contacts[contact.user] = contact
        self._shared.put(SharedKind.CONTACT, str(contact.user).encode(), SavedContact.of(contact).to_bytes())

    def _inbox(self, token: AccessToken) -> Inbox:
        return self._inboxes.setdefault(token.reveal(), Inbox(token))

    def _keep_inbox(self, inbox: Inbox) -> None:
        saved = SavedInbox(inbox.token.reveal(), inbox.acknowledged, inbox.lost)
        self._inbox_rows[saved.token] = saved.to_bytes()

    async def _drop_inbox(self, inbox: Inbox) -> None:
        """A queue that nobody is to write to any more; deleted now or, if that fails, another time."""
        self._close_inbox(inbox)
        await self.run_errands()

    def _close_inbox(self, inbox: Inbox) -> None:
        token = inbox.token.reveal()
        with self.vault.transaction():
            self._inboxes.pop(token, None)
            self._inbox_rows.pop(token, None)
            self._errands[bytes([Errand.DELETE_QUEUE]) + token] = b""

    def _restored_waiting(self, saved: SavedKeyPackage) -> Waiting:
        leaf = saved.leaf.leaf(self._engine, self._mls_rows(saved.leaf.key()))
        package = PreparedKeyPackage(leaf, saved.key_package)
        inbox = self._inbox(package.leaf.queue)
        return Waiting(
            package,
            inbox,
            saved.expiry,
            None,
            saved.user,
            saved.serial,
            saved.last_resort,
            saved.room,
            dead=True,
        )

    def _await_use(
        self,
        package: PreparedKeyPackage,
        *,
        contact: Contact | None = None,
        user: MimiUri | None = None,
        serial: bytes = b"",
        last_resort: bool = False,
        room: MimiUri | None = None,
    ) -> Waiting:
        """From now on look whether this KeyPackage was used; before anybody else gets it."""
        expiry = int(self._clock()) // DAY * DAY + SET_LIFETIME
        waiting = Waiting(
            package, self._inbox(package.leaf.queue), expiry, contact, user, serial, last_resort, room
        )
        self._waiting[package.ref] = waiting
        self._waiting_rows[package.ref] = SavedKeyPackage(
            package.key_package,
            SavedLeaf.of(package.leaf),
            contact.user if contact else user,
            serial,
            last_resort,
            room,
            expiry,
        ).to_bytes()
        self._keep_inbox(waiting.inbox)
        return waiting

    def _no_longer_wait(self, waiting: Waiting) -> None:
        self._waiting.pop(waiting.package.ref, None)
        self._waiting_rows.pop(waiting.package.ref, None)

    def _forget_waiting(self, waiting: Waiting) -> None:
        """A KeyPackage that nobody can use any more, or is to use, and its queue."""
        with self.vault.transaction():
            self._no_longer_wait(waiting)
            if not waiting.used:
                self.vault.drop(f"mls {waiting.package.leaf.key.public.hex()}")
                self._close_inbox(waiting.inbox)

    def _waiting_for(self, user: MimiUri) -> list[Waiting]:
        """KeyPackages that were made for somebody, on a shelf or in an answer."""
        return [
            one
            for one in self._waiting.values()
            if user in (one.user, one.contact.user if one.contact else None)
        ]

    # --- what has to be done sooner or later ---------------------------------------------------------

    async def run_errands(self) -> None:
        """Delete queues and close shelves that are done with; what can't be done now stays due."""
        for errand, row in list(self._errands.items()):
            try:
                if errand[0] == Errand.DELETE_QUEUE:
                    await self._queues.delete(AccessToken(errand[1:]))
                else:
                    self._taken_back(await self._close(SavedShelf.from_bytes(row)))
            except (PrivatePathFailed, PeerError) as error:
                self.refused.append(f"an errand, to be tried again: {error}")
                continue
            except MmrError as error:
                self.refused.append(f"an errand: {error}")
            self._errands.pop(errand, None)

    async def _close(self, shelf: SavedShelf) -> ShelfReport:
        order = ShelfOrderTBS(shelf.shelf, self._rounded(), ShelfOrderKind.CLOSE, ())
        body = sign_order(order, SigningKey.from_seed(shelf.upload_seed)).to_bytes()
        return ShelfReport.from_bytes(
            await self.path.call(self.user.domain, "POST", "/v1/keyPackages/order", body)
        )

    def _taken_back(self, report: ShelfReport) -> None:
        """What nobody took from a shelf nobody will use; what somebody took stays watched."""
        unused = {entry.serial for entry in report.taken_back if not entry.uses}
        for waiting in [one for one in self._waiting.values() if one.serial in unused]:
            self._forget_waiting(waiting)

    def _rounded(self) -> int:
        """The time as far as an anonymous order has to tell it: a clock's error is a mark."""
        return int(self._clock()) // MINUTE * MINUTE

    def _sweep(self) -> None:
        """Look no longer after KeyPackages that nobody may use any more."""
        for waiting in [one for one in self._waiting.values() if one.expiry < self._clock()]:
            self._forget_waiting(waiting)

    # --- putting on a shelf --------------------------------------------------------------------------

    async def prepare_key_packages(self, count: int) -> None:
        """Have at least `count` KeyPackages in stock; see `KeyPackageStock`."""
        await self._stock.prepare(self.me, count)

    async def publish_key_packages(
        self, contact: Contact, count: int = 1, *, last_resort: bool = False
    ) -> None:
        """Put `count` sets on the shelf of one contact, through another provider's relay.

        A last resort is given away when there is nothing else, and may be given away more than once.
        """
        shelf = Shelf(contact)
        made = await self._stock.take(self.me, count)
        serials = [secrets.token_bytes(16) for _ in made]
        for package, serial in zip(made, serials, strict=True):
            self._await_use(package, user=contact.user, serial=serial, last_resort=last_resort)
        keys = [package.leaf.set_key for package in made]
        others = await self._of_other_devices(keys, contact, serials, last_resort=last_resort)
        for package, serial, more in zip(made, serials, others, strict=True):
            packages = sorted([package.open, *more], key=lambda one: key_package_ref(one.key_package))
            try:
                await self._upload(shelf, serial, packages, last_resort=last_resort)
            except NotAllowed:  # the shelf is closed: nobody will ever see this set
                self._forget_waiting(self._waiting[package.ref])
                if contact.shelf == shelf.id:
                    raise

    async def _of_other_devices(
        self, set_keys: Sequence[SigningKey], contact: Contact, serials: Sequence[bytes], *, last_resort: bool
    ) -> list[list[OpenKeyPackage]]:
        """What this user's other devices add to sets: for each set, their KeyPackages."""
        return [[] for _ in set_keys]

    async def _upload(
        self, shelf: Shelf, serial: bytes, packages: Sequence[OpenKeyPackage], *, last_resort: bool
    ) -> None:
        """Upload a set; the very same again while answers are lost, and watched in any case."""
        entries = KeyPackageSet(tuple(wrap(package, shelf.key) for package in packages))
        expiry = int(self._clock()) // DAY * DAY + SET_LIFETIME
        content = SetUploadTBS(shelf.id, serial, last_resort, expiry, entries)
        upload = sign_upload(content, shelf.upload_key).to_bytes()
        for attempt in reversed(range(UPLOAD_ATTEMPTS)):
            try:
                await self.path.call(self.user.domain, "POST", "/v1/keyPackages", upload)
            except (PrivatePathFailed, PeerError):
                if not attempt:
                    raise
            else:
                return

    async def _order(
        self, contact: Contact, kind: ShelfOrderKind, serials: Sequence[bytes] = ()
    ) -> ShelfReport:
        """A signed order for a contact's shelf; an empty report if there is no such shelf (yet)."""
        content = ShelfOrderTBS(contact.shelf, self._rounded(), kind, tuple(sorted(serials)))
        order = sign_order(content, contact.upload_key).to_bytes()
        try:
            return ShelfReport.from_bytes(
                await self.path.call(self.user.domain, "POST", "/v1/keyPackages/order", order)
            )
        except NotAllowed:
            return ShelfReport((), ())

    def _renew_shelf(self, contact: Contact) -> None:
        """A new connection key and shelf for a contact; the old shelf is closed by the next errands.

        What the old key fetches is then what an unknown one does. Inside a transaction.
        """
        saved = SavedShelf(contact.shelf, contact.upload_key.seed())
        self._errands[bytes([Errand.CLOSE_SHELF]) + contact.shelf] = saved.to_bytes()
        contact.rotate()
        self._keep_contact(contact)

    async def tend_shelf(self, contact: Contact) -> None:
        """Bring a contact's shelf up to what it should hold.

        Sets whose keys a restart has lost, sets about to expire, and last resorts that were used are taken back
        and replaced.
        """
        await self._replace_sets(contact)
        report = await self._order(contact, ShelfOrderKind.REPORT)
        single = sum(1 for one in report.sets if not one.last_resort)
        if single < SETS:
            await self.publish_key_packages(contact, SETS - single)
        last = sum(1 for one in report.sets if one.last_resort)
        if last < LAST_RESORTS:
            await self.publish_key_packages(contact, LAST_RESORTS - last, last_resort=True)

    async def _replace_sets(self, contact: Contact) -> None:
        report = await self._order(contact, ShelfOrderKind.REPORT)
        now = self._clock()
        mine = {one.serial: one for one in self._waiting.values() if one.user == contact.user and one.serial}
        lost = {serial for serial, one in mine.items() if one.dead}
        stale = [
            one.serial
            for one in report.sets
            if one.expiry < now + SET_RENEWAL or one.uses or one.serial in lost
        ]
        taken = await self._order(contact, ShelfOrderKind.TAKE_BACK, stale) if stale else ShelfReport((), ())
        for entry in taken.taken_back:
            if entry.uses:
                self._reused(contact, mine.get(entry.serial), entry.uses)
        unused = {entry.serial for entry in taken.taken_back if not entry.uses}
        for serial, waiting in mine.items():
            # What somebody took stays watched; what nobody took, and nobody can take now, does not.
            if serial in unused:
                self._forget_waiting(waiting)

    def _reused(self, contact: Contact, waiting: Waiting | None, uses: int) -> None:
        """A last resort was given away: it is replaced, and rooms that share it are to be told apart again."""
        times = (
            "once"
            if uses == 1
            else f"{uses} times: whoever sees those rooms can link them until they are changed"
        )
        self.notices.add(
            f"a last-resort KeyPackage for {contact.user} was used {times}; it is replaced", self._clock()
        )
        if waiting is not None and uses > 1:
            waiting.reused = True

    # --- taking from somebody else's -----------------------------------------------------------------

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
            self._rounded() + CLAIM_LIFETIME,
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
            self._check_known(member.device)

    def _check_known(self, device: VerifiedDevice) -> None:
        """An identity key, once known, is not replaced in passing."""
        known = self.contacts.get(device.user)
        if known is not None and known.device.identity_key != device.identity_key:
            raise BindingRejected("a contact of this name has another identity key")
