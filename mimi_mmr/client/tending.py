"""The client's regular work: a list of named steps, done in order from time to time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import TypeAlias

from mimi_mmr.client.account import Account
from mimi_mmr.client.context import Context
from mimi_mmr.client.devices.devices import Devices
from mimi_mmr.client.key_packages.key_packages import KeyPackages
from mimi_mmr.client.people.people import People
from mimi_mmr.client.rooms.membership import Membership
from mimi_mmr.client.rooms.rooms import Rooms
from mimi_mmr.client.transport.errands import Errands

Work: TypeAlias = Callable[[], Awaitable[object]]


class Tending:
    """The list of regular work. A failed step is noted, does not stop the others, and is tried again."""

    def __init__(
        self,
        context: Context,
        account: Account,
        people: People,
        key_packages: KeyPackages,
        rooms: Rooms,
        devices: Devices,
        errands: Errands,
    ) -> None:
        self._context = context
        self._account = account
        self._people = people
        self._key_packages = key_packages
        self._rooms = rooms
        self._devices = devices
        self._errands = errands
        self._lock = asyncio.Lock()

    async def tend(self) -> None:
        """Go through the list."""
        async with self._lock:
            for name, work in self._steps():
                await self._context.attempt(f"{name}, to be tried again", work)

    def _steps(self) -> Iterator[tuple[str, Work]]:
        """Return the steps in order. Each list of contacts or rooms is read only when its step is reached."""
        people, devices, rooms = self._people, self._devices, self._rooms
        # First, since another device waits for these, and may go offline soon.
        yield "KeyPackages that other devices want", devices.package_requests.make_wanted
        for invitation in devices.invitations:
            yield "a further device", partial(devices.invitations.tend, invitation)
        # Before the steps below, so that they spend no work on what has expired.
        yield "KeyPackages that have expired", _sync(self._key_packages.outstanding.forget_expired)
        yield "errands", self._errands.run
        yield "connections", people.reconnecting.tend
        yield "rooms with the blocked", devices.sharing.forget_abandoned_rooms
        yield "the device's certificate", self._account.renew_certificate
        yield "requests that were dealt with", people.incoming.forget_expired
        yield "connection packages", people.connection_packages.tend
        # After the connections, since the shelf of a new contact is empty.
        for contact in list(people.contacts.values()):
            if not contact.blocked and contact.room is not None:
                yield f"the shelf of {contact.user}", partial(self._key_packages.tend, contact)
        yield "contacts to be added again", rooms.adding_again.add_again
        yield "rooms that a last resort was used for", rooms.lost_keys.ask_for_strays
        for membership in list(rooms.values()):
            if membership.usable:
                yield from self._in_room(membership)
        # After the work of the rooms themselves, since both commit in rooms.
        yield "devices that were removed", devices.removal.go_on
        yield "devices that are missing", devices.missing.tend
        yield "pseudonyms", rooms.pseudonyms.change_due
        # last: every step above may have news for the other devices
        yield "news for the other devices", devices.sharing.share

    def _in_room(self, membership: Membership) -> Iterator[tuple[str, Work]]:
        yield "departures", partial(self._rooms.leaving.answer, membership)
        yield "requests to join by a link", partial(self._rooms.links.answer, membership)


def _sync(work: Callable[[], None]) -> Work:
    async def done() -> None:
        work()

    return done
