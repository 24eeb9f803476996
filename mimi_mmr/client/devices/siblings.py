"""A user's devices among themselves: who they are, and what they tell each other, in a room of their own.

It is at the user's provider. They speak there as clients do; nobody else is in it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from mimi_mmr.client.devices.shared import MAX_STEP, SharedEntries, SharedEntry, SharedKind, batches
from mimi_mmr.client.key_packages.shelves import Waiting
from mimi_mmr.client.people.connecting import MAX_REMOVED, Connecting
from mimi_mmr.client.rooms.rooms import Joined
from mimi_mmr.client.storage.records import SavedContact, SavedPackage
from mimi_mmr.errors import BindingRejected, MmrError, RoomError, StateError
from mimi_mmr.member.whois import Whois
from mimi_mmr.protocol.content import Content, ContentKind
from mimi_mmr.protocol.credentials import VerifiedDevice
from mimi_mmr.uris import MimiUri

_DEVICES_ROOM = b"devices"


class Siblings(Connecting):
    """A device that has others beside it."""

    def _open_siblings(self) -> None:
        self._own_rows = self.vault.table("own")
        self._newcomers = self.vault.table("devices to be told everything")
        self._abandoned: list[MimiUri] = []
        self.refused += [f"shared state: {problem}" for problem in self._shared.unreadable]

    # --- who they are --------------------------------------------------------------------------------

    def devices(self) -> list[str]:
        """Names of all of this user's devices, this one included; without those that are being removed."""
        return sorted({self.device.name, *self._other_devices()})

    def _other_devices(self) -> list[str]:
        known = (key.decode() for key, _ in self._shared.items(SharedKind.DEVICE))
        return sorted(name for name in known if name != self.device.name)

    def _removed_devices(self) -> set[str]:
        """Names of devices that were removed, whether or not all of it is done by now."""
        return {key.decode() for key in self._shared.gone(SharedKind.DEVICE)} - {self.device.name}

    def _has_devices(self) -> bool:
        return self.devices_room is not None  # also one that has just come in, and has been told of nobody

    @property
    def devices_room(self) -> Joined | None:
        """The room of this user's devices; None while there is one device only."""
        row = self._own_rows.get(_DEVICES_ROOM)
        return self.rooms.get(MimiUri.parse(row.decode())) if row else None

    def _keep_devices_room(self, room: MimiUri) -> None:
        self._own_rows[_DEVICES_ROOM] = str(room).encode()

    def _device_at(self, joined: Joined, leaf: int) -> str:
        """The device at one of this user's leaves; "" where names are hidden."""
        try:
            return joined.room.resolve(leaf, self.trust, self._clock()).device.device.name
        except MmrError:
            return ""

    def _placed(self, waiting: Waiting, room: MimiUri) -> None:
        super()._placed(waiting, room)
        if waiting.user == self.user:
            self._keep_devices_room(room)

    async def _entered(self, joined: Joined) -> None:
        """Tell the other devices which leaf is this one's: where names are hidden they couldn't know."""
        pseudonym = joined.leaf.identity.credential.client_pseudonym
        place = self._leaf_key(joined.uri, self.device.name)
        self._shared.put(SharedKind.LEAF, place, str(pseudonym).encode())
        await super()._entered(joined)

    def _leaf_key(self, room: MimiUri, device: str) -> bytes:
        return f"{room} {device}".encode()

    def _told_leaves(self, room: MimiUri) -> dict[bytes, str]:
        """Client pseudonyms in a room that this user's devices have said are theirs."""
        told = (
            (self._shared.get(SharedKind.LEAF, self._leaf_key(room, name)), name) for name in self.devices()
        )
        return {pseudonym: name for pseudonym, name in told if pseudonym is not None}

    async def _attempt(self, work: Callable[[], Awaitable[object]]) -> MmrError | None:
        """Do one of several things, none of which is to keep the others from being done; its error, if any."""
        try:
            await work()
        except MmrError as error:
            self.refused.append(f"devices, to be tried again: {error}")
            return error
        return None

    # --- what they tell each other -------------------------------------------------------------------

    async def share(self) -> None:
        """Tell the other devices what they don't know yet, and one that has just come in everything."""
        room = self.devices_room
        if room is None or room.room.removed:
            return
        present = {str(who.credential.client_pseudonym).encode() for who in room.room.participants().values()}
        with self.vault.transaction():
            for newcomer in present & self._newcomers.keys():
                self._shared.all_unsent()
                del self._newcomers[newcomer]
        for batch in batches(self._shared.unsent()):
            await self._tell(room, Content(ContentKind.SHARED_STATE, batch.to_bytes()))
            self._shared.sent(batch.entries)

    async def _tell(self, room: Joined, content: Content) -> None:
        """Say something in the devices' room, where it may hold keys: never while a removed one still listens."""
        await self._before_telling(room)
        await self.send(room, content)

    async def _before_telling(self, room: Joined) -> None:
        """For the floors above."""

    def _instructed(self, joined: Joined, sender: Whois, content: Content) -> None:
        if content.kind is not ContentKind.SHARED_STATE:
            super()._instructed(joined, sender, content)
            return
        device = self._sibling(joined, sender)
        for entry in SharedEntries.from_bytes(content.body).entries:
            try:
                self._take_entry(device, entry)
            except (StateError, BindingRejected) as error:
                self.refused.append(f"the device {device}: {error}")

    def _sibling(self, joined: Joined, sender: Whois) -> str:
        """Which of this user's devices spoke; raises `RoomError` if it is none, removed, or not in their room."""
        person = sender.member.device if sender.member else None
        if self.devices_room not in (None, joined) or person is None or not self._is_own(person):
            raise RoomError("a message between devices that is not from one, or not in their room")
        if person.device.name in self._removed_devices():
            raise RoomError(f"a message of the device {person.device.name}, which was removed")
        return person.device.name

    def _is_own(self, person: VerifiedDevice) -> bool:
        return (person.user, person.identity_key) == (self.user, self._keys.identity.public)

    def _take_entry(self, device: str, entry: SharedEntry) -> None:
        """Another device says something newer; raises `StateError` or `BindingRejected` if it is no good."""
        entry.check()
        if entry.kind is SharedKind.DEVICE:
            self._check_device(device, entry)
        if entry.kind is SharedKind.CONTACT and entry.value is not None:
            self._check_contact(device, SavedContact.from_bytes(entry.value))
        if not self._shared.apply(entry):
            return
        if entry.kind is SharedKind.DEVICE and entry.value is None:
            self._removal_begins(entry.key.decode())
            self.notices.add(f"the device {device} removes the device {entry.key.decode()}", self._clock())
        elif entry.kind is SharedKind.CONNECTION_PACKAGE:
            if entry.value is None:
                self._packages.pop(entry.key, None)
            else:
                self._packages[entry.key] = SavedPackage.from_bytes(entry.value).published()
        elif entry.kind is SharedKind.CONTACT and entry.value is not None:
            self._apply_contact(SavedContact.from_bytes(entry.value))

    def _check_device(self, device: str, entry: SharedEntry) -> None:
        """A device has one key for good; and none is told by another that it is removed: the rooms would say so."""
        known = self._shared.get(SharedKind.DEVICE, entry.key)
        if None not in (known, entry.value) and known != entry.value:
            raise BindingRejected(f"another key of the device {entry.key.decode()}")
        if entry.value is None and entry.key == self.device.name.encode():
            self.notices.add(f"the device {device} says that this one is removed", self._clock())
            raise StateError("this very device is said to be removed")

    def _check_contact(self, device: str, saved: SavedContact) -> None:
        """An identity key, once known, is not replaced; and a key's version does not leap ahead of all others."""
        known = self.contacts.get(saved.person.user)
        if known is None:
            return
        if saved.person.identity_key != known.device.identity_key:
            self.notices.add(
                f"the device {device} says that {known.user} has another identity key: not believed",
                self._clock(),
            )
            raise BindingRejected(f"another identity key of {known.user}")
        steps = [saved.key_version - known.key_version]
        if saved.theirs is not None and known.theirs is not None:
            steps.append(saved.theirs.key_version - known.theirs.key_version)
        if max(steps) > MAX_STEP:
            raise StateError("a connection key in a version that is far ahead of all others")

    def _apply_contact(self, saved: SavedContact) -> None:
        """What both know newer halves of is put together, and told back."""
        known = self.contacts.get(saved.person.user)
        if known is None:
            self.contacts[saved.person.user] = saved.contact()
            return
        if saved.blocked and not known.blocked and known.room is not None:
            self._abandoned.append(known.room)
        theirs, pinned, removed = known.theirs, known.pinned, known.removed_devices
        own = known.key_version, known.own_key, known.upload_key
        saved.update(known)
        known.pinned |= pinned
        known.removed_devices = tuple(dict.fromkeys((*removed, *known.removed_devices)))[-MAX_REMOVED:]
        if theirs is not None and not known.blocked:
            known.take(theirs)
        if own[0] > known.key_version:
            known.key_version, known.own_key, known.upload_key = own
        self._keep_contact(known)

    def _removal_begins(self, name: str) -> None:
        """A device was removed; for the floors above."""

    async def _drop_abandoned(self) -> None:
        """Connection rooms with somebody whom another device has blocked."""
        while self._abandoned:
            joined = self.rooms.get(self._abandoned.pop())
            if joined is not None:
                await self.forget(joined)
