"""Shelves: this user's provider holds one for each contact, from which the contact takes KeyPackage sets."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from mimi_mmr.client.context import Context
from mimi_mmr.client.key_packages.maker import KeyPackageMaker
from mimi_mmr.client.key_packages.other_devices import OtherDevices
from mimi_mmr.client.key_packages.outstanding import OutstandingKeyPackage, OutstandingKeyPackages
from mimi_mmr.client.people.contact_book import ContactBook
from mimi_mmr.client.people.contacts import Contact
from mimi_mmr.client.storage.records import SavedShelf
from mimi_mmr.client.transport.errands import Errand, Errands
from mimi_mmr.crypto.signing import SigningKey, key_package_ref
from mimi_mmr.errors import NotAllowed, PeerError, PrivatePathFailed
from mimi_mmr.protocol.endpoints import ORDER_SHELF, UPLOAD_KEY_PACKAGES
from mimi_mmr.protocol.key_packages import (
    KeyPackageSet,
    OpenKeyPackage,
    SetUploadTBS,
    ShelfOrderKind,
    ShelfOrderTBS,
    ShelfReport,
    sign_order,
    sign_upload,
    wrap,
)

DAY, MINUTE = 86400, 60
SET_LIFETIME = 30 * DAY
SET_RENEWAL = 7 * DAY
SETS = 2
LAST_RESORTS = 2
UPLOAD_ATTEMPTS = 3


class Shelf:
    """The current id and keys of a contact's shelf; the contact's may change while sets for it are made."""

    def __init__(self, contact: Contact) -> None:
        """Note the id and keys of a contact's shelf."""
        self.id, self.key, self.upload_key = contact.shelf, contact.own_key, contact.upload_key


class Shelves:
    """The contacts' shelves: sets are uploaded there, and replaced when they are used or about to expire."""

    def __init__(
        self,
        context: Context,
        contacts: ContactBook,
        maker: KeyPackageMaker,
        outstanding: OutstandingKeyPackages,
        errands: Errands,
        other_devices: OtherDevices,
    ) -> None:
        self._context = context
        self._contacts = contacts
        self._maker = maker
        self._outstanding = outstanding
        self._errands = errands
        self._other_devices = other_devices

    # --- putting sets there --------------------------------------------------------------------------

    async def publish(self, contact: Contact, count: int = 1, *, last_resort: bool = False) -> None:
        """Put `count` sets on the shelf of one contact, through another provider's relay.

        The provider gives out a last resort when there is no other set, and may give it out more than once.
        """
        shelf = Shelf(contact)
        made = await self._maker.take(count)
        serials = [secrets.token_bytes(16) for _ in made]
        for package, serial in zip(made, serials, strict=True):
            self._outstanding.watch(package, user=contact.user, serial=serial, last_resort=last_resort)
        keys = [package.leaf.set_key for package in made]
        others = await self._other_devices.for_sets(keys, contact, serials, last_resort=last_resort)
        for package, serial, more in zip(made, serials, others, strict=True):
            packages = sorted([package.open, *more], key=lambda one: key_package_ref(one.key_package))
            try:
                await self.upload(shelf, serial, packages, last_resort=last_resort)
            except NotAllowed:  # the shelf is closed: nobody can fetch this set
                item = self._outstanding.get(package.ref)
                if item is not None:
                    self._outstanding.forget(item)
                if contact.shelf == shelf.id:
                    raise

    async def upload(
        self, shelf: Shelf, serial: bytes, packages: Sequence[OpenKeyPackage], *, last_resort: bool
    ) -> None:
        """Upload a set, and repeat the same upload while answers are lost.

        Its KeyPackages are watched in any case.
        """
        entries = KeyPackageSet(tuple(wrap(package, shelf.key) for package in packages))
        expiry = self._context.rounded(DAY) + SET_LIFETIME
        content = SetUploadTBS(shelf.id, serial, last_resort, expiry, entries)
        upload = sign_upload(content, shelf.upload_key)
        for attempt in reversed(range(UPLOAD_ATTEMPTS)):
            try:
                await self._context.path.ask(UPLOAD_KEY_PACKAGES, self._context.user.domain, upload)
            except (PrivatePathFailed, PeerError):
                if not attempt:
                    raise
            else:
                return

    # --- looking after them --------------------------------------------------------------------------

    async def tend(self, contact: Contact) -> None:
        """Fill a contact's shelf up to the number of sets that it should hold.

        Sets whose keys a restart has lost, sets about to expire, and last resorts that were used are taken back
        and replaced.
        """
        await self._replace_sets(contact)
        report = await self._order(contact, ShelfOrderKind.REPORT)
        single = sum(1 for one in report.sets if not one.last_resort)
        if single < SETS:
            await self.publish(contact, SETS - single)
        last = sum(1 for one in report.sets if one.last_resort)
        if last < LAST_RESORTS:
            await self.publish(contact, LAST_RESORTS - last, last_resort=True)

    async def _replace_sets(self, contact: Contact) -> None:
        report = await self._order(contact, ShelfOrderKind.REPORT)
        now = self._context.clock()
        mine = {one.serial: one for one in self._outstanding if one.user == contact.user and one.serial}
        lost = {serial for serial, one in mine.items() if one.keys_are_lost}
        stale = [
            one.serial
            for one in report.sets
            if one.expiry < now + SET_RENEWAL or one.uses or one.serial in lost
        ]
        taken = await self._order(contact, ShelfOrderKind.TAKE_BACK, stale) if stale else ShelfReport((), ())
        for entry in taken.taken_back:
            if entry.uses:
                self._note_use(contact, mine.get(entry.serial), entry.uses)
        unused = {entry.serial for entry in taken.taken_back if not entry.uses}
        for serial, item in mine.items():
            # Only a set that somebody took stays watched: the others can't be taken any more.
            if serial in unused:
                self._outstanding.forget(item)

    def _note_use(self, contact: Contact, item: OutstandingKeyPackage | None, uses: int) -> None:
        """Add a notice that a last resort was used.

        If it was used for several rooms, it is marked, so that this client changes its pseudonyms there.
        """
        times = (
            "once"
            if uses == 1
            else f"{uses} times: whoever sees those rooms can link them until they are changed"
        )
        self._context.notify(f"a last-resort KeyPackage for {contact.user} was used {times}; it is replaced")
        if item is not None and uses > 1:
            item.reused = True

    async def _order(
        self, contact: Contact, kind: ShelfOrderKind, serials: Sequence[bytes] = ()
    ) -> ShelfReport:
        """Send a signed order for a contact's shelf; an empty report if there is no such shelf (yet)."""
        content = ShelfOrderTBS(contact.shelf, self._context.rounded(MINUTE), kind, tuple(sorted(serials)))
        try:
            return await self.send_order(content, contact.upload_key)
        except NotAllowed:
            return ShelfReport((), ())

    async def send_order(self, content: ShelfOrderTBS, upload_key: SigningKey) -> ShelfReport:
        """Sign an order for a shelf and send it; raises `NotAllowed` if there is no such shelf."""
        order = sign_order(content, upload_key)
        return await self._context.path.ask(ORDER_SHELF, self._context.user.domain, order)

    # --- another one ---------------------------------------------------------------------------------

    def renew(self, contact: Contact) -> None:
        """Give a contact a new connection key and shelf; an errand closes the old shelf.

        The old key then fetches the same as an unknown one. Call this inside a transaction.
        """
        saved = SavedShelf(contact.shelf, contact.upload_key.seed())
        self._errands.owe(Errand.CLOSE_SHELF, contact.shelf, saved.to_bytes())
        contact.rotate()
        self._contacts.save(contact)

    async def close(self, row: bytes) -> None:
        """Close the old shelf that an errand names, and drop the KeyPackages that nobody took from it."""
        shelf = SavedShelf.from_bytes(row)
        order = ShelfOrderTBS(shelf.shelf, self._context.rounded(MINUTE), ShelfOrderKind.CLOSE, ())
        report = await self.send_order(order, SigningKey.from_seed(shelf.upload_seed))
        self._outstanding.forget_taken_back(report)
