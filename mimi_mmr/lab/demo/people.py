"""The people of the demonstration, and what they do together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from mimi_mmr.client import Client, Membership
from mimi_mmr.client.people.contacts import Contact
from mimi_mmr.errors import RoomError
from mimi_mmr.lab.demo.world import World, loopback
from mimi_mmr.mls.engine import MlsEngine

_T = TypeVar("_T")

PATIENCE = 10.0
LOOKS = 12
SLOT_SECONDS = 1.0  # seconds; a deployment has a minute, which is too long to wait here


@dataclass(slots=True)
class Person:
    """A person of the story, with a name and a client."""

    name: str
    client: Client
    address: str

    @property
    def provider(self) -> str:
        """Their provider's domain."""
        return self.client.user.domain


def person(
    world: World,
    name: str,
    user: str,
    device: str,
    domain: str,
    network: int,
    number: int,
    engine: MlsEngine | None = None,
) -> Person:
    """Make a person whose client connects from a loopback address of its own."""
    address = loopback(network, number)
    client = Client(
        user,
        device,
        domain,
        world.providers[domain].url,
        world.trust(),
        ssl_context=world.tls(),
        source_address=address,
        engine=engine,
        key_package_slot=SLOT_SECONDS,
    )
    return Person(name, client, address or "")


async def connect(asking: Person, asked: Person) -> tuple[Contact, Contact]:
    """Connect two people by contact code; gives each one's contact for the other."""
    outgoing = await asking.client.people.request_connection(asked.client.contact_code)
    incoming = next(
        request
        for request in await asked.client.people.connection_requests()
        if request.device.user == asking.client.user
    )
    theirs = await asked.client.people.accept(incoming)
    ours = await asking.client.people.complete_connection(outgoing)
    if ours is None:
        raise RoomError("no response to the connection request")
    await until(lambda: theirs.room is not None, lambda: asked.client.rooms.check_invitations(PATIENCE))
    await until_keyed(asking.client, ours)
    await until_keyed(asked.client, theirs)
    return ours, theirs


async def until_keyed(client: Client, contact: Contact) -> None:
    """Wait until the contact's connection key has arrived."""
    if contact.room is None:
        raise RoomError("there is no connection room yet")
    membership = client.rooms[contact.room]
    await until(lambda: contact.theirs is not None, lambda: client.rooms.sync(membership, PATIENCE))


async def invited(person: Person) -> Membership:
    """Wait for a room that another person has added this person to, and return it."""
    found: list[Membership] = []

    async def look() -> None:
        found.extend(await person.client.rooms.check_invitations(PATIENCE))

    await until(lambda: bool(found), look)
    return found[0]


async def caught_up(person: Person, membership: Membership, epoch: int) -> None:
    """Until this member has followed the room into `epoch`, or was removed on the way."""
    await until(
        lambda: membership.room.removed or membership.room.epoch >= epoch,
        lambda: person.client.rooms.sync(membership, PATIENCE),
    )


async def until(done: Callable[[], bool], look: Callable[[], Awaitable[object]]) -> None:
    """Repeat a look, which itself waits for something to arrive, until it succeeds."""
    for _ in range(LOOKS):
        if done():
            return
        await look()
    if not done():
        raise RoomError("something that should have come did not")


async def together(act: Callable[[_T], Awaitable[object]], on: Iterable[_T], at_once: int = 12) -> None:
    """Run the same work for all, a few at a time."""
    places = asyncio.Semaphore(at_once)

    async def one(item: _T) -> None:
        async with places:
            await act(item)

    async with asyncio.TaskGroup() as group:
        for item in on:
            group.create_task(one(item))
