"""KeyPackages, with which contacts add this user to rooms: the part that an application sees."""

from __future__ import annotations

from mimi_mmr.client.key_packages.claims import Claims
from mimi_mmr.client.key_packages.maker import KeyPackageMaker
from mimi_mmr.client.key_packages.outstanding import OutstandingKeyPackages
from mimi_mmr.client.key_packages.shelves import Shelves
from mimi_mmr.client.people.contacts import Contact
from mimi_mmr.protocol.key_packages import OpenKeyPackage


class KeyPackages:
    """KeyPackages for contacts and of contacts. `outstanding` are those that somebody else has or can fetch."""

    def __init__(
        self, maker: KeyPackageMaker, outstanding: OutstandingKeyPackages, shelves: Shelves, claims: Claims
    ) -> None:
        """Hold the parts; all but `outstanding` are internal."""
        self.maker = maker
        self.outstanding = outstanding
        self.shelves = shelves
        self.claims = claims

    async def prepare(self, count: int) -> None:
        """Have at least `count` made ahead. This waits for the next slot, in which all clients make theirs."""
        await self.maker.prepare(count)

    async def publish(self, contact: Contact, count: int = 1, *, last_resort: bool = False) -> None:
        """Put `count` sets on the shelf of one contact, through another provider's relay.

        The provider gives out a last resort when there is no other set, and may give it out more than once.
        """
        await self.shelves.publish(contact, count, last_resort=last_resort)

    async def tend(self, contact: Contact) -> None:
        """Fill a contact's shelf up to the number of sets that it should hold."""
        await self.shelves.tend(contact)

    async def claim(self, contact: Contact, hub: str) -> list[OpenKeyPackage]:
        """Claim a set from a contact's shelf for this user, through the hub of the room that the set is for."""
        return await self.claims.claim(contact, hub)
