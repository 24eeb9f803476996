"""The interface through which KeyPackages and rooms get KeyPackages of the user's other devices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mimi_mmr.client.people.contacts import Contact
from mimi_mmr.crypto.signing import SigningKey
from mimi_mmr.protocol.key_packages import OpenKeyPackage
from mimi_mmr.uris import MimiUri


class OtherDevices(Protocol):
    """KeyPackages of the user's other devices: all devices of a user are in a room under one user pseudonym.

    Only devices that answer are included; the others are added to the rooms later.
    """

    async def for_sets(
        self, set_keys: Sequence[SigningKey], contact: Contact, serials: Sequence[bytes], *, last_resort: bool
    ) -> list[list[OpenKeyPackage]]:
        """Return the other devices' KeyPackages for a contact's shelf: a list for each set key."""

    async def for_room(self, room: MimiUri, set_key: SigningKey) -> list[OpenKeyPackage]:
        """Return the other devices' KeyPackages for a room that this device enters under a new pseudonym."""
