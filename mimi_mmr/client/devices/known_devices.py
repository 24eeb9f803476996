"""This user's devices and their leaves in rooms, as the devices have told each other."""

from __future__ import annotations

from mimi_mmr.client.account import Account
from mimi_mmr.client.context import Context
from mimi_mmr.client.rooms.membership import Membership
from mimi_mmr.client.storage.shared_state import DeviceKey, SharedKind, SharedState
from mimi_mmr.crypto.signing import SigningKey
from mimi_mmr.errors import BindingRejected, InvalidCommit, MmrError
from mimi_mmr.protocol.credentials import VerifiedDevice, resolve
from mimi_mmr.protocol.key_packages import OpenKeyPackage, check_set
from mimi_mmr.uris import MimiUri, self_certifying_pseudonym


class KnownDevices:
    """This user's devices by name."""

    def __init__(self, context: Context, account: Account, shared: SharedState) -> None:
        self._context = context
        self._account = account
        self._shared = shared

    # --- which there are -----------------------------------------------------------------------------

    def names(self) -> list[str]:
        """Return the names of all devices, this one included; without those that are being removed."""
        return sorted({self._context.device.name, *self.others()})

    def others(self) -> list[str]:
        """Return the names of all devices but this one."""
        known = (key.decode() for key, _ in self._shared.items(SharedKind.DEVICE))
        return sorted(name for name in known if name != self._context.device.name)

    def removed(self) -> set[str]:
        """Return the names of removed devices, also of those whose removal is not finished yet."""
        return {key.decode() for key in self._shared.gone(SharedKind.DEVICE)} - {self._context.device.name}

    def learn(self, name: str, device_key: bytes) -> None:
        """Store a device with its key, and have the other devices told."""
        self._shared.put(SharedKind.DEVICE, name.encode(), DeviceKey(device_key).to_bytes())

    def check_newcomer(self, name: str, device_key: bytes) -> None:
        """Refuse the name of a device that was removed, or that has another key; raises `BindingRejected`."""
        if name in self.removed():
            raise BindingRejected(f"the name of a device that was removed is not given again: {name}")
        known = self._shared.get(SharedKind.DEVICE, name.encode())
        if known not in (None, DeviceKey(device_key).to_bytes()):
            raise BindingRejected(f"the account has another device {name}; give this one another name")

    # --- where they are ------------------------------------------------------------------------------

    def at(self, membership: Membership, leaf: int) -> str:
        """Return the name of the device at one of this user's leaves; "" where names are hidden."""
        try:
            member = membership.room.resolve(leaf, self._context.trust, self._context.clock())
        except MmrError:
            return ""
        return member.device.device.name

    def leaf_in(self, room: MimiUri, device: str) -> bytes | None:
        """Return the client pseudonym that a device has announced for its leaf in a room."""
        return self._shared.get(SharedKind.LEAF, _leaf_key(room, device))

    def leaves_in(self, room: MimiUri) -> dict[bytes, str]:
        """Return all client pseudonyms that devices have announced in a room, with the device of each."""
        said = ((self.leaf_in(room, name), name) for name in self.names())
        return {pseudonym: name for pseudonym, name in said if pseudonym is not None}

    def note_own_leaf(self, membership: Membership) -> None:
        """Have the other devices told which leaf is this device's: where names are hidden they can't see it."""
        pseudonym = membership.leaf.identity.credential.client_pseudonym
        place = _leaf_key(membership.uri, self._context.device.name)
        self._shared.put(SharedKind.LEAF, place, str(pseudonym).encode())

    def forget_leaf(self, room: MimiUri, device: str) -> None:
        """Note that a device has no leaf in a room any more."""
        if self.leaf_in(room, device) is not None:
            self._shared.put(SharedKind.LEAF, _leaf_key(room, device), None)

    # --- their KeyPackages ---------------------------------------------------------------------------

    def owner_of(self, package: OpenKeyPackage, set_key: SigningKey) -> tuple[VerifiedDevice, MimiUri]:
        """Return the device and the client pseudonym of a KeyPackage under this set key's user pseudonym.

        Raises a subclass of `IdentityError`, or `ParseError`.
        """
        context, now = self._context, self._context.clock()
        try:
            (leaf,) = check_set([package.key_package], now)
        except InvalidCommit as error:
            raise BindingRejected(f"a KeyPackage that nobody can be added with: {error}") from None
        key = leaf.credential.signature_public_key  # `check_set` has verified that it belongs to the leaf
        device = resolve(leaf.credential, package.ilk, key, context.trust, now).device
        if (device.user, device.identity_key) != self._account.person:
            raise BindingRejected("a KeyPackage that is not one of this user's devices'")
        if leaf.credential.user_pseudonym != self_certifying_pseudonym(context.user.domain, set_key.public):
            raise BindingRejected("a KeyPackage of another pseudonym than was wanted")
        return device, leaf.credential.client_pseudonym


def _leaf_key(room: MimiUri, device: str) -> bytes:
    return f"{room} {device}".encode()
