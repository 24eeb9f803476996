"""The new device's side of enrolment, with the code that an existing device shows; see `inviting`."""

from __future__ import annotations

from mimi_mmr.client.account import Account
from mimi_mmr.client.context import Context
from mimi_mmr.client.devices.device_code import (
    Channel,
    DeviceCode,
    EnrolmentArrival,
    EnrolmentGrant,
    EnrolmentRefusal,
    EnrolmentRequest,
)
from mimi_mmr.client.devices.devices_room import DevicesRoom
from mimi_mmr.client.key_packages.maker import KeyPackageMaker
from mimi_mmr.client.key_packages.outstanding import OutstandingKeyPackages
from mimi_mmr.client.people.connection_packages import ConnectionPackages
from mimi_mmr.client.rooms.invitations import Invitations
from mimi_mmr.client.transport.queues import Queues
from mimi_mmr.crypto.signing import SigningKey
from mimi_mmr.errors import DeviceRefused, ParseError, RoomError, SealedBoxRejected, UnknownQueue
from mimi_mmr.presentation import Struct
from mimi_mmr.protocol.accounts import AddDeviceRequest, AddDeviceTBS, access_token_hash
from mimi_mmr.protocol.queues import queue_id

WAIT_SECONDS = 5.0


class Entering:
    """The part that makes this new device one of a user's devices."""

    def __init__(
        self,
        context: Context,
        account: Account,
        *,
        queues: Queues,
        packages: ConnectionPackages,
        maker: KeyPackageMaker,
        outstanding: OutstandingKeyPackages,
        devices_room: DevicesRoom,
        invitations: Invitations,
    ) -> None:
        self._context = context
        self._account = account
        self._queues = queues
        self._packages = packages
        self._maker = maker
        self._outstanding = outstanding
        self._devices_room = devices_room
        self._invitations = invitations

    async def join_account(self, code: str, wait: float = 120.0) -> None:
        """Make this new device one of the user's, with the code that an existing device shows.

        Waits up to `wait` seconds for the existing device at each of two steps. Raises `InvalidUri` for a mistyped
        code, `UnknownQueue` for a used or expired one, both before anything was asked; `DeviceRefused` if the
        existing device refuses, `RoomError` if it does not answer. A device that failed, or was stopped, before it
        was added may try again with another code.
        """
        secret = DeviceCode.parse(code)
        if self._devices_room.exists():
            raise RoomError("this device is one of the account's already")
        try:
            await self._pass(secret.to_existing(), EnrolmentRequest(EnrolmentRequest.KIND, self._request()))
        except UnknownQueue:
            raise UnknownQueue(
                "no device waits for this code: it was used, or is too old; have the other device show another one"
            ) from None
        grant = await self._granted(secret.to_new(), wait)
        await self._account.certify(grant.chain, SigningKey.from_seed(grant.identity_seed))
        await self._packages.publish()
        (package,) = await self._maker.make([SigningKey.from_seed(grant.set_seed)])
        self._outstanding.watch(package, user=self._context.user)
        await self._pass(secret.to_existing(), EnrolmentArrival(EnrolmentArrival.KIND, package.open))
        end = self._context.clock() + wait
        while not self._devices_room.exists():
            if self._context.clock() >= end:
                raise RoomError("the existing device did not answer in time; is it running?")
            await self._invitations.check(wait=WAIT_SECONDS)

    def _request(self) -> AddDeviceRequest:
        """Return the request for the existing device, which has the provider certify this one."""
        user, device, keys = self._context.user, self._context.device, self._account.keys
        public = keys.device.public
        tbs = AddDeviceTBS(user.domain, user.name, device.name, public, access_token_hash(keys.token))
        proof = keys.device.sign("AddDeviceTBS", tbs.to_bytes())
        return AddDeviceRequest(device.name, public, proof, keys.token.reveal())

    async def _pass(self, channel: Channel, content: Struct) -> None:
        await self._queues.deposit(self._context.user.domain, queue_id(channel.token), channel.seal(content))

    async def _granted(self, channel: Channel, wait: float) -> EnrolmentGrant:
        end = self._context.clock() + wait
        acknowledged = 0
        while True:
            try:
                page = await self._queues.collect(channel.token, acknowledged, WAIT_SECONDS)
            except UnknownQueue:
                raise RoomError("the device code has expired; try again with another one") from None
            for queued in page.messages:
                acknowledged = queued.sequence
                try:
                    grant = self._read_grant(channel.open(queued.message))
                except (SealedBoxRejected, ParseError) as error:
                    self._context.refusals.add("device enrolment", error)
                else:
                    if grant is not None:
                        return grant
            if self._context.clock() >= end:
                raise RoomError("the existing device did not answer in time; is it running?")

    def _read_grant(self, content: bytes) -> EnrolmentGrant | None:
        """Return the grant, None for the refusal of another device; raise `DeviceRefused`, `ParseError`."""
        if content[:1] != bytes([EnrolmentRefusal.KIND]):
            return EnrolmentGrant.from_bytes(content)
        refusal = EnrolmentRefusal.from_bytes(content)
        if refusal.device_public_key == self._account.keys.device.public:
            raise DeviceRefused(f"the existing device did not add this one: {refusal.reason}")
        return None

    async def forget_lost_key_packages(self) -> None:
        """Drop a KeyPackage for the devices' room after a restart, which has lost its private keys."""
        lost = [one for one in self._outstanding if one.keys_are_lost and one.user == self._context.user]
        for item in lost:
            self._outstanding.forget(item)
        if lost and not self._devices_room.exists():
            self._context.notify(
                "this device was stopped before it had come in: it has to be added anew, with another code"
            )
