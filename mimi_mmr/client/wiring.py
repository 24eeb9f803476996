"""The listeners of a client's parts: which part listens to which, in which order, and why.

A part calls the parts that it was given (see `building`). To inform other parts it calls a list of listeners. These
lists are filled in this module only, and listeners run in the order of the list.
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
    _come_into_rooms(people, key_packages, rooms, devices)
    _read_what_comes(people, rooms, devices)
    _keep_devices_together(rooms, devices)
    _remove_devices(devices)


def _undo_failed_changes(
    context: Context, people: People, key_packages: KeyPackages, rooms: Rooms, devices: Devices
) -> None:
    """Register the parts that hold in memory what the vault has, so that a failed transaction restores them."""
    context.changes.remember += [
        # Contacts are read from the shared entries, so these are put back first.
        devices.shared.remember,
        people.contacts.remember,
        people.connection_packages.remember,
        people.outgoing.remember,
        # Places in rooms are put back after all these, because they need their queues.
        rooms.memberships.queues.remember,
        key_packages.outstanding.remember,
        rooms.memberships.remember,
    ]


def _run_errands(errands: Errands, queues: Queues, key_packages: KeyPackages) -> None:
    """Set the handler of each kind of errand."""

    async def delete_queue(token: bytes, _: bytes) -> None:
        await queues.delete(AccessToken(token))

    async def close_shelf(_: bytes, row: bytes) -> None:
        await key_packages.shelves.close(row)

    errands.handlers[Errand.DELETE_QUEUE] = delete_queue
    errands.handlers[Errand.CLOSE_SHELF] = close_shelf


def _come_into_rooms(people: People, key_packages: KeyPackages, rooms: Rooms, devices: Devices) -> None:
    """Connect the listeners for rooms that this client comes into."""
    memberships, invitations, joining = rooms.memberships, rooms.invitations, rooms.joining

    async def announce(membership: Membership) -> None:
        memberships.announce(membership)

    async def send_due_offers(_: Membership) -> None:
        await people.connection_keys.send_due_offers()

    memberships.entered += [
        # The more important one is first, in case the process ends between the two. A removed device that is not
        # noted would stay in the room. A leaf that the other devices are not told of can still be found where names
        # are shown.
        devices.removal.note_room_entered,
        devices.known.note_own_leaf,
    ]
    invitations.before_looking += [
        # First, so that the look skips the KeyPackages that this drops.
        devices.entering.forget_lost_key_packages,
        # A contact who waits for our connection key may invite us as soon as it arrives.
        people.connection_keys.send_due_offers,
    ]
    # Only `connections` knows who is blocked, and which two users belong in a connection room.
    # Only `devices_room` knows that nobody but this user's devices belongs in their room.
    joining.place_checks += [people.connections.check_place, devices.devices_room.check_place]
    rooms.delivery.accepted += [key_packages.outstanding.note_own_commit]
    joining.placed += [
        # First, since the old leaf signs its departure and loses its keys later in the same transaction.
        rooms.leaving.note_old_leaf,
        people.connections.note_connected,
        devices.devices_room.note_joined,
    ]
    invitations.arrived += [
        announce,
        # The room may be a new contact's connection room: then our connection key for them became due with it.
        send_due_offers,
    ]
    # In this order, until one has dealt with it. The user's other devices can repair it without anybody else; an
    # inviter can be asked to; a KeyPackage that this client made for itself leaves nobody to ask.
    invitations.keys_lost += [
        devices.missing.tell_of_lost_keys,
        people.reconnecting.ask_inviter,
        rooms.lost_keys.take_own,
    ]


def _read_what_comes(people: People, rooms: Rooms, devices: Devices) -> None:
    """Connect the handlers and listeners for what comes in the queues of rooms."""

    def add_again(membership: Membership, sender: Whois, content: Content) -> None:
        """Pass on a wish to be added again: from a device of ours in the devices' room, else from a contact."""
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
        # Departures are answered before join requests. A removal ends all join links, so nobody is let in by a link
        # whose secret a departing member knows.
        rooms.leaving.answer_if_first,
        rooms.links.answer_if_first,
        # Last, since it may read further pages of the devices' room, which runs these listeners again.
        devices.package_requests.make_if_asked,
    ]


def _keep_devices_together(rooms: Rooms, devices: Devices) -> None:
    """Connect the listeners for a device that comes to a room which another device of the user is in."""
    devices.package_requests.before_asking += [devices.sharing.share]
    devices.package_requests.asker_missing += [devices.missing.add_asked]
    rooms.links.own_device_asked += [devices.missing.add_asked]


def _remove_devices(devices: Devices) -> None:
    """Connect the listeners for the removal of a device."""
    devices.devices_room.before_telling += [devices.removal.clear_before_telling]
    devices.sharing.device_removed += [
        # The pending work is written down before anything is dropped, in one transaction.
        devices.removal.note_rooms,
        devices.package_requests.forget_questions,
    ]
