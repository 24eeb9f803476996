"""A client put together: each part with the parts it needs, and who listens to whom, in which order and why.

Parts are made from the ground up, so that each gets those that it calls. Where a part has to tell something to one
that is made later, it has a list of listeners; `_connect` fills them, and nothing else does.
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
from mimi_mmr.client.rooms.join_links import JoinLinks
from mimi_mmr.client.rooms.joining import Joining
from mimi_mmr.client.rooms.leaving import Leaving
from mimi_mmr.client.rooms.lost_keys import LostKeys
from mimi_mmr.client.rooms.membership import Membership
from mimi_mmr.client.rooms.memberships import Memberships
from mimi_mmr.client.rooms.pseudonyms import Pseudonyms
from mimi_mmr.client.rooms.reading import Reading
from mimi_mmr.client.rooms.repair import Repair
from mimi_mmr.client.rooms.rooms import Rooms
from mimi_mmr.client.rooms.roster import Roster
from mimi_mmr.client.rooms.sending import Sending
from mimi_mmr.client.storage.shared_state import SharedState
from mimi_mmr.client.tending import Tending
from mimi_mmr.client.transport.errands import Errand, Errands
from mimi_mmr.client.transport.queues import Queues
from mimi_mmr.client.transport.read_queues import ReadQueues
from mimi_mmr.crypto.secret import AccessToken
from mimi_mmr.member.whois import Whois
from mimi_mmr.protocol.content import Content, ContentKind


@dataclass(frozen=True, slots=True)
class Parts:
    """What a client is made of, as an application sees it."""

    account: Account
    people: People
    key_packages: KeyPackages
    rooms: Rooms
    devices: Devices
    tending: Tending


def build(context: Context, url: str, key_package_slot: float) -> Parts:
    """Make all parts of a client, as the vault has them, and connect them."""
    ground = _Ground(context, url, key_package_slot)
    talk = _Talk(context, ground)
    own_devices = _OwnDevices(context, ground, talk)
    ways_in = _WaysIn(context, ground, talk, own_devices)
    shelves = Shelves(
        context,
        ground.contacts,
        ground.maker,
        ground.outstanding,
        ground.errands,
        own_devices.package_requests,
    )
    rooms = _rooms(context, talk, ways_in)
    people = _people(context, ground, own_devices, shelves, rooms)
    devices = _devices(context, ground, own_devices, rooms, people)
    key_packages = KeyPackages(ground.maker, ground.outstanding, shelves, ground.claims)
    _connect(context, ground, shelves, rooms, people, devices)
    account, errands = ground.account, ground.errands
    tending = Tending(context, account, people, key_packages, rooms, devices, errands)
    return Parts(account, people, key_packages, rooms, devices, tending)


# --- from the ground up ------------------------------------------------------------------------------


class _Ground:
    """What everything else stands on: the account, who is known, queues, and this client's KeyPackages."""

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


class _Talk:
    """What is done in a room that one is in: read, commit, send."""

    def __init__(self, context: Context, ground: _Ground) -> None:
        self.memberships = Memberships(context, ground.read_queues)
        self.roster = Roster(context, ground.account, ground.contacts)
        self.delivery = CommitDelivery(context, self.memberships)
        self.repair = Repair(context, self.memberships)
        self.reading = Reading(
            context,
            self.memberships,
            ground.queues,
            ground.read_queues,
            self.delivery,
            self.repair,
            self.roster,
        )
        self.commits = Commits(self.memberships, self.delivery, self.reading, self.repair)
        self.sending = Sending(context, self.delivery, self.reading)
        self.leaving = Leaving(self.memberships, self.commits, self.sending)
        self.creating = Creating(context, self.memberships, ground.read_queues, ground.maker, self.commits)
        self.adding = Adding(context, ground.claims, self.commits, self.roster)


class _OwnDevices:
    """What rooms and KeyPackages need of the user's other devices."""

    def __init__(self, context: Context, ground: _Ground, talk: _Talk) -> None:
        self.known = KnownDevices(context, ground.account, ground.shared)
        self.devices_room = DevicesRoom(
            context, self.known, talk.memberships, talk.roster, talk.creating, talk.sending
        )
        self.package_requests = PackageRequests(
            context, self.known, self.devices_room, ground.maker, ground.outstanding, talk.reading
        )


class _WaysIn:
    """The ways into a room: by a Welcome, by a link, under another pseudonym, and again after keys were lost."""

    def __init__(self, context: Context, ground: _Ground, talk: _Talk, own_devices: _OwnDevices) -> None:
        self.joining = Joining(
            context, talk.memberships, ground.read_queues, ground.outstanding, talk.reading, talk.repair
        )
        self.invitations = Invitations(
            context, ground.queues, ground.read_queues, ground.outstanding, self.joining, talk.reading
        )
        self.pseudonyms = Pseudonyms(
            context,
            talk.memberships,
            ground.maker,
            ground.outstanding,
            own_devices.package_requests,
            talk.commits,
            talk.leaving,
            self.invitations,
        )
        self.links = JoinLinks(
            context,
            talk.memberships,
            ground.maker,
            ground.outstanding,
            own_devices.package_requests,
            talk.reading,
            talk.commits,
            self.invitations,
        )
        self.lost_keys = LostKeys(
            context, talk.memberships, ground.outstanding, ground.contacts, talk.sending
        )
        self.adding_again = AddingAgain(
            context, ground.contacts, talk.memberships, talk.roster, talk.commits, talk.adding
        )


def _rooms(context: Context, talk: _Talk, ways_in: _WaysIn) -> Rooms:
    return Rooms(
        memberships=talk.memberships,
        roster=talk.roster,
        delivery=talk.delivery,
        reading=talk.reading,
        commits=talk.commits,
        sending=talk.sending,
        assets=Assets(context, talk.sending),
        creating=talk.creating,
        adding=talk.adding,
        joining=ways_in.joining,
        invitations=ways_in.invitations,
        leaving=talk.leaving,
        pseudonyms=ways_in.pseudonyms,
        links=ways_in.links,
        lost_keys=ways_in.lost_keys,
        adding_again=ways_in.adding_again,
    )


def _people(
    context: Context,
    ground: _Ground,
    own_devices: _OwnDevices,
    shelves: Shelves,
    rooms: Rooms,
) -> People:
    packages = ConnectionPackages(context, ground.account, ground.shared)
    outgoing = OutgoingRequests(context, ground.account, ground.contacts, ground.queues)
    incoming = IncomingRequests(
        context,
        ground.account,
        ground.shared,
        packages,
        ground.contacts,
        own_devices.devices_room.exists,
    )
    keys = ConnectionKeys(
        context,
        ground.contacts,
        rooms.memberships,
        rooms.roster,
        rooms.sending,
        shelves,
        ground.errands,
    )
    connections = Connections(
        context,
        ground.account,
        contacts=ground.contacts,
        outgoing=outgoing,
        incoming=incoming,
        connection_keys=keys,
        queues=ground.queues,
        maker=ground.maker,
        outstanding=ground.outstanding,
        claims=ground.claims,
        memberships=rooms.memberships,
        roster=rooms.roster,
        creating=rooms.creating,
        commits=rooms.commits,
    )
    blocking = Blocking(
        context,
        ground.contacts,
        outgoing,
        keys,
        ground.outstanding,
        shelves,
        rooms.memberships,
        ground.errands,
    )
    reconnecting = Reconnecting(
        context,
        contacts=ground.contacts,
        outgoing=outgoing,
        incoming=incoming,
        connections=connections,
        connection_keys=keys,
        blocking=blocking,
        memberships=rooms.memberships,
        outstanding=ground.outstanding,
        lost_keys=rooms.lost_keys,
    )
    return People(
        contacts=ground.contacts,
        connection_packages=packages,
        outgoing=outgoing,
        incoming=incoming,
        connections=connections,
        connection_keys=keys,
        blocking=blocking,
        reconnecting=reconnecting,
    )


def _devices(
    context: Context, ground: _Ground, own_devices: _OwnDevices, rooms: Rooms, people: People
) -> Devices:
    known, devices_room = own_devices.known, own_devices.devices_room
    sharing = Sharing(
        context,
        ground.shared,
        devices_room,
        ground.contacts,
        people.connection_packages,
        rooms.memberships,
    )
    invitations = DeviceInvitations(
        context, ground.account, ground.queues, known, devices_room, sharing, rooms.commits
    )
    entering = Entering(
        context,
        ground.account,
        queues=ground.queues,
        packages=people.connection_packages,
        maker=ground.maker,
        outstanding=ground.outstanding,
        devices_room=devices_room,
        invitations=rooms.invitations,
    )
    removal = DeviceRemoval(
        context,
        ground.account,
        shared=ground.shared,
        known=known,
        sharing=sharing,
        contacts=ground.contacts,
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
        outstanding=ground.outstanding,
        memberships=rooms.memberships,
        reading=rooms.reading,
        commits=rooms.commits,
    )
    return Devices(
        shared=ground.shared,
        known=known,
        devices_room=devices_room,
        sharing=sharing,
        invitations=invitations,
        entering=entering,
        removal=removal,
        package_requests=own_devices.package_requests,
        missing=missing,
    )


# --- who listens to whom -----------------------------------------------------------------------------


def _connect(
    context: Context, ground: _Ground, shelves: Shelves, rooms: Rooms, people: People, devices: Devices
) -> None:
    _undo_failed_changes(context, ground, rooms, people)
    _run_errands(ground, shelves)
    _hear_of_places(rooms, people, devices)
    _read_what_comes(rooms, people, devices)
    _hear_of_devices(devices)


def _undo_failed_changes(context: Context, ground: _Ground, rooms: Rooms, people: People) -> None:
    """Say which parts hold in memory what the vault has."""
    context.changes.remember += [
        # Contacts are read from the shared entries, so these are put back first.
        ground.shared.remember,
        ground.contacts.remember,
        people.connection_packages.remember,
        people.outgoing.remember,
        # Places in rooms, which are put back after all these, ask for their queues.
        ground.read_queues.remember,
        ground.outstanding.remember,
        rooms.memberships.remember,
    ]


def _run_errands(ground: _Ground, shelves: Shelves) -> None:
    async def delete_queue(token: bytes, _: bytes) -> None:
        await ground.queues.delete(AccessToken(token))

    async def close_shelf(_: bytes, row: bytes) -> None:
        await shelves.close(row)

    ground.errands.handlers[Errand.DELETE_QUEUE] = delete_queue
    ground.errands.handlers[Errand.CLOSE_SHELF] = close_shelf


def _hear_of_places(rooms: Rooms, people: People, devices: Devices) -> None:
    """Connect what happens when this client comes into rooms."""
    memberships, invitations, joining = rooms.memberships, rooms.invitations, rooms.joining

    async def announce(membership: Membership) -> None:
        memberships.announce(membership)

    async def send_due_offers(_: Membership) -> None:
        await people.connection_keys.send_due_offers()

    memberships.entered += [
        # The more important one first, should the process end between them: a removed device that is not noted
        # would stay in the room; a leaf that the other devices are not told of is found where names are shown.
        devices.removal.note_room_entered,
        devices.known.note_own_leaf,
    ]
    invitations.before_looking += [
        # What is given up here is not to be looked for.
        devices.entering.forget_lost_key_packages,
        # Who waits for our connection key may be about to invite us with it.
        people.connection_keys.send_due_offers,
    ]
    # Only connections know who is blocked, and who is to be in a room of two.
    joining.place_checks += [people.connections.check_place]
    joining.placed += [
        # The old leaf signs while it still has its keys; what follows is in the same transaction.
        rooms.leaving.note_old_leaf,
        people.connections.note_connected,
        devices.devices_room.note_joined,
    ]
    invitations.arrived += [
        announce,
        # The room may be the one of a new contact, whom we owe our key since it was placed.
        send_due_offers,
    ]
    # Whoever deals with it first is who can do most: the user's own devices need nobody else's help, an inviter can
    # be asked, and what this client made for itself has nobody to ask.
    invitations.keys_lost += [
        devices.missing.tell_of_lost_keys,
        people.reconnecting.ask_inviter,
        rooms.lost_keys.take_own,
    ]


def _read_what_comes(rooms: Rooms, people: People, devices: Devices) -> None:
    """Connect what comes in the queues of rooms."""

    def add_again(membership: Membership, sender: Whois, content: Content) -> None:
        """The same wish: in the devices' room of a device, elsewhere of a contact."""
        if membership is devices.room:
            devices.missing.take_message(membership, sender, content)
        else:
            rooms.adding_again.take_message(membership, sender, content)

    rooms.reading.handlers.update(
        {
            ContentKind.CONNECTION_KEY: people.connection_keys.take_offer,
            ContentKind.DEVICE_REMOVED: people.connection_keys.take_removed_device,
            ContentKind.DEPARTURE: rooms.leaving.take_message,
            ContentKind.ADD_AGAIN: add_again,
            ContentKind.SHARED_STATE: devices.sharing.take_message,
            ContentKind.PACKAGES_WANTED: devices.package_requests.take_question_message,
            ContentKind.PACKAGES_MADE: devices.package_requests.take_answer_message,
        }
    )
    rooms.reading.join_request += [rooms.links.take_request]
    rooms.reading.stray += [rooms.lost_keys.note_stray]
    rooms.reading.page_read += [
        # Who asked to go goes before others come in. A removal ends all join links, so that nobody is let in by one
        # of which a departing member still knows the secret.
        rooms.leaving.answer_if_first,
        rooms.links.answer_if_first,
        # Last, since it may read further pages of the devices' room, and so lead here again.
        devices.package_requests.make_if_asked,
    ]


def _hear_of_devices(devices: Devices) -> None:
    """Connect what happens when a device is removed."""
    devices.devices_room.before_telling += [devices.removal.clear_before_telling]
    devices.sharing.device_removed += [
        # What is to be done is noted before anything is forgotten, in one transaction.
        devices.removal.note_rooms,
        devices.package_requests.forget_questions,
    ]
