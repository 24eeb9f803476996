"""A user's devices in one another's rooms: all are in every room, under one user pseudonym.

So a device asks the others for KeyPackages, where it makes a set, joins a room, or finds one of them missing.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated

from mimi_mmr.client.devices.enrolling import DeviceInvitation, Enrolling
from mimi_mmr.client.devices.shared import SharedKind
from mimi_mmr.client.key_packages.shelves import Waiting
from mimi_mmr.client.people.contacts import Contact
from mimi_mmr.client.rooms.membership import AddAgain
from mimi_mmr.client.rooms.rooms import Joined
from mimi_mmr.crypto.signing import SigningKey
from mimi_mmr.errors import BindingRejected, MmrError, RoomError
from mimi_mmr.member.whois import Whois
from mimi_mmr.presentation import BOOL, Fixed, Maybe, Nested, Opaque, Struct, Text, Vector
from mimi_mmr.protocol.content import Content, ContentKind
from mimi_mmr.protocol.key_packages import OpenKeyPackage
from mimi_mmr.protocol.room.departures import sign_departure
from mimi_mmr.protocol.room.events import FanoutMessage
from mimi_mmr.uris import ROOM, USER, MimiUri

WANTED_AT_ONCE = 12  # as many KeyPackages as are certain to fit in one message of a room
ANSWER_SECONDS = 30.0
QUIET_SECONDS = 600.0
MAX_DEAD_LEAVES = 256


@dataclass(frozen=True, slots=True)
class WantedPackage(Struct):
    """One KeyPackage that a device wants of the others: under whose pseudonym, and what it is for."""

    set_seed: Annotated[bytes, Fixed(32)] = field(repr=False)
    user: Annotated[MimiUri | None, Maybe(USER)]
    serial: Annotated[bytes, Opaque(16)]
    last_resort: Annotated[bool, BOOL]
    room: Annotated[MimiUri | None, Maybe(ROOM)]


@dataclass(frozen=True, slots=True)
class PackagesWanted(Struct):
    """From one device to some others, by name."""

    number: Annotated[bytes, Fixed(16)]
    devices: Annotated[tuple[str, ...], Vector(Text(128), count=32)]
    wanted: Annotated[tuple[WantedPackage, ...], Vector(Nested(WantedPackage), count=WANTED_AT_ONCE)]


@dataclass(frozen=True, slots=True)
class PackagesMade(Struct):
    """The answer to `PackagesWanted`, in its order."""

    number: Annotated[bytes, Fixed(16)]
    packages: Annotated[tuple[OpenKeyPackage, ...], Vector(Nested(OpenKeyPackage), count=WANTED_AT_ONCE)]


@dataclass(slots=True)
class Question:
    """KeyPackages that were asked for: of which devices, who has not answered yet, and what the others sent."""

    wanted: tuple[WantedPackage, ...]
    unanswered: set[str]
    answers: dict[str, list[OpenKeyPackage]] = field(default_factory=dict)


class Devices(Enrolling):
    """A user's devices, as one of them sees them."""

    def _open_devices(self) -> None:
        self._open_siblings()
        self._open_removing()
        self._open_enrolling()
        self._wanted_rows = self.vault.table("packages wanted")
        self._dead_leaves = self.vault.table("leaves of devices that lost their keys")
        self._questions: dict[bytes, Question] = {}
        self._quiet: dict[str, float] = {}
        self._making = asyncio.Lock()

    def _instructed(self, joined: Joined, sender: Whois, content: Content) -> None:
        if content.kind is ContentKind.PACKAGES_WANTED:
            self._sibling(joined, sender)
            wanted = PackagesWanted.from_bytes(content.body)
            if self.device.name in wanted.devices:
                self._wanted_rows[wanted.number] = content.body
        elif content.kind is ContentKind.PACKAGES_MADE:
            self._take_answer(self._sibling(joined, sender), PackagesMade.from_bytes(content.body))
        elif content.kind is ContentKind.ADD_AGAIN and joined is self.devices_room:
            self._sibling(joined, sender)
            self._note_dead_leaf(AddAgain.from_bytes(content.body))
        else:
            super()._instructed(joined, sender, content)

    def _removal_begins(self, name: str) -> None:
        super()._removal_begins(name)
        self._wanted_rows.clear()  # it may be what the removed device wants; the others ask again

    # --- asking for KeyPackages ----------------------------------------------------------------------

    async def _ask_devices(
        self, devices: Sequence[str], wanted: Sequence[WantedPackage]
    ) -> dict[str, list[OpenKeyPackage]]:
        """KeyPackages of other devices; of those that answer. Who doesn't is not waited for again for a while."""
        room, now = self.devices_room, self._clock()
        if room is None or room.room.removed or not devices:
            return {}
        present = {self._device_at(room, leaf) for leaf in room.room.participants()}
        asked = [name for name in devices if name in present and self._quiet.get(name, 0.0) <= now]
        found: dict[str, list[OpenKeyPackage]] = {name: [] for name in asked}
        for start in range(0, len(wanted), WANTED_AT_ONCE):
            portion = tuple(wanted[start : start + WANTED_AT_ONCE])
            answers = await self._ask_once(room, list(found), portion)
            found = {name: [*found[name], *answers[name]] for name in found if name in answers}
        return found

    async def _ask_once(
        self, room: Joined, devices: Sequence[str], wanted: tuple[WantedPackage, ...]
    ) -> dict[str, list[OpenKeyPackage]]:
        if not devices:
            return {}
        request = PackagesWanted(secrets.token_bytes(16), tuple(devices), wanted)
        question = self._questions[request.number] = Question(wanted, set(devices))
        end = asyncio.get_running_loop().time() + ANSWER_SECONDS + 2 * self._stock.slot
        try:
            await self._tell(room, Content(ContentKind.PACKAGES_WANTED, request.to_bytes()))
            while question.unanswered:
                left = end - asyncio.get_running_loop().time()
                if left <= 0:
                    break
                await self.sync(room, wait=min(left, 5.0))
        finally:
            del self._questions[request.number]
        for silent in question.unanswered:
            self._be_quiet(silent)
        return question.answers

    def _take_answer(self, device: str, made: PackagesMade) -> None:
        """An answer counts once, of a device that was asked; a wrong one is as good as none."""
        question = self._questions.get(made.number)
        if question is None or device not in question.unanswered:
            return
        question.unanswered.remove(device)
        try:
            question.answers[device] = self._checked(device, made.packages, question.wanted)
        except MmrError as error:
            self.refused.append(f"the device {device}: {error}")
            self._be_quiet(device)

    def _be_quiet(self, device: str) -> None:
        """Don't ask it for a while."""
        self._quiet[device] = self._clock() + QUIET_SECONDS

    def _checked(
        self, name: str, made: Sequence[OpenKeyPackage], wanted: Sequence[WantedPackage]
    ) -> list[OpenKeyPackage]:
        if len(made) != len(wanted):
            raise BindingRejected(f"expected {len(wanted)} KeyPackages, got {len(made)}")
        for package, item in zip(made, wanted, strict=True):
            device, _ = self._device_of(package, SigningKey.from_seed(item.set_seed))
            if device.device.name != name:
                raise BindingRejected("another device's KeyPackage")
        return list(made)

    async def _of_other_devices(
        self, set_keys: Sequence[SigningKey], contact: Contact, serials: Sequence[bytes], *, last_resort: bool
    ) -> list[list[OpenKeyPackage]]:
        wanted = [
            WantedPackage(key.seed(), contact.user, serial, last_resort, None)
            for key, serial in zip(set_keys, serials, strict=True)
        ]
        answers = await self._ask_devices(self._other_devices(), wanted)
        return [[made[place] for made in answers.values()] for place in range(len(wanted))]

    async def _own_packages(self, room: MimiUri, set_key: SigningKey) -> list[OpenKeyPackage]:
        wanted = [WantedPackage(set_key.seed(), None, b"", False, room)]
        answers = await self._ask_devices(self._other_devices(), wanted)
        return [package for made in answers.values() for package in made]

    # --- making them ---------------------------------------------------------------------------------

    async def make_wanted(self) -> None:
        """Make the KeyPackages that other devices want of this one."""
        async with self._making:
            for number, row in list(self._wanted_rows.items()):
                room = self.devices_room
                if room is not None and not room.room.removed:
                    await self._make_for(room, PackagesWanted.from_bytes(row))
                self._wanted_rows.pop(number, None)

    async def _make_for(self, room: Joined, asked: PackagesWanted) -> None:
        made = await self._stock.make(self.me, [SigningKey.from_seed(item.set_seed) for item in asked.wanted])
        for package, item in zip(made, asked.wanted, strict=True):
            self._await_use(
                package, user=item.user, serial=item.serial, last_resort=item.last_resort, room=item.room
            )
        answer = PackagesMade(asked.number, tuple(package.open for package in made))
        await self._tell(room, Content(ContentKind.PACKAGES_MADE, answer.to_bytes()))

    async def _follow_up(self, joined: Joined) -> None:
        await super()._follow_up(joined)
        # Making them may lead here again; what comes in meanwhile is made by the next page, or by `tend`.
        if joined is self.devices_room and self._wanted_rows and not self._making.locked():
            await self.make_wanted()

    # --- devices that are missing in rooms -----------------------------------------------------------

    async def tend_devices(self) -> None:
        """Shut out devices that were removed; add others where they are missing and it falls to this one."""
        await self.go_on_removing()
        for row in list(self._dead_leaves):
            await self._attempt(partial(self._take_out_dead_leaf, row))
        for joined in list(self.rooms.values()):
            if joined is self.devices_room or joined.room.removed or joined.desynchronised:
                continue
            await self._attempt(partial(self._add_missing, joined))

    async def _add_missing(self, joined: Joined) -> None:
        others = self._other_devices()
        own = self._leaves_of(joined, joined.leaf.identity.credential.user_pseudonym)
        if not others or len(own) > len(others) or own[0] != joined.room.own_leaf:
            return
        known = {name: self._shared.get(SharedKind.LEAF, self._leaf_key(joined.uri, name)) for name in others}
        present = {
            str(who.credential.client_pseudonym).encode() for who in joined.room.participants().values()
        }
        missing = [name for name in others if known[name] not in present]
        wanted = [WantedPackage(joined.leaf.set_key.seed(), None, b"", False, joined.uri)]
        answers = await self._ask_devices(missing, wanted)
        packages = [package for made in answers.values() for package in made]
        if packages:
            await self._commit(joined, add=packages)
            await self._commit(joined)

    async def _ask_again(self, waiting: Waiting, fanout: FanoutMessage) -> None:
        """A KeyPackage that this device made for another one's room, and whose keys it lost: it says so there.

        With the departure of the dead leaf whoever is in that room can take it out, and then add this device anew.
        """
        room, leaf = self.devices_room, waiting.package.leaf
        if waiting.user is not None or fanout.room in self.rooms or room is None or room.room.removed:
            return await super()._ask_again(waiting, fanout)
        departure = sign_departure(fanout.room, leaf.identity.credential.client_pseudonym, leaf.key)
        await self._tell(room, Content(ContentKind.ADD_AGAIN, AddAgain(fanout.room, departure).to_bytes()))
        self._no_longer_wait(waiting)
        return None

    def _note_dead_leaf(self, request: AddAgain) -> None:
        """Kept also while this device is not in that room yet: it may have been added together with the other."""
        client = request.departure.content.client_pseudonym
        self._dead_leaves[f"{request.room} {client}".encode()] = request.to_bytes()
        while len(self._dead_leaves) > MAX_DEAD_LEAVES:
            del self._dead_leaves[next(iter(self._dead_leaves))]

    async def _take_out_dead_leaf(self, row: bytes) -> None:
        request = AddAgain.from_bytes(self._dead_leaves[row])
        joined = self.rooms.get(request.room)
        if joined is None:
            return
        if not joined.room.removed:
            await self.sync(joined)  # the dead leaf's Add may not have been followed yet
            try:
                joined.room.departing(request.departure)
            except RoomError:
                pass  # it is not there, or not any more
            else:
                await self._commit(joined, departures=[request.departure])
        del self._dead_leaves[row]


__all__ = ["DeviceInvitation", "Devices"]
