"""The existing device's side of enrolment: it shows a code, which the user types on the new device.

Each step may be repeated after a failure; completed steps are not done again. The new device's side is in
`entering`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from mimi_mmr.client.account import Account
from mimi_mmr.client.context import Context
from mimi_mmr.client.devices.device_code import (
    CODE_LIFETIME,
    DeviceCode,
    EnrolmentArrival,
    EnrolmentGrant,
    EnrolmentRefusal,
    EnrolmentRequest,
)
from mimi_mmr.client.devices.devices_room import DevicesRoom
from mimi_mmr.client.devices.known_devices import KnownDevices
from mimi_mmr.client.devices.sharing import Sharing
from mimi_mmr.client.rooms.commits import Commits
from mimi_mmr.client.rooms.membership import Membership
from mimi_mmr.client.transport.queues import Queues
from mimi_mmr.client.waiting import wait_until
from mimi_mmr.crypto.secret import AccessToken
from mimi_mmr.crypto.signing import verify
from mimi_mmr.errors import (
    BindingRejected,
    IdentityError,
    NotAllowed,
    NotYet,
    ParseError,
    RoomError,
    SealedBoxRejected,
    SignatureRejected,
)
from mimi_mmr.member.intent import CommitIntent
from mimi_mmr.presentation import U64, Struct, Text
from mimi_mmr.protocol.accounts import AddDeviceRequest, AddDeviceTBS, access_token_hash
from mimi_mmr.protocol.endpoints import ADD_DEVICE
from mimi_mmr.protocol.key_packages import OpenKeyPackage
from mimi_mmr.protocol.queues import queue_id
from mimi_mmr.uris import MimiUri

LATER = "devices, to be tried again"
MAX_REASON = 200  # characters


@dataclass(frozen=True, slots=True)
class SavedInvitation(Struct):
    """A device code that was shown and is not used yet; `expiry` in seconds since 1970."""

    expiry: Annotated[int, U64]
    acknowledged: Annotated[int, U64]
    device: Annotated[str, Text(128)]


class DeviceInvitation:
    """A code that was shown for one further device. `device` is that device's name once it was added."""

    def __init__(self, code: DeviceCode, saved: SavedInvitation) -> None:
        """Make an invitation from a new code, or from the vault."""
        self.secret = code
        self.expiry = saved.expiry
        self.acknowledged = saved.acknowledged
        self.certified = saved.device
        self.device = ""

    @property
    def code(self) -> str:
        """The code as a text, to be typed on the new device."""
        return self.secret.reveal()

    def saved(self) -> SavedInvitation:
        """Return the invitation as the vault stores it."""
        return SavedInvitation(self.expiry, self.acknowledged, self.certified)


class DeviceInvitations:
    """The codes that were shown for further devices, and the steps that add these devices."""

    def __init__(
        self,
        context: Context,
        account: Account,
        queues: Queues,
        known: KnownDevices,
        devices_room: DevicesRoom,
        sharing: Sharing,
        commits: Commits,
    ) -> None:
        """Read the codes that the vault has."""
        self._context = context
        self._account = account
        self._queues = queues
        self._known = known
        self._devices_room = devices_room
        self._sharing = sharing
        self._commits = commits
        self._rows = context.vault.table("device codes")
        self._invitations = {
            bits: DeviceInvitation(DeviceCode(bits), SavedInvitation.from_bytes(row))
            for bits, row in self._rows.items()
        }

    def __iter__(self) -> Iterator[DeviceInvitation]:
        """Iterate over the invitations whose codes are not used yet."""
        return iter(list(self._invitations.values()))

    async def invite(self) -> DeviceInvitation:
        """Make a code for one further device. The user types it there within one hour."""
        code = DeviceCode.generate()
        for channel in (code.to_existing(), code.to_new()):
            await self._queues.create(channel.token, accepts_deposits=True)
        expiry = int(self._context.clock()) + CODE_LIFETIME
        invitation = DeviceInvitation(code, SavedInvitation(expiry, 0, ""))
        self._save(invitation)
        return invitation

    def _save(self, invitation: DeviceInvitation) -> None:
        self._rows[invitation.secret.bits] = invitation.saved().to_bytes()
        self._invitations[invitation.secret.bits] = invitation

    async def tend(self, invitation: DeviceInvitation, wait: float = 0.0) -> bool:
        """Go on with the device that typed the code; return whether it was added.

        May be called again after any failure.
        """
        if invitation.device:
            return True
        channel = invitation.secret.to_existing()
        if invitation.expiry < self._context.clock():
            await self._end(invitation)
            raise RoomError("the device code has expired")
        page = await self._queues.collect(channel.token, invitation.acknowledged, wait)
        for queued in page.messages:
            try:
                await self._take_step(invitation, channel.open(queued.message))
            except NotYet as error:
                self._context.refusals.add("device enrolment, to be tried again", error)
                await wait_until(error.due, self._context.clock, wait)
                return False
            except (SealedBoxRejected, ParseError, IdentityError, NotAllowed) as error:
                self._context.refusals.add("device enrolment", error)
                self._context.notify(f"a further device was not added: {error}")
            invitation.acknowledged = queued.sequence
            self._save(invitation)
            if invitation.device:
                await self._context.attempt(LATER, self._sharing.share)
                await self._end(invitation)
                return True
        return False

    async def _end(self, invitation: DeviceInvitation) -> None:
        self._rows.pop(invitation.secret.bits, None)
        self._invitations.pop(invitation.secret.bits, None)
        for channel in (invitation.secret.to_existing(), invitation.secret.to_new()):
            await self._context.attempt(LATER, partial(self._queues.delete, channel.token))

    async def _take_step(self, invitation: DeviceInvitation, content: bytes) -> None:
        if content[:1] == bytes([EnrolmentRequest.KIND]):
            await self._grant_or_refuse(invitation, EnrolmentRequest.from_bytes(content).request)
        else:
            arrival = EnrolmentArrival.from_bytes(content)
            await self._let_in(invitation, arrival.package)

    async def _grant_or_refuse(self, invitation: DeviceInvitation, request: AddDeviceRequest) -> None:
        """Answer the new device, which does not have to wait for a grant that never comes."""
        try:
            await self._grant(invitation, request)
        except (IdentityError, NotAllowed) as error:
            reason = str(error)[:MAX_REASON]
            refusal = EnrolmentRefusal(EnrolmentRefusal.KIND, request.device_public_key, reason)
            await self._context.attempt(LATER, partial(self._answer, invitation, refusal))
            raise

    async def _answer(self, invitation: DeviceInvitation, content: Struct) -> None:
        channel = invitation.secret.to_new()
        await self._queues.deposit(self._context.user.domain, queue_id(channel.token), channel.seal(content))

    async def _grant(self, invitation: DeviceInvitation, request: AddDeviceRequest) -> None:
        """Have the provider certify the device, and give it the user's identity key."""
        if invitation.certified not in ("", request.device):
            raise BindingRejected("a device code is good for one device")
        self._known.check_newcomer(request.device, request.device_public_key)
        _check_request(request, self._context.user)
        chain = await self._account.ask(ADD_DEVICE, request)
        invitation.certified = request.device
        self._save(invitation)
        room = await self._devices_room.get_or_create()
        identity = self._account.keys.identity
        grant = EnrolmentGrant(chain.certificates, identity.seed(), room.leaf.set_key.seed())
        await self._answer(invitation, grant)

    async def _let_in(self, invitation: DeviceInvitation, package: OpenKeyPackage) -> None:
        """Add the device to the devices' room.

        The shared state is sent to it there, and `tend` adds it to the other rooms.
        """
        room = self._devices_room.membership
        if room is None or not invitation.certified:
            raise BindingRejected("a device arrives that has not asked to be certified")
        device, client = self._known.owner_of(package, room.leaf.set_key)
        name = device.device.name
        if name != invitation.certified:
            raise BindingRejected("the device that arrives is not the one that was certified")
        self._known.check_newcomer(name, device.device_key)
        await self._commits.settle(room)  # the commit on its way may be the one that adds this device
        if client not in room.room.members.by_client:
            with self._context.changes.transaction():
                # noted before the device is in the room, so that it can be removed whatever happens
                self._known.learn(self._context.device.name, self._account.keys.device.public)
                self._known.learn(name, device.device_key)
                self._sharing.newcomers[str(client).encode()] = b""
            await self._clear_seat(room, name)
            await self._commits.commit(room, CommitIntent(adds=(package,)))
        await self._commits.commit(room)  # heals: an Add-only commit refreshes no keys
        invitation.device = name
        self._context.notify(f"the device {name} was added to this account")

    async def _clear_seat(self, room: Membership, name: str) -> None:
        """Remove the unusable leaf of a device that was stopped before it had entered the room."""
        own = [leaf for leaf in room.own_leaves if leaf != room.room.own_leaf]
        dead = [leaf for leaf in own if self._known.at(room, leaf) == name]
        if dead:
            await self._commits.commit(room, CommitIntent(removes=room.room.members.at(dead)))


def _check_request(request: AddDeviceRequest, user: MimiUri) -> None:
    """Check that the new device asks to be one of this user's; raise `BindingRejected`."""
    hashed = access_token_hash(AccessToken(request.access_token))
    key = request.device_public_key
    tbs = AddDeviceTBS(user.domain, user.name, request.device, key, hashed)
    try:
        verify(key, "AddDeviceTBS", tbs.to_bytes(), request.proof, by="addition of a device")
    except SignatureRejected:
        raise BindingRejected(f"it was not to become a device of {user}: is its user name right?") from None
