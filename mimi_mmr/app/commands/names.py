"""The names of rooms and people, and the lookup of the one that a person typed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, TypeVar

from mimi_mmr.app.commands.errors import Ambiguous, NotFound
from mimi_mmr.app.commands.pasted import is_reference, plain_name, quoted, unwrapped
from mimi_mmr.errors import InvalidUri
from mimi_mmr.uris import Kind, MimiUri

if TYPE_CHECKING:
    from mimi_mmr.client import Client, Contact, Membership

SHORT = 8
LEAST_PREFIX = 4
_HEX = re.compile("[0-9a-f]+", re.IGNORECASE)
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


def own_name(membership: Membership) -> str:
    """Return the name that members gave the room; "" if it has none, or one that looks like an id or an address."""
    name = plain_name(membership.room.members_only.state.name)
    return "" if is_reference(name) else name


def label(client: Client, membership: Membership) -> str:
    """Return the best name of a room for a person to read."""
    contact = contact_in(client, membership)
    return membership.room.members_only.state.name or (
        address(contact.user) if contact else short_id(membership.uri)
    )


# --- which one is meant -------------------------------------------------------------------------------


def all_rooms(client: Client) -> list[Membership]:
    """Return the rooms that people talk in, also those that they have left: all but that of one's own devices."""
    return [membership for membership in client.rooms.values() if membership is not client.devices.room]


def people_rooms(client: Client) -> list[Membership]:
    """Return the rooms that people talk in and have not left."""
    return [membership for membership in all_rooms(client) if not membership.left]


def find_room(client: Client, text: str) -> Membership:
    """Return the room of this URI, name, contact, or beginning of an id. Raise `NotFound` or `Ambiguous`.

    A name never wins over an id, a URI or a person: a member of another room could choose it. A room that was left
    is found by its id and URI only.
    """
    reference, name = unwrapped(text), plain_name(text)
    begun = [membership for membership in all_rooms(client) if _begins(reference, membership.uri)]
    if len(begun) == 1 and is_reference(reference):
        return begun[0]
    found = begun + [
        membership
        for membership in people_rooms(client)
        if membership not in begun and _is_called(client, membership, reference, name)
    ]
    if not found:
        what = f"name or id {quoted(text)}"
        if is_reference(text):
            what = f"id, URI or contact {quoted(text)}, and names that look like these are not used"
        listed = "`mimi-mmr room list` shows all rooms"
        if len(reference) < LEAST_PREFIX and _HEX.fullmatch(reference):
            listed += f"; at least {LEAST_PREFIX} letters of an id are needed"
        raise NotFound(f"no room has the {what}").with_hint(listed)
    which = [f"{short_id(membership.uri)} ({label(client, membership)})" for membership in found]
    which += _contacts_elsewhere(client, found, reference)
    if len(which) > 1:
        raise Ambiguous(f"several are called like this: {', '.join(which)}; use the id of one")
    return found[0]


def _begins(reference: str, room: MimiUri) -> bool:
    begun = len(reference) >= LEAST_PREFIX and room.name.startswith(reference.lower())
    return begun or reference == str(room)


def _is_called(client: Client, membership: Membership, reference: str, name: str) -> bool:
    contact = contact_in(client, membership)
    if contact is not None and reference in user_names(contact.user):
        return True
    return bool(name) and own_name(membership) == name


def _contacts_elsewhere(client: Client, found: Iterable[Membership], reference: str) -> list[str]:
    """Return the contacts of this name whose direct room is none of those that were found."""
    rooms = {membership.uri for membership in found}
    return [
        address(contact.user)
        for contact in client.people.contacts.values()
        if contact.room not in rooms and reference in user_names(contact.user)
    ]


def find_user(users: Iterable[MimiUri], text: str, what: str) -> MimiUri:
    """Return the user who is meant. Raise `NotFound` or `Ambiguous`, whose text says `what` was looked for."""
    found = users_called(users, text)
    if not found:
        raise NotFound(f"no {what} is called {quoted(text)}").with_hint(
            "`mimi-mmr contact list` shows all contacts and requests"
        )
    if len(found) > 1:
        which = ", ".join(address(user) for user in found)
        raise Ambiguous(f"{len(found)} people have this name: {which}; use one of these whole names")
    return found[0]


def users_called(users: Iterable[MimiUri], text: str) -> list[MimiUri]:
    """Return the users of this name, address or URI."""
    wanted = unwrapped(text)
    return [user for user in users if wanted in user_names(user)]


def find_in(people: Mapping[MimiUri, _T], text: str, what: str) -> _T:
    """Return the entry of the user who is meant, as `find_user` does."""
    return people[find_user(people, text, what)]


def find_contact(client: Client, text: str) -> Contact:
    """Return the contact who is meant. Raise `NotFound`, also for one who was only asked, or `Ambiguous`."""
    people = client.people
    if not users_called(people.contacts, text) and (asked := users_called(people.outgoing, text)):
        who = ", ".join(address(user) for user in asked)
        raise NotFound(f"{who} was asked to connect and has not accepted yet: you are not connected")
    return find_in(people.contacts, text, "contact")


def parse_user(text: str) -> MimiUri:
    """Read `name@domain` or a user's URI. Raise `InvalidUri`."""
    text = unwrapped(text)
    if "://" in text:
        return MimiUri.parse(text, Kind.USER)
    name, at, domain = text.partition("@")
    if not at:
        raise InvalidUri("expected a contact code (mimi-connect:…), name@domain, or the URI of a person")
    return MimiUri(domain, Kind.USER, name)
