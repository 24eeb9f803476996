"""Which room, contact or request a person means by what they typed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from mimi_mmr.app.agent.errors import Ambiguous, NotFound
from mimi_mmr.app.agent.views import address, contact_in, short_id
from mimi_mmr.client import Client, Joined
from mimi_mmr.client.people.contacts import Contact
from mimi_mmr.errors import InvalidUri
from mimi_mmr.uris import Kind, MimiUri

LEAST_PREFIX = 4
_T = TypeVar("_T")


def find_room(client: Client, text: str) -> Joined:
    """By URI; by its name, or the contact it connects with; by the beginning of its id. `NotFound`, `Ambiguous`."""
    rooms = people_rooms(client)
    exact = [joined for joined in rooms if str(joined.uri) == text]
    named = [joined for joined in rooms if text and text in room_names(client, joined)]
    long_enough = len(text) >= LEAST_PREFIX
    begun = [joined for joined in rooms if long_enough and joined.uri.name.startswith(text.lower())]
    found = exact or named or begun
    if not found:
        raise NotFound("no room of this name or id: mimi-mmr room list shows those there are")
    if len(found) > 1:
        which = (f"{short_id(joined.uri)} ({label(client, joined)})" for joined in found)
        raise Ambiguous(f"{len(found)} rooms are meant by this: {', '.join(which)}")
    return found[0]


def people_rooms(client: Client) -> list[Joined]:
    """Rooms that people talk in, which the room of one's own devices is not."""
    return [joined for joined in client.rooms.values() if joined is not client.devices_room]


def room_names(client: Client, joined: Joined) -> set[str]:
    """What a room may be called by."""
    contact = contact_in(client, joined)
    names = {joined.room.members_only.state.name} if joined.room.members_only.state.name else set()
    return names | user_names(contact.user) if contact else names


def label(client: Client, joined: Joined) -> str:
    """What to call a room when it is told to a person."""
    contact = contact_in(client, joined)
    return joined.room.members_only.state.name or (address(contact.user) if contact else short_id(joined.uri))


def user_names(user: MimiUri) -> set[str]:
    """What a person may be called by: `bob`, `bob@b.example`, the URI."""
    return {user.name, address(user), str(user)}


def find_user(users: Iterable[MimiUri], text: str, what: str) -> MimiUri:
    """One of these users; raises `NotFound` or `Ambiguous`."""
    named = [user for user in users if text in user_names(user)]
    exact = [user for user in named if text in (address(user), str(user))]
    found = exact or named
    if not found:
        raise NotFound(f"no {what} of this name: mimi-mmr contact list shows those there are")
    if len(found) > 1:
        raise Ambiguous(f"{len(found)} are meant by this: {', '.join(address(user) for user in found)}")
    return found[0]


def find_in(people: Mapping[MimiUri, _T], text: str, what: str) -> _T:
    """The entry of the user who is meant."""
    return people[find_user(people, text, what)]


def find_contact(client: Client, text: str) -> Contact:
    """A contact."""
    return find_in(client.contacts, text, "contact")


def parse_user(text: str) -> MimiUri:
    """`name@domain` or a user's URI; raises `InvalidUri`."""
    if "://" in text:
        return MimiUri.parse(text, Kind.USER)
    name, at, domain = text.partition("@")
    if not at:
        raise InvalidUri("expected a contact code (mimi-connect:…), name@domain, or mimi://domain/u/name")
    return MimiUri(domain, Kind.USER, name)
