"""This user's devices: the part that an application sees."""

from __future__ import annotations

from mimi_mmr.client.devices.devices_room import DevicesRoom
from mimi_mmr.client.devices.entering import Entering
from mimi_mmr.client.devices.inviting import DeviceInvitation, DeviceInvitations
from mimi_mmr.client.devices.known_devices import KnownDevices
from mimi_mmr.client.devices.missing import MissingDevices
from mimi_mmr.client.devices.package_requests import PackageRequests
from mimi_mmr.client.devices.removal import DeviceRemoval
from mimi_mmr.client.devices.sharing import Sharing
from mimi_mmr.client.rooms.membership import Membership
from mimi_mmr.client.storage.shared_state import SharedState


class Devices:
    """The devices of this user: all are in every room, and know the same contacts and keys."""

    def __init__(
        self,
        *,
        shared: SharedState,
        known: KnownDevices,
        devices_room: DevicesRoom,
        sharing: Sharing,
        invitations: DeviceInvitations,
        entering: Entering,
        removal: DeviceRemoval,
        package_requests: PackageRequests,
        missing: MissingDevices,
    ) -> None:
        """Hold the parts, which are internal."""
        self.shared = shared
        self.known = known
        self.devices_room = devices_room
        self.sharing = sharing
        self.invitations = invitations
        self.entering = entering
        self.removal = removal
        self.package_requests = package_requests
        self.missing = missing

    def names(self) -> list[str]:
        """Return the names of all of this user's devices, with this one and without those being removed."""
        return self.known.names()

    @property
    def room(self) -> Membership | None:
        """The room of this user's devices; None while there is one device only."""
        return self.devices_room.membership

    async def invite(self) -> DeviceInvitation:
        """Make a code for one further device. The user types it there within one hour."""
        return await self.invitations.invite()

    async def tend_invitation(self, invitation: DeviceInvitation, wait: float = 0.0) -> bool:
        """Go on with the device that typed the code; return whether it was added.

        May be called again after any failure.
        """
        return await self.invitations.tend(invitation, wait)

    async def join_account(self, code: str, wait: float = 120.0) -> None:
        """Make this new device one of the user's, with the code that an existing device shows."""
        await self.entering.join_account(code, wait)

    async def remove(self, name: str) -> None:
        """Remove a device from the account and from every room, and replace the keys that it knew."""
        await self.removal.remove(name)

    async def share(self) -> None:
        """Send the other devices the changes that they don't know yet."""
        await self.sharing.share()
