"""KeyPackages, as an application sees them: what lets contacts add this user to rooms."""

from __future__ import annotations

from mimi_mmr.client.key_packages.claims import Claims
from mimi_mmr.client.key_packages.maker import KeyPackageMaker
from mimi_mmr.client.key_packages.outstanding import OutstandingKeyPackages
from mimi_mmr.client.key_packages.shelves import Shelves
from mimi_mmr.client.people.contacts import Contact
from mimi_mmr.protocol.key_packages import OpenKeyPackage


class KeyPackages:
    """KeyPackages, put on shelves for contacts and taken from theirs; `outstanding` are those that are out."""

    def __init__(
        self, maker: KeyPackageMaker, outstanding: OutstandingKeyPackages, shelves: Shelves, claims: Claims
    ) -> None:
        """Hold the parts; others than `outstanding` are internal."""
        self.maker = maker
        self.outstanding = outstanding
        self.shelves = shelves
        self.claims = claims

    async def prepare(self, count: int) -> None:
        """Have at least `count` made ahead: a KeyPackage is made when everybody makes theirs, which takes time."""
        await self.maker.prepare(count)

    async def publish(self, contact: Contact, count: int = 1, *, last_resort: bool = False) -> None:
        """Put `count` sets on the shelf of one contact, through another provider's relay.

        A last resort is given away when there is nothing else, and may be given away more than once.
        """
        await self.shelves.publish(contact, count, last_resort=last_resort)

    async def tend(self, contact: Contact) -> None:
        """Bring a contact's shelf up to what it should hold."""
        await self.shelves.tend(contact)

    async def claim(self, contact: Contact, hub: str) -> list[OpenKeyPackage]:
        """Take a set from the shelf that a contact keeps for this user, through the hub of the room it is for."""
        return await self.claims.claim(contact, hub)
