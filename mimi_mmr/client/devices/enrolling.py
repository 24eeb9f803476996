"""How a further device comes in: one that is there shows a code, the new one types it; see `enrolment`.

Each step may be repeated after a failure: what was done is not done again.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated

from mimi_mmr.client.account import PACKAGES, Keys
from mimi_mmr.client.devices.enrolment import (
    CODE_LIFETIME,
    Channel,
    DeviceCode,
    EnrolmentArrival,
    EnrolmentGrant,
    EnrolmentRequest,
)
from mimi_mmr.client.devices.removing import Removing
from mimi_mmr.client.devices.shared import DeviceKey, SharedKind
from mimi_mmr.client.rooms.rooms import Joined
from mimi_mmr.crypto.signing import SigningKey
from mimi_mmr.errors import (
    BindingRejected,
    IdentityError,
    InvalidCommit,
    NotAllowed,
    ParseError,
    RoomError,
    SealedBoxRejected,
)
from mimi_mmr.presentation import U64, Struct, Text
from mimi_mmr.protocol.accounts import AddDeviceRequest, AddDeviceTBS, CertificateChain, access_token_hash
from mimi_mmr.protocol.credentials import VerifiedDevice, resolve
from mimi_mmr.protocol.key_packages import OpenKeyPackage, check_set
from mimi_mmr.protocol.queues import queue_id
from mimi_mmr.uris import MimiUri, self_certifying_pseudonym


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


class Enrolling(Removing):
    """A device that brings in another, or is brought in itself."""

    def _open_enrolling(self) -> None:
        self._invitation_rows = self.vault.table("device codes")
        self._invitations = {
            bits: DeviceInvitation(DeviceCode(bits), SavedInvitation.from_bytes(row))
            for bits, row in self._invitation_rows.items()
        }

    # --- the side of an existing device --------------------------------------------------------------

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
        """Go on with a device that typed the code; whether it is in. May be called again after any failure."""
        if invitation.device:
            return True
        channel = invitation.secret.to_existing()
        if invitation.expiry < self._clock():
            await self._end_invitation(invitation)
            raise RoomError("the device code has expired")
        page = await self._queues.collect(channel.token, invitation.acknowledged, wait)
        for queued in page.messages:
            try:
                await self._enrolment_step(invitation, channel.open(queued.message))
            except (SealedBoxRejected, ParseError, IdentityError, NotAllowed) as error:
                self.refused.append(f"device enrolment: {error}")
                self.notices.add(f"a further device was not added: {error}", self._clock())
            invitation.acknowledged = queued.sequence
            self._keep_invitation(invitation)
            if invitation.device:
                await self._attempt(self.share)
                await self._end_invitation(invitation)
                return True
        return False

    async def _end_invitation(self, invitation: DeviceInvitation) -> None:
        self._invitations.pop(invitation.secret.bits, None)
        self._invitation_rows.pop(invitation.secret.bits, None)
        for channel in (invitation.secret.to_existing(), invitation.secret.to_new()):
            await self._attempt(partial(self._queues.delete, channel.token))

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
        self._check_newcomer(request.device, request.device_public_key)
        answer = await self._account("POST", "/devices", request.to_bytes())
        invitation.certified = request.device
        self._keep_invitation(invitation)
        room = self.devices_room or await self._make_devices_room()
        chain = CertificateChain.from_bytes(answer).certificates
        grant = EnrolmentGrant(chain, self._keys.identity.seed(), room.leaf.set_key.seed())
        await self._pass(invitation.secret.to_new(), grant)

    def _check_newcomer(self, name: str, device_key: bytes) -> None:
        """The name of a device that was removed stays its own, as does that of any other; or `BindingRejected`."""
        if name in self._removed_devices():
            raise BindingRejected(f"the name of a device that was removed is not given again: {name}")
        if self._shared.get(SharedKind.DEVICE, name.encode()) not in (None, DeviceKey(device_key).to_bytes()):
            raise BindingRejected(f"there is a device {name}, which has another key")

    async def _make_devices_room(self) -> Joined:
        joined = await self.create_room()
        self._keep_devices_room(joined.uri)
        return joined

    async def _pass(self, channel: Channel, content: Struct) -> None:
        await self._queues.deposit(self.user.domain, queue_id(channel.token), channel.seal(content))

    async def _welcome_device(self, invitation: DeviceInvitation, package: OpenKeyPackage) -> None:
        """Add the device to the room of devices; the rest it is told there, and added to by `tend`."""
        room = self.devices_room
        if room is None or not invitation.certified:
            raise BindingRejected("a device arrives that has not asked to be certified")
        device, client = self._device_of(package, room.leaf.set_key)
        name = device.device.name
        if name != invitation.certified:
            raise BindingRejected("the device that arrives is not the one that was certified")
        self._check_newcomer(name, device.device_key)
        async with room.lock:
            await self._settle_commit(room)  # it may be the one that adds this very device
        if not self._is_there(room, client):
            with self.vault.transaction():  # known before it is there: so it can be removed, whatever happens
                self._know_device(self.device.name, self._keys.device.public)
                self._know_device(name, device.device_key)
                self._newcomers[str(client).encode()] = b""
            await self._clear_seat(room, name)
            await self._commit(room, add=[package])
        await self._commit(room)  # an Add-only commit heals nobody: this one does
        invitation.device = name
        self.notices.add(f"the device {name} was added to this account", self._clock())

    def _know_device(self, name: str, device_key: bytes) -> None:
        self._shared.put(SharedKind.DEVICE, name.encode(), DeviceKey(device_key).to_bytes())

    def _is_there(self, room: Joined, client: MimiUri) -> bool:
        return any(who.credential.client_pseudonym == client for who in room.room.participants().values())

    async def _clear_seat(self, room: Joined, name: str) -> None:
        """A device that was stopped before it had come in left a leaf that it can't use."""
        own = self._leaves_of(room, room.leaf.identity.credential.user_pseudonym)
        dead = [leaf for leaf in own if leaf != room.room.own_leaf and self._device_at(room, leaf) == name]
        if dead:
            await self.remove(room, dead)

    def _device_of(self, package: OpenKeyPackage, set_key: SigningKey) -> tuple[VerifiedDevice, MimiUri]:
        """Whose a KeyPackage is, and as which client: one of this user's devices, under the pseudonym of this key.

        Raises a subclass of `IdentityError`, or `ParseError`.
        """
        now = self._clock()
        try:
            (leaf,) = check_set([package.key_package], now)
        except InvalidCommit as error:
            raise BindingRejected(f"a KeyPackage that nobody can be added with: {error}") from None
        key = leaf.credential.signature_public_key  # which `check_set` has found to be the leaf's
        device = resolve(leaf.credential, package.ilk, key, self.trust, now).device
        if not self._is_own(device):
            raise BindingRejected("a KeyPackage that is not one of this user's devices'")
        if leaf.credential.user_pseudonym != self_certifying_pseudonym(self.user.domain, set_key.public):
            raise BindingRejected("a KeyPackage of another pseudonym than was wanted")
        return device, leaf.credential.client_pseudonym

    # --- the side of the new device ------------------------------------------------------------------

    async def join_account(self, code: str, wait: float = 120.0) -> None:
        """As a new device: become one of the user's, by the code that an existing one shows.

        Waits up to `wait` seconds for the existing device at each of two steps. Raises `InvalidUri` for a code that
        is mistyped, `UnknownQueue` for one that is used up or expired, `RoomError` if nobody answers. A device that
        failed, or was stopped, before it was in may try again with another code.
        """
        secret = DeviceCode.parse(code)
        if self.devices_room is not None:
            raise RoomError("this device is one of the account's already")
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

    async def _before_looking(self) -> None:
        """A KeyPackage for the devices' room is worth nothing after a restart, and nobody is there to ask."""
        lost = [one for one in self._waiting.values() if one.dead and one.user == self.user]
        for waiting in lost:
            self._forget_waiting(waiting)
        if lost and self.devices_room is None:
            self.notices.add(
                "this device was stopped before it had come in: it has to be added anew, with another code",
                self._clock(),
            )
        await super()._before_looking()
