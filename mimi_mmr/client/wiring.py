"""Who listens to whom in a client, in which order, and why.

A part calls those that it was given (see `building`). What it has to tell to others it tells to a list of
listeners, which is filled here and nowhere else. They run in the order of the list.
"""

from __future__ import annotations

from mimi_mmr.client.context import Context
from mimi_mmr.client.devices.devices import Devices
from mimi_mmr.client.key_packages.key_packages import KeyPackages
from mimi_mmr.client.people.people import People
from mimi_mmr.client.rooms.membership import Membership
from mimi_mmr.client.rooms.rooms import Rooms
from mimi_mmr.client.transport.errands import Errand, Errands
from mimi_mmr.client.transport.queues import Queues
from mimi_mmr.crypto.secret import AccessToken
from mimi_mmr.member.whois import Whois
from mimi_mmr.protocol.content import Content, ContentKind


def connect(
    context: Context,
    errands: Errands,
    queues: Queues,
    people: People,
    key_packages: KeyPackages,
    rooms: Rooms,
    devices: Devices,
) -> None:
    """Fill all lists of listeners."""
    _undo_failed_changes(context, people, key_packages, rooms, devices)
    _run_errands(errands, queues, key_packages)
    _come_into_rooms(people, rooms, devices)
    _read_what_comes(people, rooms, devices)
    _remove_devices(devices)


def _undo_failed_changes(
    context: Context, people: People, key_packages: KeyPackages, rooms: Rooms, devices: Devices
) -> None:
    """Say which parts hold in memory what the vault has."""
    context.changes.remember += [
        # Contacts are read from the shared entries, so these are put back first.
        devices.shared.remember,
        people.contacts.remember,
        people.connection_packages.remember,
        people.outgoing.remember,
        # Places in rooms, which are put back after all these, ask for their queues.
        rooms.memberships.queues.remember,
        key_packages.outstanding.remember,
        rooms.memberships.remember,
    ]


def _run_errands(errands: Errands, queues: Queues, key_packages: KeyPackages) -> None:
    """Say what each kind of errand takes."""

    async def delete_queue(token: bytes, _: bytes) -> None:
        await queues.delete(AccessToken(token))

    async def close_shelf(_: bytes, row: bytes) -> None:
        await key_packages.shelves.close(row)

    errands.handlers[Errand.DELETE_QUEUE] = delete_queue
    errands.handlers[Errand.CLOSE_SHELF] = close_shelf


def _come_into_rooms(people: People, rooms: Rooms, devices: Devices) -> None:
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


def _read_what_comes(people: People, rooms: Rooms, devices: Devices) -> None:
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


def _remove_devices(devices: Devices) -> None:
    """Connect what happens when a device is removed."""
    devices.devices_room.before_telling += [devices.removal.clear_before_telling]
    devices.sharing.device_removed += [
        # What is to be done is noted before anything is forgotten, in one transaction.
        devices.removal.note_rooms,
        devices.package_requests.forget_questions,
    ]
