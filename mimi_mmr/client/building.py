"""Construction of a client: each part is made after the parts that it calls, and gets these as arguments.

A part that has to inform a part made later has a list of listeners: see `wiring`.
"""

from __future__ import annotations

from dataclasses import dataclass

from mimi_mmr.client.account import Account
from mimi_mmr.client.context import Context
from mimi_mmr.client.devices.devices import Devices
from mimi_mmr.client.devices.devices_room import DevicesRoom
from mimi_mmr.client.devices.entering import Entering
from mimi_mmr.client.devices.inviting import DeviceInvitations
from mimi_mmr.client.devices.known_devices import KnownDevices
from mimi_mmr.client.devices.missing import MissingDevices
from mimi_mmr.client.devices.package_requests import PackageRequests
from mimi_mmr.client.devices.removal import DeviceRemoval
from mimi_mmr.client.devices.sharing import Sharing
from mimi_mmr.client.key_packages.claims import Claims
from mimi_mmr.client.key_packages.key_packages import KeyPackages
from mimi_mmr.client.key_packages.maker import KeyPackageMaker
from mimi_mmr.client.key_packages.outstanding import OutstandingKeyPackages
from mimi_mmr.client.key_packages.shelves import Shelves
from mimi_mmr.client.people.blocking import Blocking
from mimi_mmr.client.people.connection_keys import ConnectionKeys
from mimi_mmr.client.people.connection_packages import ConnectionPackages
from mimi_mmr.client.people.connections import Connections
from mimi_mmr.client.people.contact_book import ContactBook
from mimi_mmr.client.people.incoming import IncomingRequests
from mimi_mmr.client.people.outgoing import OutgoingRequests
from mimi_mmr.client.people.people import People
from mimi_mmr.client.people.reconnecting import Reconnecting
from mimi_mmr.client.rooms.adding import Adding
from mimi_mmr.client.rooms.adding_again import AddingAgain
from mimi_mmr.client.rooms.assets import Assets
from mimi_mmr.client.rooms.commits import Commits
from mimi_mmr.client.rooms.creating import Creating
from mimi_mmr.client.rooms.delivery import CommitDelivery
from mimi_mmr.client.rooms.invitations import Invitations
from mimi_mmr.client.rooms.join_links import RoomLinks
from mimi_mmr.client.rooms.joining import Joining
from mimi_mmr.client.rooms.leaving import Leaving
from mimi_mmr.client.rooms.lost_keys import LostKeys
from mimi_mmr.client.rooms.memberships import Memberships
from mimi_mmr.client.rooms.pseudonyms import Pseudonyms
from mimi_mmr.client.rooms.reading import Reading
from mimi_mmr.client.rooms.repair import RoomRepair
from mimi_mmr.client.rooms.rooms import Rooms
from mimi_mmr.client.rooms.roster import Roster
from mimi_mmr.client.rooms.sending import Sending
from mimi_mmr.client.storage.shared_state import SharedState
from mimi_mmr.client.tending import Tending
from mimi_mmr.client.transport.errands import Errands
from mimi_mmr.client.transport.queues import Queues
from mimi_mmr.client.transport.read_queues import ReadQueues
from mimi_mmr.client.wiring import connect


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a client that an application sees."""

    account: Account
    people: People
    key_packages: KeyPackages
    rooms: Rooms
    devices: Devices
    tending: Tending


def build(context: Context, url: str, key_package_slot: float) -> Parts:
    """Make all parts of a client from the vault, and connect their listeners."""
    basics = _Basics(context, url, key_package_slot)
    in_rooms = _InRooms(context, basics)
    own_devices = _OwnDevices(context, basics, in_rooms)
    ways_in = _WaysIn(context, basics, in_rooms, own_devices)
    shelves = Shelves(
        context,
        basics.contacts,
        basics.maker,
        basics.outstanding,
        basics.errands,
        own_devices.package_requests,
    )
    rooms = _rooms(context, in_rooms, ways_in)
    people = _people(context, basics, own_devices, shelves, rooms)
    devices = _devices(context, basics, own_devices, rooms, people)
    key_packages = KeyPackages(basics.maker, basics.outstanding, shelves, basics.claims)
    connect(context, basics.errands, basics.queues, people, key_packages, rooms, devices)
    account, errands = basics.account, basics.errands
    tending = Tending(context, account, people, key_packages, rooms, devices, errands)
    return Parts(account, people, key_packages, rooms, devices, tending)


# --- from the bottom up ------------------------------------------------------------------------------


class _Basics:
    """The parts that all others use: the account, contacts and devices, queues, and this client's KeyPackages."""

    def __init__(self, context: Context, url: str, key_package_slot: float) -> None:
        self.shared = SharedState(context.vault, context.device.name)
        self.account = Account(context, url)
        self.contacts = ContactBook(self.shared)
        self.queues = Queues(context.path)
        self.errands = Errands(context)
        self.read_queues = ReadQueues(context, self.errands)
        self.maker = KeyPackageMaker(context, self.account, self.queues, key_package_slot)
        self.outstanding = OutstandingKeyPackages(context, self.read_queues)
        self.claims = Claims(context, self.contacts)


class _InRooms:
    """The parts that work in a room which this client is in: read, commit, send."""

    def __init__(self, context: Context, basics: _Basics) -> None:
        self.memberships = Memberships(context, basics.read_queues)
        self.roster = Roster(context, basics.account, basics.contacts)
        self.delivery = CommitDelivery(context, self.memberships)
        self.repair = RoomRepair(context, self.memberships)
        self.reading = Reading(
            context,
            self.memberships,
            basics.queues,
            basics.read_queues,
            self.delivery,
            self.repair,
            self.roster,
        )
        self.commits = Commits(context, self.memberships, self.delivery, self.reading, self.repair)
        self.sending = Sending(context, self.delivery, self.reading)
        self.leaving = Leaving(self.memberships, self.commits, self.sending)
        self.creating = Creating(context, self.memberships, basics.read_queues, basics.maker, self.commits)
        self.adding = Adding(context, basics.claims, self.commits, self.roster)


class _OwnDevices:
    """The parts that supply rooms and KeyPackages with what they need of the user's other devices."""

    def __init__(self, context: Context, basics: _Basics, in_rooms: _InRooms) -> None:
        self.known = KnownDevices(context, basics.account, basics.shared)
        self.devices_room = DevicesRoom(
            context, self.known, in_rooms.memberships, in_rooms.roster, in_rooms.creating, in_rooms.sending
        )
        self.package_requests = PackageRequests(
            context,
            self.known,
            self.devices_room,
            basics.maker,
            basics.outstanding,
            in_rooms.memberships,
            in_rooms.reading,
        )


class _WaysIn:
    """The ways into a room: Welcome, join link, another pseudonym, and being added again after keys were lost."""

    def __init__(
        self, context: Context, basics: _Basics, in_rooms: _InRooms, own_devices: _OwnDevices
    ) -> None:
        self.joining = Joining(
            context,
            in_rooms.memberships,
            basics.read_queues,
            basics.outstanding,
            in_rooms.reading,
            in_rooms.repair,
            in_rooms.delivery,
            in_rooms.roster,
            own_devices.known,
        )
        self.invitations = Invitations(
            context, basics.queues, basics.read_queues, basics.outstanding, self.joining, in_rooms.reading
        )
        self.pseudonyms = Pseudonyms(
            context,
            in_rooms.memberships,
            basics.maker,
            basics.outstanding,
            own_devices.package_requests,
            in_rooms.commits,
            in_rooms.leaving,
            self.invitations,
        )
        self.links = RoomLinks(
            context,
            in_rooms.memberships,
            basics.maker,
            basics.outstanding,
            own_devices.package_requests,
            in_rooms.reading,
            in_rooms.roster,
            in_rooms.commits,
            self.invitations,
        )
        self.lost_keys = LostKeys(
            context, in_rooms.memberships, basics.outstanding, basics.contacts, in_rooms.sending
        )
        self.adding_again = AddingAgain(
            context, basics.contacts, in_rooms.memberships, in_rooms.roster, in_rooms.commits, in_rooms.adding
        )


def _rooms(context: Context, in_rooms: _InRooms, ways_in: _WaysIn) -> Rooms:
    return Rooms(
        memberships=in_rooms.memberships,
        roster=in_rooms.roster,
        delivery=in_rooms.delivery,
        reading=in_rooms.reading,
        commits=in_rooms.commits,
        sending=in_rooms.sending,
        assets=Assets(context, in_rooms.sending),
        creating=in_rooms.creating,
        adding=in_rooms.adding,
        joining=ways_in.joining,
        invitations=ways_in.invitations,
        leaving=in_rooms.leaving,
        pseudonyms=ways_in.pseudonyms,
        links=ways_in.links,
        lost_keys=ways_in.lost_keys,
        adding_again=ways_in.adding_again,
    )


def _people(
    context: Context,
    basics: _Basics,
    own_devices: _OwnDevices,
    shelves: Shelves,
    rooms: Rooms,
) -> People:
    packages = ConnectionPackages(context, basics.account, basics.shared)
    outgoing = OutgoingRequests(context, basics.account, basics.contacts, basics.queues)
    incoming = IncomingRequests(
        context,
        basics.account,
        basics.shared,
        packages,
        basics.contacts,
        own_devices.devices_room.exists,
    )
    keys = ConnectionKeys(
        context,
        basics.contacts,
        rooms.memberships,
        rooms.roster,
        rooms.sending,
        shelves,
        basics.errands,
    )
    connections = Connections(
        context,
        basics.account,
        contacts=basics.contacts,
        outgoing=outgoing,
        incoming=incoming,
        connection_keys=keys,
        queues=basics.queues,
        maker=basics.maker,
        outstanding=basics.outstanding,
        claims=basics.claims,
        memberships=rooms.memberships,
        roster=rooms.roster,
        creating=rooms.creating,
        commits=rooms.commits,
    )
    blocking = Blocking(
        context,
        basics.contacts,
        outgoing,
        keys,
        basics.outstanding,
        shelves,
        rooms.memberships,
        basics.errands,
    )
    reconnecting = Reconnecting(
        context,
        contacts=basics.contacts,
        outgoing=outgoing,
        incoming=incoming,
        connections=connections,
        connection_keys=keys,
        blocking=blocking,
        memberships=rooms.memberships,
        outstanding=basics.outstanding,
        lost_keys=rooms.lost_keys,
    )
    return People(
        contacts=basics.contacts,
        connection_packages=packages,
        outgoing=outgoing,
        incoming=incoming,
        connections=connections,
        connection_keys=keys,
        blocking=blocking,
        reconnecting=reconnecting,
    )


def _devices(
    context: Context, basics: _Basics, own_devices: _OwnDevices, rooms: Rooms, people: People
) -> Devices:
    known, devices_room = own_devices.known, own_devices.devices_room
    sharing = Sharing(
        context,
        basics.shared,
        devices_room,
        basics.contacts,
        people.connection_packages,
        rooms.memberships,
    )
    invitations = DeviceInvitations(
        context, basics.account, basics.queues, known, devices_room, sharing, rooms.commits
    )
    entering = Entering(
        context,
        basics.account,
        queues=basics.queues,
        packages=people.connection_packages,
        maker=basics.maker,
        outstanding=basics.outstanding,
        devices_room=devices_room,
        invitations=rooms.invitations,
    )
    removal = DeviceRemoval(
        context,
        basics.account,
        shared=basics.shared,
        known=known,
        sharing=sharing,
        contacts=basics.contacts,
        packages=people.connection_packages,
        connection_keys=people.connection_keys,
        memberships=rooms.memberships,
        commits=rooms.commits,
        sending=rooms.sending,
    )
    missing = MissingDevices(
        context,
        known=known,
        devices_room=devices_room,
        package_requests=own_devices.package_requests,
        outstanding=basics.outstanding,
        memberships=rooms.memberships,
        reading=rooms.reading,
        commits=rooms.commits,
    )
    return Devices(
        shared=basics.shared,
        known=known,
        devices_room=devices_room,
        sharing=sharing,
        invitations=invitations,
        entering=entering,
        removal=removal,
        package_requests=own_devices.package_requests,
        missing=missing,
    )
