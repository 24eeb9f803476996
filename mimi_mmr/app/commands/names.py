"""The names of rooms and people, and the lookup of the one that a person typed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, TypeVar

from mimi_mmr.app.commands.errors import Ambiguous, NotFound
from mimi_mmr.errors import InvalidUri
from mimi_mmr.uris import Kind, MimiUri

if TYPE_CHECKING:
    from mimi_mmr.client import Client, Contact, Membership

SHORT = 8
LEAST_PREFIX = 4
_T = TypeVar("_T")


# --- what they are called -----------------------------------------------------------------------------


def address(user: MimiUri) -> str:
    """Return a user's name as people write it: `name@domain`."""
    return f"{user.name}@{user.domain}"


def user_names(user: MimiUri) -> set[str]:
    """Return what a person may be called: `bob`, `bob@b.example`, the URI."""
    return {user.name, address(user), str(user)}


def short_id(room: MimiUri) -> str:
    """Return the first letters of a room's random id: enough to tell one person's rooms apart."""
    return room.name[:SHORT]


def contact_in(client: Client, membership: Membership) -> Contact | None:
    """Return the contact whose direct room this is; None for any other room."""
    return next(
        (contact for contact in client.people.contacts.values() if contact.room == membership.uri), None
    )


def room_names(client: Client, membership: Membership) -> set[str]:
    """Return what a room may be called: its name, and in a direct room the contact."""
    contact = contact_in(client, membership)
    names = {membership.room.members_only.state.name} if membership.room.members_only.state.name else set()
    return names | user_names(contact.user) if contact else names


def label(client: Client, membership: Membership) -> str:
    """Return the best name of a room for a person to read."""
    contact = contact_in(client, membership)
    return membership.room.members_only.state.name or (
        address(contact.user) if contact else short_id(membership.uri)
    )


# --- which one is meant -------------------------------------------------------------------------------


def people_rooms(client: Client) -> list[Membership]:
    """Return the rooms that people talk in: all but the room of one's own devices."""
    return [membership for membership in client.rooms.values() if membership is not client.devices.room]


def find_room(client: Client, text: str) -> Membership:
    """Return the room of this URI, name, contact, or beginning of an id. Raise `NotFound` or `Ambiguous`."""
    rooms = people_rooms(client)
    exact = [membership for membership in rooms if str(membership.uri) == text]
    named = [membership for membership in rooms if text and text in room_names(client, membership)]
    long_enough = len(text) >= LEAST_PREFIX
    begun = [
        membership for membership in rooms if long_enough and membership.uri.name.startswith(text.lower())
    ]
    found = exact or named or begun
    if not found:
        raise NotFound("no room has this name or id: mimi-mmr room list shows all rooms")
    if len(found) > 1:
        which = (f"{short_id(membership.uri)} ({label(client, membership)})" for membership in found)
        raise Ambiguous(f"{len(found)} rooms have this name: {', '.join(which)}")
    return found[0]


def find_user(users: Iterable[MimiUri], text: str, what: str) -> MimiUri:
    """Return the user who is meant. Raise `NotFound` or `Ambiguous`, whose text says `what` was looked for."""
    named = [user for user in users if text in user_names(user)]
    exact = [user for user in named if text in (address(user), str(user))]
    found = exact or named
    if not found:
        raise NotFound(f"no {what} has this name: mimi-mmr contact list shows all contacts and requests")
    if len(found) > 1:
        raise Ambiguous(f"{len(found)} people have this name: {', '.join(address(user) for user in found)}")
    return found[0]


def find_in(people: Mapping[MimiUri, _T], text: str, what: str) -> _T:
    """Return the entry of the user who is meant, as `find_user` does."""
    return people[find_user(people, text, what)]


def find_contact(client: Client, text: str) -> Contact:
    """Return the contact who is meant. Raise `NotFound` or `Ambiguous`."""
    return find_in(client.people.contacts, text, "contact")


def parse_user(text: str) -> MimiUri:
    """Read `name@domain` or a user's URI. Raise `InvalidUri`."""
    if "://" in text:
        return MimiUri.parse(text, Kind.USER)
    name, at, domain = text.partition("@")
    if not at:
        raise InvalidUri("expected a contact code (mimi-connect:…), name@domain, or mimi://domain/u/name")
    return MimiUri(domain, Kind.USER, name)
