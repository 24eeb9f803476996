"""The members of a room, as far as credentials and policy show them, and those that this client added itself."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping

from mimi_mmr.client.account import Account
from mimi_mmr.client.context import Context
from mimi_mmr.client.people.contact_book import ContactBook
from mimi_mmr.client.rooms.membership import Membership
from mimi_mmr.errors import BindingRejected, IdentityError
from mimi_mmr.member.room import Room
from mimi_mmr.member.whois import Standing, Whois
from mimi_mmr.protocol.credentials import VerifiedDevice, resolve
from mimi_mmr.protocol.key_packages import AddableKeyPackage, OpenKeyPackage
from mimi_mmr.protocol.key_packages import identity_of as leaf_identity_of
from mimi_mmr.uris import MimiUri


def identity_of(device: VerifiedDevice) -> tuple[MimiUri, bytes]:
    """Return the user of a device, and the user's identity key."""
    return device.user, device.identity_key


class Roster:
    """The resolving of members to users.

    Contacts' identity keys are checked: a contact's user name with another identity key is unverified in every
    room.
    """

    def __init__(self, context: Context, account: Account, contacts: ContactBook) -> None:
        self._context = context
        self._account = account
        self._contacts = contacts

    def who(self, room: Room, progress: Callable[[int, int], None] | None = None) -> list[Whois]:
        """Return every member, resolved as far as policy and credentials allow; `progress` gets (done, total)."""
        found = room.who(self._context.trust, self._context.clock(), progress)
        return [self._pinned(entry) for entry in found]

    def whois(self, room: Room, leaf: int) -> Whois:
        """Return one member; raises `RoomError` if there is none at this leaf."""
        return self._pinned(room.whois(leaf, self._context.trust, self._context.clock()))

    def _pinned(self, entry: Whois) -> Whois:
        try:
            if entry.member is not None:
                self._contacts.check_known(entry.member.device)
        except BindingRejected as error:
            why = f"leaf {entry.leaf}: {error}"
            return entry._replace(standing=Standing.UNVERIFIED, member=None, why=why)
        return entry

    def others(self, room: Room) -> set[tuple[MimiUri, bytes] | None]:
        """Return users and identity keys of the other members; None stands for those that can't be verified."""
        people = {identity_of(one.member.device) if one.member else None for one in self.who(room)}
        return people - {self._account.person}

    def people_in(self, membership: Membership) -> set[tuple[MimiUri, bytes]]:
        """Return users and identity keys of the members that are verified, without those who asked to leave."""
        departing = membership.departures
        return {
            identity_of(one.member.device)
            for one in self.who(membership.room)
            if one.member is not None and one.client not in departing
        }

    def behind(self, package: AddableKeyPackage) -> VerifiedDevice | None:
        """Return the device that a checked KeyPackage belongs to; None if it does not show this."""
        if not isinstance(package, OpenKeyPackage):
            return None
        credential, context = leaf_identity_of(package).credential, self._context
        key = credential.signature_public_key
        try:
            return resolve(credential, package.ilk, key, context.trust, context.clock()).device
        except IdentityError:
            return None

    def is_own(self, device: VerifiedDevice) -> bool:
        """Say whether a device is this user's."""
        return identity_of(device) == self._account.person

    # --- whom this client added ----------------------------------------------------------------------

    def added(self, membership: Membership) -> MutableMapping[bytes, bytes]:
        """Return the users for whom this client added a leaf, by client pseudonym.

        Where names are hidden, only the adder knows this.
        """
        return self._context.vault.table(f"added {membership.uri}")

    def user_at(self, membership: Membership, entry: Whois) -> MimiUri | None:
        """Return a leaf's user: from its credential or, if that is hidden, because this client added it."""
        if entry.member is not None:
            return entry.member.device.user
        added = self.added(membership).get(str(entry.client).encode())
        return MimiUri.parse(added.decode()) if added else None

    def users_in(self, membership: Membership) -> set[MimiUri]:
        """Return the users in a room, as far as this client knows them, without those who asked to leave."""
        entries = self.who(membership.room)
        clients = {str(entry.client).encode() for entry in entries}
        added = self.added(membership)
        for gone in [client for client in added if client not in clients]:
            del added[gone]
        departing = membership.departures
        users = (self.user_at(membership, entry) for entry in entries if entry.client not in departing)
        return {user for user in users if user is not None}
