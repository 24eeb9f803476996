"""This user's devices and their leaves in rooms, as the devices have told each other."""

from __future__ import annotations

from collections.abc import Iterable

from mimi_mmr.client.account import Account
from mimi_mmr.client.context import Context
from mimi_mmr.client.rooms.membership import Membership
from mimi_mmr.client.rooms.own_devices import rank
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

    def is_in(self, membership: Membership, device: str) -> bool:
        """Say whether a device has announced a leaf that is in a room, under any pseudonym."""
        announced = self.leaf_in(membership.uri, device)
        return announced is not None and announced in _clients(membership)

    def announced(self, room: MimiUri) -> list[str]:
        """Return the names of the other devices that have announced a leaf in a room."""
        return [name for name in self.others() if self.leaf_in(room, name) is not None]

    def leaves(self, membership: Membership) -> set[int]:
        """Return the leaves of this user's devices in a room, under every pseudonym.

        Under another pseudonym than this device's these are the leaves that the devices have announced. Where names
        are shown, such a leaf has to show one of this user's devices.
        """
        clients = _clients(membership)
        announced = {clients[one] for one in self.leaves_in(membership.uri) if one in clients}
        own = set(membership.own_leaves)
        return own | {leaf for leaf in announced - own if self._may_be_own(membership, leaf)}

    def leaves_of(self, membership: Membership, device: str) -> set[int]:
        """Return the leaves that show a device of this user, or that it has announced, under every pseudonym."""
        clients, said = _clients(membership), self.leaf_in(membership.uri, device)
        found = {clients[said]} if said is not None and said in clients else set()
        found = {leaf for leaf in found if self._may_be_own(membership, leaf)}
        for entry in membership.room.who(self._context.trust, self._context.clock()):
            person = entry.member.device if entry.member else None
            if person is not None and self._is_own(person) and person.device.name == device:
                found.add(entry.leaf)
        return found

    def keeps(self, membership: Membership) -> bool:
        """Say whether this device's pseudonym in a room is the one that this user keeps there."""
        members, room = membership.room.members, membership.room
        users = {members.readable[leaf].user for leaf in self.leaves(membership)}
        return (
            max(users, key=lambda user: rank(room, user), default=membership.pseudonym)
            == membership.pseudonym
        )

    def _may_be_own(self, membership: Membership, leaf: int) -> bool:
        user = membership.room.members.user(leaf)
        if user is None or not membership.room.policy.policy.shows_identity(user):
            return user is not None
        person = self._person_at(membership, leaf)
        return person is not None and self._is_own(person)

    def _person_at(self, membership: Membership, leaf: int) -> VerifiedDevice | None:
        try:
            return membership.room.resolve(leaf, self._context.trust, self._context.clock()).device
        except MmrError:
            return None

    def _is_own(self, device: VerifiedDevice) -> bool:
        return (device.user, device.identity_key) == self._account.person

    def note_own_leaf(self, membership: Membership) -> None:
        """Have the other devices told which leaf is this device's: where names are hidden they can't see it."""
        pseudonym = membership.leaf.identity.credential.client_pseudonym
        place = _leaf_key(membership.uri, self._context.device.name)
        self._shared.put(SharedKind.LEAF, place, str(pseudonym).encode())

    def forget_own_leaves_but(self, rooms: Iterable[MimiUri]) -> None:
        """Have the other devices told that this device has no leaf in any other room than these."""
        kept = {_leaf_key(room, self._context.device.name) for room in rooms}
        for key, _ in self._shared.items(SharedKind.LEAF):
            if key.decode().split(" ")[1] == self._context.device.name and key not in kept:
                self._shared.put(SharedKind.LEAF, key, None)

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
        if not self._is_own(device):
            raise BindingRejected("a KeyPackage that is not one of this user's devices'")
        if leaf.credential.user_pseudonym != self_certifying_pseudonym(context.user.domain, set_key.public):
            raise BindingRejected("a KeyPackage of another pseudonym than was wanted")
        return device, leaf.credential.client_pseudonym


def _clients(membership: Membership) -> dict[bytes, int]:
    return {str(client).encode(): leaf for client, leaf in membership.room.members.by_client.items()}


def _leaf_key(room: MimiUri, device: str) -> bytes:
    return f"{room} {device}".encode()
