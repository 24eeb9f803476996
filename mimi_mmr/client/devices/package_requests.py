"""Requests for KeyPackages between a user's devices, which are all in every room under one user pseudonym.

A device asks the others when it makes a KeyPackage set, joins a room, or finds one of them missing in a room.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Annotated

from mimi_mmr.client.context import Context
from mimi_mmr.client.devices.devices_room import DevicesRoom
from mimi_mmr.client.devices.known_devices import KnownDevices
from mimi_mmr.client.key_packages.maker import KeyPackageMaker
from mimi_mmr.client.key_packages.outstanding import OutstandingKeyPackages
from mimi_mmr.client.people.contacts import Contact
from mimi_mmr.client.rooms.membership import Membership
from mimi_mmr.client.rooms.memberships import Memberships
from mimi_mmr.client.rooms.reading import Reading
from mimi_mmr.crypto.signing import SigningKey
from mimi_mmr.errors import BindingRejected, MmrError
from mimi_mmr.member.whois import Whois
from mimi_mmr.presentation import BOOL, Fixed, Maybe, Nested, Opaque, Struct, Text, Vector
from mimi_mmr.protocol.content import Content, ContentKind
from mimi_mmr.protocol.key_packages import OpenKeyPackage
from mimi_mmr.uris import ROOM, USER, MimiUri, self_certifying_pseudonym

WANTED_AT_ONCE = 12  # this many KeyPackages always fit in one message of a room
ANSWER_SECONDS = 30.0
QUIET_SECONDS = 600.0
MAX_JOINING = 256


@dataclass(frozen=True, slots=True)
class WantedPackage(Struct):
    """One KeyPackage that a device asks the others for: under which user pseudonym, and for what."""

    set_seed: Annotated[bytes, Fixed(32)] = field(repr=False)
    user: Annotated[MimiUri | None, Maybe(USER)]
    serial: Annotated[bytes, Opaque(16)]
    last_resort: Annotated[bool, BOOL]
    room: Annotated[MimiUri | None, Maybe(ROOM)]

    @classmethod
    def for_room(cls, room: MimiUri, set_key: SigningKey) -> WantedPackage:
        """Make the request for a KeyPackage that is valid for one room only."""
        return cls(set_key.seed(), None, b"", False, room)


@dataclass(frozen=True, slots=True)
class PackagesWanted(Struct):
    """Message that asks some devices, by name, for KeyPackages."""

    number: Annotated[bytes, Fixed(16)]
    devices: Annotated[tuple[str, ...], Vector(Text(128), count=32)]
    wanted: Annotated[tuple[WantedPackage, ...], Vector(Nested(WantedPackage), count=WANTED_AT_ONCE)]


@dataclass(frozen=True, slots=True)
class PackagesMade(Struct):
    """Answer to `PackagesWanted`, in the same order.

    Without a KeyPackage, for a room, it says that the device is there already, and adds the one who asks.
    """

    number: Annotated[bytes, Fixed(16)]
    packages: Annotated[tuple[OpenKeyPackage, ...], Vector(Nested(OpenKeyPackage), count=WANTED_AT_ONCE)]


@dataclass(slots=True)
class Question:
    """A question under way: what was asked, which devices have not answered yet, and what the others sent."""

    wanted: tuple[WantedPackage, ...]
    unanswered: set[str]
    answers: dict[str, list[OpenKeyPackage]] = field(default_factory=dict)
    there: bool = False  # whether a device has answered that it is in the room already


class PackageRequests:
    """Questions for KeyPackages to the other devices, and answers to theirs.

    It implements `OtherDevices` for the KeyPackage parts and the room parts, and `DevicesAtJoining` for join links.

    The wiring sets the listeners. `before_asking` run before a question or a refusal is sent, so that the other
    devices know which rooms this one is in. `asker_missing` get a room that this device is in, for which a device
    that is not in it has asked for KeyPackages.
    """

    def __init__(
        self,
        context: Context,
        known: KnownDevices,
        devices_room: DevicesRoom,
        maker: KeyPackageMaker,
        outstanding: OutstandingKeyPackages,
        memberships: Memberships,
        reading: Reading,
    ) -> None:
        """Read from the vault the unanswered questions of the other devices."""
        self._context = context
        self._known = known
        self._devices_room = devices_room
        self._maker = maker
        self._outstanding = outstanding
        self._memberships = memberships
        self._reading = reading
        self._wanted_rows = context.vault.table("packages wanted")
        self._askers = context.vault.table("askers of packages wanted")
        self._joining = context.vault.table("rooms that other devices join")
        self.before_asking: list[Callable[[], Awaitable[None]]] = []
        self.asker_missing: list[Callable[[Membership], Awaitable[None]]] = []
        self._questions: dict[bytes, Question] = {}
        self._quiet_until: dict[str, float] = {}
        self._making = asyncio.Lock()

    # --- asking --------------------------------------------------------------------------------------

    async def for_sets(
        self, set_keys: Sequence[SigningKey], contact: Contact, serials: Sequence[bytes], *, last_resort: bool
    ) -> list[list[OpenKeyPackage]]:
        """Return the other devices' KeyPackages for a contact's shelf: a list for each set key."""
        wanted = [
            WantedPackage(key.seed(), contact.user, serial, last_resort, None)
            for key, serial in zip(set_keys, serials, strict=True)
        ]
        answers = await self._ask(self._known.others(), wanted)
        return [[made[place] for made in answers.values()] for place in range(len(wanted))]

    async def for_room(self, room: MimiUri, set_key: SigningKey) -> list[OpenKeyPackage]:
        """Return the other devices' KeyPackages for a room that this device enters under a new pseudonym."""
        return await self.of(self._known.others(), room, set_key)

    async def for_joining(self, room: MimiUri, set_key: SigningKey) -> list[OpenKeyPackage] | None:
        """Return the other devices' KeyPackages for joining a room; None if one of the devices is there already.

        The devices' room is read to its end before the decision. Devices that are not asked for a KeyPackage are
        told the pseudonym too.
        """
        devices_room, wanted = self._devices_room.open, (WantedPackage.for_room(room, set_key),)
        if devices_room is None:
            return []
        await self.catch_up()
        there, asked = self._there(room), self._to_ask(devices_room, self._known.others())
        if there:
            asked = [name for name in asked if name in there]
        question = await self._ask_once(devices_room, asked, wanted)
        if there or question.there or self._there(room):
            return None
        return [package for made in question.answers.values() for package in made]

    def _there(self, room: MimiUri) -> list[str]:
        """Return the other devices that say that they are in a room; none if this user was removed from it."""
        return [] if self._memberships.find(room) is not None else self._known.announced(room)

    async def catch_up(self) -> None:
        """Read the devices' room to its end, and answer the questions there."""
        room = self._devices_room.open
        if room is not None:
            await self._reading.read_all(room)

    async def of(self, devices: Sequence[str], room: MimiUri, set_key: SigningKey) -> list[OpenKeyPackage]:
        """Return KeyPackages for a room, under this set key's pseudonym, from those named devices that answer."""
        answers = await self._ask(devices, [WantedPackage.for_room(room, set_key)])
        return [package for made in answers.values() for package in made]

    async def _ask(
        self, devices: Sequence[str], wanted: Sequence[WantedPackage]
    ) -> dict[str, list[OpenKeyPackage]]:
        """Return the KeyPackages of the devices that answer.

        A device that does not answer is not asked for a while.
        """
        room = self._devices_room.open
        if room is None or not devices:
            return {}
        asked = self._to_ask(room, devices)
        found: dict[str, list[OpenKeyPackage]] = {name: [] for name in asked}
        for start in range(0, len(wanted), WANTED_AT_ONCE):
            portion = tuple(wanted[start : start + WANTED_AT_ONCE])
            if not found:
                break
            answers = (await self._ask_once(room, list(found), portion)).answers
            found = {name: [*found[name], *answers[name]] for name in found if name in answers}
        return found

    async def _ask_once(
        self, room: Membership, devices: Sequence[str], wanted: tuple[WantedPackage, ...]
    ) -> Question:
        request = PackagesWanted(secrets.token_bytes(16), tuple(devices), wanted)
        question = self.expect(request.number, wanted, devices)
        end = asyncio.get_running_loop().time() + ANSWER_SECONDS + 2 * self._maker.slot
        try:
            for listener in self.before_asking:
                await listener()
            await self._devices_room.tell(room, Content(ContentKind.PACKAGES_WANTED, request.to_bytes()))
            while question.unanswered:
                left = end - asyncio.get_running_loop().time()
                if left <= 0:
                    break
                await self._reading.sync(room, wait=min(left, 5.0))
        finally:
            del self._questions[request.number]
        for silent in question.unanswered:
            self._leave_alone(silent)
        return question

    def _to_ask(self, room: Membership, devices: Sequence[str]) -> list[str]:
        now = self._context.clock()
        present = {self._known.at(room, leaf) for leaf in room.room.members.readable}
        return [name for name in devices if name in present and self._quiet_until.get(name, 0.0) <= now]

    def expect(self, number: bytes, wanted: tuple[WantedPackage, ...], devices: Iterable[str]) -> Question:
        """Accept answers to a question from these devices from now on."""
        question = self._questions[number] = Question(wanted, set(devices))
        return question

    def take_answer_message(self, membership: Membership, sender: Whois, content: Content) -> None:
        """Take an answer of another device."""
        device = self._devices_room.speaker(membership, sender)
        self.take_answer(device, PackagesMade.from_bytes(content.body))

    def take_answer(self, device: str, made: PackagesMade) -> None:
        """Take the first answer of a device that was asked; a wrong answer counts as none."""
        question = self._questions.get(made.number)
        if question is None or device not in question.unanswered:
            return
        question.unanswered.remove(device)
        if not made.packages and any(item.room is not None for item in question.wanted):
            question.there = True
            return
        try:
            question.answers[device] = self._checked(device, made.packages, question.wanted)
        except MmrError as error:
            self._context.refusals.add(f"the device {device}", error)
            self._leave_alone(device)

    def _checked(
        self, name: str, made: Sequence[OpenKeyPackage], wanted: Sequence[WantedPackage]
    ) -> list[OpenKeyPackage]:
        if len(made) != len(wanted):
            raise BindingRejected(f"expected {len(wanted)} KeyPackages, got {len(made)}")
        for package, item in zip(made, wanted, strict=True):
            device, _ = self._known.owner_of(package, SigningKey.from_seed(item.set_seed))
            if device.device.name != name:
                raise BindingRejected("another device's KeyPackage")
        return list(made)

    def _leave_alone(self, device: str) -> None:
        self._quiet_until[device] = self._context.clock() + QUIET_SECONDS

    def left_alone(self) -> list[str]:
        """Return the devices that did not answer, or answered wrongly, and so are not asked for a while."""
        now = self._context.clock()
        return [name for name, until in self._quiet_until.items() if until > now]

    # --- being asked ---------------------------------------------------------------------------------

    def take_question_message(self, membership: Membership, sender: Whois, content: Content) -> None:
        """Note another device's question if it asks this device; the answer is made when the page has been read."""
        asker = self._devices_room.speaker(membership, sender)
        wanted = PackagesWanted.from_bytes(content.body)
        self._quiet_until.pop(asker, None)  # it is awake
        for item in wanted.wanted:
            if item.room is not None:
                self._note_joining(item.room, SigningKey.from_seed(item.set_seed))
        if self._context.device.name in wanted.devices:
            self._wanted_rows[wanted.number] = content.body
            self._askers[wanted.number] = asker.encode()

    def _note_joining(self, room: MimiUri, set_key: SigningKey) -> None:
        pseudonym = self_certifying_pseudonym(self._context.user.domain, set_key.public)
        self._joining[f"{room} {pseudonym}".encode()] = b""
        while len(self._joining) > MAX_JOINING:
            del self._joining[next(iter(self._joining))]

    def joins_as(self, room: MimiUri, pseudonym: MimiUri) -> bool:
        """Say whether another device of this user has told that it joins a room under this user pseudonym."""
        return f"{room} {pseudonym}".encode() in self._joining

    def forget_questions(self, _: str) -> None:
        """Drop all noted questions: the removed device may have asked some, and the other devices ask again."""
        self._wanted_rows.clear()
        self._askers.clear()

    async def make_if_asked(self, membership: Membership) -> None:
        """Answer the noted questions after a page of the devices' room.

        Making KeyPackages may run this again. A question that arrives meanwhile is answered after the next page, or
        by `tend`.
        """
        here = membership is self._devices_room.membership
        if here and self._wanted_rows and not self._making.locked():
            await self.make_wanted()

    async def make_wanted(self) -> None:
        """Make the KeyPackages that other devices have asked this device for."""
        missing: list[Membership] = []
        async with self._making:
            for number, row in list(self._wanted_rows.items()):
                room, asked = self._devices_room.open, PackagesWanted.from_bytes(row)
                lacking = await self._lacking(asked, self._askers.get(number, b"").decode())
                if room is not None and lacking:
                    await self._decline(room, number)
                    missing += lacking
                elif room is not None:
                    await self.answer(room, asked)
                self._wanted_rows.pop(number, None)
                self._askers.pop(number, None)
        for membership in missing:
            for listener in self.asker_missing:
                await listener(membership)

    async def _decline(self, room: Membership, number: bytes) -> None:
        for listener in self.before_asking:
            await listener()
        await self._devices_room.tell(
            room, Content(ContentKind.PACKAGES_MADE, PackagesMade(number, ()).to_bytes())
        )

    async def _lacking(self, asked: PackagesWanted, asker: str) -> list[Membership]:
        """Return the rooms of a question that this device is in, and the device that asks is not.

        A KeyPackage for such a room would bring this user there under a second pseudonym. A device that changes its
        pseudonym is in the room.
        """
        found = []
        for membership in [self._memberships.find(item.room) for item in asked.wanted]:
            if membership is None or not membership.usable or not asker:
                continue
            if not self._known.is_in(membership, asker):
                await self._reading.read_all(membership)  # it may have come in meanwhile
                if membership.usable and not self._known.is_in(membership, asker):
                    found.append(membership)
        return found

    async def answer(self, room: Membership, asked: PackagesWanted) -> None:
        """Make what one question asks for, and send it."""
        made = await self._maker.make([SigningKey.from_seed(item.set_seed) for item in asked.wanted])
        for package, item in zip(made, asked.wanted, strict=True):
            self._outstanding.watch(
                package, user=item.user, serial=item.serial, last_resort=item.last_resort, room=item.room
            )
        answer = PackagesMade(asked.number, tuple(package.open for package in made))
        await self._devices_room.tell(room, Content(ContentKind.PACKAGES_MADE, answer.to_bytes()))
