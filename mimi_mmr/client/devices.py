"""A user's devices: how one more comes in, what they tell each other, and how one that was lost is shut out.

They share a room of their own, at the user's provider, and speak there as clients do: what changed of what all of
them know, and KeyPackages that one wants of the others, so that all are in every room under one user pseudonym.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

from mimi_mmr.client.account import PACKAGES, Keys
from mimi_mmr.client.connecting import Connecting
from mimi_mmr.client.enrolment import (
    CODE_LIFETIME,
    Channel,
    DeviceCode,
    EnrolmentArrival,
    EnrolmentGrant,
    EnrolmentRequest,
)
from mimi_mmr.client.joining import Invitation
from mimi_mmr.client.rooms import Joined
from mimi_mmr.client.saved import SavedContact, SavedPackage
from mimi_mmr.client.shared import SharedEntries, SharedEntry, SharedKind, batches
from mimi_mmr.contacts import Contact
from mimi_mmr.content import Content, ContentKind
from mimi_mmr.credentials import resolve
from mimi_mmr.endpoints import AddDeviceRequest, AddDeviceTBS, CertificateChain, access_token_hash
from mimi_mmr.errors import (
    BindingRejected,
    IdentityError,
    MmrError,
    ParseError,
    RoomError,
    SealedBoxRejected,
)
from mimi_mmr.keypackages import OpenKeyPackage, check_set
from mimi_mmr.labels import SigningKey
from mimi_mmr.queues import queue_id
from mimi_mmr.room import Whois
from mimi_mmr.tls import BOOL, U64, Fixed, Maybe, Nested, Opaque, Struct, Text, Vector
from mimi_mmr.uris import ROOM, USER, MimiUri, check_name, self_certifying_pseudonym

WANTED_AT_ONCE = 12  # as many KeyPackages as are certain to fit in one message of a room
ANSWER_SECONDS = 30.0
QUIET_SECONDS = 600.0
_DEVICES_ROOM = b"devices"


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


@dataclass(frozen=True, slots=True)
class SavedInvitation(Struct):
    """A device code that was shown and not used up; `expiry` in seconds."""

    expiry: Annotated[int, U64]
    acknowledged: Annotated[int, U64]
    device: Annotated[str, Text(128)]


class DeviceInvitation:
    """A code that was shown, for one further device. `device` is its name, once it came and is in."""

    def __init__(self, code: DeviceCode, saved: SavedInvitation) -> None:
        """As it was shown, or as the vault has it."""
        self.secret = code
        self.expiry = saved.expiry
        self.acknowledged = saved.acknowledged
        self.certified = saved.device
        self.device = ""

    @property
    def code(self) -> str:
        """To be typed on the new device."""
        return self.secret.reveal()

    def saved(self) -> SavedInvitation:
        """To be kept."""
        return SavedInvitation(self.expiry, self.acknowledged, self.certified)


class Devices(Connecting):
    """A user's devices, as one of them sees them."""

    def _open_devices(self) -> None:
        self._own_rows = self.vault.table("own")
        self._wanted_rows = self.vault.table("packages wanted")
        self._invitation_rows = self.vault.table("device codes")
        self._invitations = {
            bits: DeviceInvitation(DeviceCode(bits), SavedInvitation.from_bytes(row))
            for bits, row in self._invitation_rows.items()
        }
        self._made: dict[bytes, dict[str, tuple[OpenKeyPackage, ...]]] = {}
        self._quiet: dict[str, float] = {}
        self._abandoned: list[MimiUri] = []
        self._making = asyncio.Lock()

    # --- who they are --------------------------------------------------------------------------------

    def devices(self) -> list[str]:
        """Names of all of this user's devices, this one included."""
        return sorted({self.device.name, *self._other_devices()})

    def _other_devices(self) -> list[str]:
        known = (key.decode() for key, _ in self._shared.items(SharedKind.DEVICE))
        return sorted(name for name in known if name != self.device.name)

    def _has_devices(self) -> bool:
        return bool(self._other_devices())

    @property
    def devices_room(self) -> Joined | None:
        """The room of this user's devices; None while there is one device only."""
        row = self._own_rows.get(_DEVICES_ROOM)
        return self.rooms.get(MimiUri.parse(row.decode())) if row else None

    # --- a further device: the side of an existing one -----------------------------------------------

    async def invite_device(self) -> DeviceInvitation:
        """Make a code for one further device; it is to be typed there within the hour."""
        code = DeviceCode.generate()
        for channel in (code.to_existing(), code.to_new()):
            await self._queues.create(channel.token, accepts_deposits=True)
        invitation = DeviceInvitation(code, SavedInvitation(int(self._clock()) + CODE_LIFETIME, 0, ""))
        self._invitations[code.bits] = invitation
        self._keep_invitation(invitation)
        return invitation

    def _keep_invitation(self, invitation: DeviceInvitation) -> None:
        self._invitation_rows[invitation.secret.bits] = invitation.saved().to_bytes()

    async def tend_invitation(self, invitation: DeviceInvitation, wait: float = 0.0) -> bool:
        """Go on with a device that typed the code; whether it is in."""
        channel = invitation.secret.to_existing()
        if invitation.expiry < self._clock():
            await self._end_invitation(invitation)
            raise RoomError("the device code has expired")
        page = await self._queues.collect(channel.token, invitation.acknowledged, wait)
        for queued in page.messages:
            try:
                await self._enrolment_step(invitation, channel.open(queued.message))
            except (SealedBoxRejected, ParseError, IdentityError) as error:
                self.refused.append(f"device enrolment: {error}")
            invitation.acknowledged = queued.sequence
            self._keep_invitation(invitation)
            if invitation.device:
                await self._end_invitation(invitation)
                return True
        return False

    async def _end_invitation(self, invitation: DeviceInvitation) -> None:
        self._invitations.pop(invitation.secret.bits, None)
        self._invitation_rows.pop(invitation.secret.bits, None)
        for channel in (invitation.secret.to_existing(), invitation.secret.to_new()):
            await self._queues.delete(channel.token)

    async def _enrolment_step(self, invitation: DeviceInvitation, content: bytes) -> None:
        if content[:1] == bytes([EnrolmentRequest.KIND]):
            request = EnrolmentRequest.from_bytes(content).request
            if invitation.certified not in ("", request.device):
                raise BindingRejected("a device code is good for one device")
            await self._grant(invitation, request)
        else:
            arrival = EnrolmentArrival.from_bytes(content)
            await self._welcome_device(invitation, arrival.package)

    async def _grant(self, invitation: DeviceInvitation, request: AddDeviceRequest) -> None:
        """Have the provider certify the device, and give it the user's identity key."""
        answer = await self._account("POST", "/devices", request.to_bytes())
        invitation.certified = request.device
        self._keep_invitation(invitation)
        room = self.devices_room or await self._make_devices_room()
        chain = CertificateChain.from_bytes(answer).certificates
        grant = EnrolmentGrant(chain, self._keys.identity.seed(), room.leaf.set_key.seed())
        await self._pass(invitation.secret.to_new(), grant)

    async def _make_devices_room(self) -> Joined:
        joined = await self.create_room()
        self._own_rows[_DEVICES_ROOM] = str(joined.uri).encode()
        return joined

    async def _pass(self, channel: Channel, content: Struct) -> None:
        await self._queues.deposit(self.user.domain, queue_id(channel.token), channel.seal(content))

    async def _welcome_device(self, invitation: DeviceInvitation, package: OpenKeyPackage) -> None:
        """Add the device to the room of devices, tell it everything, and add it to the other rooms."""
        room = self.devices_room
        if room is None or not invitation.certified:
            raise BindingRejected("a device arrives that has not asked to be certified")
        name = self._device_of(package, room.leaf.set_key)
        if name != invitation.certified:
            raise BindingRejected("the device that arrives is not the one that was certified")
        await self._commit(room, add=[package])
        await self._commit(room)
        with self.vault.transaction():
            for device in (self.device.name, name):
                self._shared.put(SharedKind.DEVICE, device.encode(), b"")
            self._shared.all_unsent()
        await self.share()
        invitation.device = name
        self.notices.add(f"the device {name} was added to this account", self._clock())

    def _device_of(self, package: OpenKeyPackage, set_key: SigningKey) -> str:
        """Whose a KeyPackage is: one of this user's devices, under this pseudonym; or `BindingRejected`."""
        now = self._clock()
        (leaf,) = check_set([package.key_package], now)
        member = resolve(
            leaf.credential, package.ilk, leaf.credential.signature_public_key, self.trust, now
        ).device
        if (member.user, member.identity_key) != (self.user, self._keys.identity.public):
            raise BindingRejected("a KeyPackage that is not one of this user's devices'")
        if leaf.credential.user_pseudonym != self_certifying_pseudonym(self.user.domain, set_key.public):
            raise BindingRejected("a KeyPackage of another pseudonym than was wanted")
        return member.device.name

    # --- a further device: its own side --------------------------------------------------------------

    async def join_account(self, code: str, wait: float = 120.0) -> None:
        """As a new device: become one of the user's, by the code that an existing one shows.

        Waits up to `wait` seconds for the existing device at each of two steps. Raises `InvalidUri` for a code that
        is mistyped, `UnknownQueue` for one that is used up or expired, `RoomError` if nobody answers.
        """
        secret = DeviceCode.parse(code)
        keys = self._keys
        tbs = AddDeviceTBS(
            self.user.domain,
            self.user.name,
            self.device.name,
            keys.device.public,
            access_token_hash(keys.token),
        )
        proof = keys.device.sign("AddDeviceTBS", tbs.to_bytes())
        request = AddDeviceRequest(self.device.name, keys.device.public, proof, keys.token.reveal())
        await self._pass(secret.to_existing(), EnrolmentRequest(EnrolmentRequest.KIND, request))
        grant = await self._granted(secret.to_new(), wait)
        self._keys = Keys(keys.token, SigningKey.from_seed(grant.identity_seed), keys.device)
        await self._certified(grant.chain, PACKAGES)
        (package,) = await self._stock.make(self.me, [SigningKey.from_seed(grant.set_seed)])
        self._await_use(package, user=self.user)
        await self._pass(secret.to_existing(), EnrolmentArrival(EnrolmentArrival.KIND, package.open))
        end = self._clock() + wait
        while self.devices_room is None:
            if self._clock() >= end:
                raise RoomError("the existing device did not answer in time; is it running?")
            await self.check_invitations(wait=5.0)

    async def _granted(self, channel: Channel, wait: float) -> EnrolmentGrant:
        end = self._clock() + wait
        acknowledged = 0
        while True:
            page = await self._queues.collect(channel.token, acknowledged, 5.0)
            for queued in page.messages:
                acknowledged = queued.sequence
                try:
                    return EnrolmentGrant.from_bytes(channel.open(queued.message))
                except (SealedBoxRejected, ParseError) as error:
                    self.refused.append(f"device enrolment: {error}")
            if self._clock() >= end:
                raise RoomError("the existing device did not answer in time; is it running?")

    async def _arrived(self, invitation: Invitation, joined: Joined) -> None:
        if invitation.waiting.user == self.user:
            self._own_rows[_DEVICES_ROOM] = str(joined.uri).encode()
        await super()._arrived(invitation, joined)

    async def _entered(self, joined: Joined) -> None:
        """Tell the other devices which leaf is this one's: where names are hidden they couldn't know."""
        pseudonym = joined.leaf.identity.credential.client_pseudonym
        self._shared.put(
            SharedKind.LEAF, self._leaf_key(joined.uri, self.device.name), str(pseudonym).encode()
        )
        await super()._entered(joined)

    def _leaf_key(self, room: MimiUri, device: str) -> bytes:
        return f"{room} {device}".encode()

    # --- what devices tell each other ----------------------------------------------------------------

    async def share(self) -> None:
        """Tell the other devices what they don't know yet."""
        room = self.devices_room
        if room is None or room.room.removed:
            return
        for batch in batches(self._shared.unsent()):
            await self.send(room, Content(ContentKind.SHARED_STATE, batch.to_bytes()))
            self._shared.sent(batch.entries)

    def _instructed(self, joined: Joined, sender: Whois, content: Content) -> None:
        kinds = (ContentKind.SHARED_STATE, ContentKind.PACKAGES_WANTED, ContentKind.PACKAGES_MADE)
        if content.kind not in kinds:
            super()._instructed(joined, sender, content)
            return
        device = self._own_device(joined, sender)
        if content.kind is ContentKind.SHARED_STATE:
            for entry in SharedEntries.from_bytes(content.body).entries:
                self._apply(entry)
        elif content.kind is ContentKind.PACKAGES_WANTED:
            wanted = PackagesWanted.from_bytes(content.body)
            if self.device.name in wanted.devices:
                self._wanted_rows[wanted.number] = content.body
        else:
            made = PackagesMade.from_bytes(content.body)
            if made.number in self._made:
                self._made[made.number][device] = made.packages

    def _own_device(self, joined: Joined, sender: Whois) -> str:
        """Which of this user's devices spoke; raises `RoomError` if it is none, or not in their room."""
        room = self.devices_room
        person = sender.member.device if sender.member else None
        if (room is not None and room is not joined) or person is None:
            raise RoomError("a message between devices that is not from one, or not in their room")
        if (person.user, person.identity_key) != (self.user, self._keys.identity.public):
            raise RoomError("a message between devices by somebody else")
        return person.device.name

    def _apply(self, entry: SharedEntry) -> None:
        """Another device knows something newer."""
        if not self._shared.apply(entry):
            return
        if entry.kind is SharedKind.CONNECTION_PACKAGE:
            if entry.value is None:
                self._packages.pop(entry.key, None)
            else:
                self._packages[entry.key] = SavedPackage.from_bytes(entry.value).published()
        elif entry.kind is SharedKind.CONTACT and entry.value is not None:
            self._apply_contact(SavedContact.from_bytes(entry.value))

    def _apply_contact(self, saved: SavedContact) -> None:
        """What both know newer halves of is put together, and told back."""
        known = self.contacts.get(saved.person.user)
        if known is None:
            self.contacts[saved.person.user] = saved.contact()
            return
        if saved.blocked and not known.blocked and known.room is not None:
            self._abandoned.append(known.room)
        theirs, own = known.theirs, (known.key_version, known.own_key, known.upload_key)
        saved.update(known)
        if theirs is not None and not known.blocked:
            known.take(theirs)
        if own[0] > known.key_version:
            known.key_version, known.own_key, known.upload_key = own
        self._keep_contact(known)

    # --- KeyPackages of the others -------------------------------------------------------------------

    async def _ask_devices(
        self, devices: Sequence[str], wanted: Sequence[WantedPackage]
    ) -> dict[str, list[OpenKeyPackage]]:
        """KeyPackages of other devices; of those that answer. Who doesn't is not waited for again for a while."""
        room, now = self.devices_room, self._clock()
        asked = [name for name in devices if self._quiet.get(name, 0.0) <= now]
        found: dict[str, list[OpenKeyPackage]] = {name: [] for name in asked}
        if room is None or room.room.removed or not asked:
            return {}
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
        answers = self._made[request.number] = {}
        end = asyncio.get_running_loop().time() + ANSWER_SECONDS + 2 * self._stock.slot
        try:
            await self.send(room, Content(ContentKind.PACKAGES_WANTED, request.to_bytes()))
            while set(answers) < set(devices):
                left = end - asyncio.get_running_loop().time()
                if left <= 0:
                    break
                await self.sync(room, wait=min(left, 5.0))
        finally:
            del self._made[request.number]
        for silent in set(devices) - set(answers):
            self._quiet[silent] = self._clock() + QUIET_SECONDS
        return {name: self._checked(name, answers[name], wanted) for name in devices if name in answers}

    def _checked(
        self, name: str, made: Sequence[OpenKeyPackage], wanted: Sequence[WantedPackage]
    ) -> list[OpenKeyPackage]:
        for package, item in zip(made, wanted, strict=True):
            if self._device_of(package, SigningKey.from_seed(item.set_seed)) != name:
                raise BindingRejected(f"the device {name} sent another one's KeyPackage")
        return list(made)

    async def make_wanted(self) -> None:
        """Make the KeyPackages that other devices want of this one."""
        room = self.devices_room
        for number, row in list(self._wanted_rows.items()):
            wanted = PackagesWanted.from_bytes(row).wanted
            if room is not None and not room.room.removed:
                keys = [SigningKey.from_seed(item.set_seed) for item in wanted]
                made = await self._stock.make(self.me, keys)
                for package, item in zip(made, wanted, strict=True):
                    self._await_use(
                        package,
                        user=item.user,
                        serial=item.serial,
                        last_resort=item.last_resort,
                        room=item.room,
                    )
                answer = PackagesMade(number, tuple(package.open for package in made))
                await self.send(room, Content(ContentKind.PACKAGES_MADE, answer.to_bytes()))
            self._wanted_rows.pop(number, None)

    async def _follow_up(self, joined: Joined) -> None:
        await super()._follow_up(joined)
        if joined is self.devices_room and self._wanted_rows and not self._making.locked():
            async with self._making:
                await self.make_wanted()

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

    async def tend_devices(self) -> None:
        """Add this user's devices to the rooms that they are not in, where it falls to this one."""
        for joined in list(self.rooms.values()):
            if joined is self.devices_room or joined.room.removed or joined.desynchronised:
                continue
            await self._add_missing(joined)

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

    # --- a device that was lost ----------------------------------------------------------------------

    async def remove_device(self, name: str) -> None:
        """Shut a device out: of the account, of every room, and of every key that it knew.

        Raises `RoomError` for this very device, or one that there is not. What it knew and can't be changed is the
        user's identity key: it stays in the lost device's vault, behind its passphrase.
        """
        check_name(name)
        if name == self.device.name:
            raise RoomError("a device is removed by another one of the same user")
        if name not in self._other_devices():
            raise RoomError(f"this user has no device {name}")
        await self._account("DELETE", f"/devices/{name}")
        self._shared.put(SharedKind.DEVICE, name.encode(), None)
        for joined in list(self.rooms.values()):
            if not joined.room.removed:
                await self._remove_leaf_of(joined, name)
        await self.replace_connection_packages()
        for contact in list(self.contacts.values()):
            if not contact.blocked:
                await self.rotate_connection_key(contact)
        await self.share()

    async def _remove_leaf_of(self, joined: Joined, device: str) -> None:
        """Take a lost device out of a room: its leaf or, where one can't tell, all that are not another's.

        A device that is so taken out by mistake is added again by `tend_devices`.
        """
        participants = joined.room.participants()
        told = {
            self._shared.get(SharedKind.LEAF, self._leaf_key(joined.uri, name)): name
            for name in self.devices()
        }
        gone = []
        for leaf in self._leaves_of(joined, joined.leaf.identity.credential.user_pseudonym):
            pseudonym = str(participants[leaf].credential.client_pseudonym).encode()
            name = self._device_at(joined, leaf) or told.get(pseudonym, device)
            if name == device and leaf != joined.room.own_leaf:
                gone.append(leaf)
        if gone:
            await self.remove(joined, gone)
        self._shared.put(SharedKind.LEAF, self._leaf_key(joined.uri, device), None)

    def _device_at(self, joined: Joined, leaf: int) -> str:
        """The device at one of this user's leaves; "" where names are hidden."""
        try:
            return joined.room.resolve(leaf, self.trust, self._clock()).device.device.name
        except MmrError:
            return ""

    async def _drop_abandoned(self) -> None:
        """Connection rooms with somebody whom another device has blocked."""
        while self._abandoned:
            joined = self.rooms.get(self._abandoned.pop())
            if joined is not None:
                await self.forget(joined)
