"""How a device that was lost is shut out: of the account, of every room, and of every key that it knew.

From the moment that one device says so it is none of the user's any more. What there is to be done is written down
first: each device has its own rooms to clear; what concerns all is for the one that began, and for any other when
that one does not come to it. What can't be done now, because a hub can't be reached, is done by `tend`.
"""

from __future__ import annotations

from functools import partial

from mimi_mmr.client.devices.shared import Part, Removal, SharedKind
from mimi_mmr.client.devices.siblings import Siblings
from mimi_mmr.client.rooms.rooms import Joined
from mimi_mmr.errors import MmrError, RoomError
from mimi_mmr.protocol.content import Content, ContentKind
from mimi_mmr.uris import MimiUri, check_name

OTHERS_TURN = 3600  # seconds after which another device does what the one that began has not done


class Removing(Siblings):
    """A device that can shut out another."""

    def _open_removing(self) -> None:
        self._to_clear = self.vault.table("rooms with removed devices")

    async def remove_device(self, name: str) -> None:
        """Shut a device out: of the account, of every room, and of every key that it knew.

        It is none of this user's from the first moment. All of it is tried; if some fails, the first error is
        raised, and `tend` goes on with it, here and on the other devices; calling this again does too. It may be a
        device that nobody but the provider knows. Raises `RoomError` for this very device, or for none.

        What it knew and can't be changed is the user's identity key: it stays in the lost device's vault, behind
        its passphrase.
        """
        check_name(name)
        if name == self.device.name:
            raise RoomError("a device is removed by another one of the same user")
        if not self._being_removed(name):
            if name not in self._other_devices() and name not in await self.registered_devices():
                raise RoomError(f"this user has no device {name}")
            self._begin_removal(name)
        errors = [*await self.go_on_removing(), await self._attempt(self.share)]
        for error in filter(None, errors):
            raise error

    def _being_removed(self, name: str) -> bool:
        """Whether something of it is still to be done, as far as this device knows."""
        parts = (key for key, _ in self._shared.items(SharedKind.REMOVAL))
        return any(key.startswith(f"{name} ".encode()) for key in (*self._to_clear, *parts))

    def _begin_removal(self, name: str) -> None:
        """Write down what is to be done; all of it, or nothing."""
        known = self._shared.get(SharedKind.DEVICE, name.encode())
        removal = Removal(int(self._clock()), known or b"").to_bytes()
        friends = [contact.user for contact in self.contacts.values() if not contact.blocked]
        parts: list[str] = [Part.ACCOUNT, Part.PACKAGES]
        parts += [f"{part} {user}" for user in friends for part in (Part.KEY, Part.TELL)]
        with self.vault.transaction():
            self._shared.put(SharedKind.DEVICE, name.encode(), None)
            for part in parts:
                self._shared.put(SharedKind.REMOVAL, f"{name} {part}".encode(), removal)
            self._removal_begins(name)

    def _removal_begins(self, name: str) -> None:
        for joined in self.rooms.values():
            self._is_to_clear(joined, name)

    def _is_to_clear(self, joined: Joined, name: str) -> None:
        self._to_clear[f"{name} {joined.uri}".encode()] = b""

    async def _entered(self, joined: Joined) -> None:
        """Whoever added us may have added a device that was removed meanwhile. Where names are hidden it stays."""
        if joined.room.policy.policy.shows_identity(joined.leaf.identity.credential.user_pseudonym):
            for name in self._removed_devices():
                self._is_to_clear(joined, name)
        await super()._entered(joined)

    # --- going on with it ----------------------------------------------------------------------------

    async def go_on_removing(self) -> list[MmrError]:
        """Do what is still to be done since devices were removed; what went wrong."""
        work = [partial(self._clear_room, row) for row in self._to_clear]
        work += [partial(self._do_part, key) for key in self._due_parts()]
        return [error for one in work if (error := await self._attempt(one)) is not None]

    async def _clear_room(self, row: bytes) -> None:
        name, uri = row.decode().split(" ")
        joined = self.rooms.get(MimiUri.parse(uri))
        if joined is not None and joined.desynchronised:
            return  # nothing can be committed there until somebody has added this device anew
        if joined is not None and not joined.room.removed:
            await self._remove_leaf_of(joined, name)
        self._to_clear.pop(row, None)

    async def _remove_leaf_of(self, joined: Joined, device: str) -> None:
        """Take a lost device out of a room: its leaf or, where one can't tell, all that are not another's.

        A device that is so taken out by mistake is added again by `tend_devices`.
        """
        participants = joined.room.participants()
        told = self._told_leaves(joined.uri)
        gone = []
        for leaf in self._leaves_of(joined, joined.leaf.identity.credential.user_pseudonym):
            pseudonym = str(participants[leaf].credential.client_pseudonym).encode()
            name = self._device_at(joined, leaf) or told.get(pseudonym, device)
            if name == device and leaf != joined.room.own_leaf:
                gone.append(leaf)
        if gone:
            await self.remove(joined, gone)
        place = self._leaf_key(joined.uri, device)
        if self._shared.get(SharedKind.LEAF, place) is not None:
            self._shared.put(SharedKind.LEAF, place, None)

    def _due_parts(self) -> list[bytes]:
        """What of the parts for all devices falls to this one, now."""
        removed, now = self._removed_devices(), self._clock()
        due = []
        for key, value in self._shared.items(SharedKind.REMOVAL):
            entry = self._shared.entry(SharedKind.REMOVAL, key)
            late = Removal.from_bytes(value).since + OTHERS_TURN < now
            own = entry is not None and entry.device == self.device.name
            if key.split(b" ")[0].decode() in removed and (own or late):
                due.append(key)
        return due

    async def _do_part(self, key: bytes) -> None:
        value = self._shared.get(SharedKind.REMOVAL, key)
        if value is None:
            return  # another device has done it meanwhile
        name, part, *users = key.decode().split(" ")
        contact = self.contacts.get(MimiUri.parse(users[0])) if users else None
        if part == Part.ACCOUNT:
            await self._account("DELETE", f"/devices/{name}")
        elif part == Part.PACKAGES:
            await self.replace_connection_packages()
        elif contact is not None and not contact.blocked:
            joined = self._room_of(contact.room)
            device_key = Removal.from_bytes(value).device_key
            if part == Part.KEY:
                await self.rotate_connection_key(contact)
            elif joined is not None and not joined.room.removed and device_key:
                await self.send(joined, Content(ContentKind.DEVICE_REMOVED, device_key))
        self._shared.put(SharedKind.REMOVAL, key, None)

    # --- what it hears and says meanwhile ------------------------------------------------------------

    async def _before_telling(self, room: Joined) -> None:
        """What is told holds the new keys: a removed device that is still there goes first, or nothing is told."""
        for row in [row for row in self._to_clear if row.endswith(f" {room.uri}".encode())]:
            await self._clear_room(row)
        await super()._before_telling(room)
