"""What KeyPackages and rooms need of the user's other devices, whatever supplies it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mimi_mmr.client.people.contacts import Contact
from mimi_mmr.crypto.signing import SigningKey
from mimi_mmr.protocol.key_packages import OpenKeyPackage
from mimi_mmr.uris import MimiUri


class OtherDevices(Protocol):
    """KeyPackages of the user's other devices: all devices of a user are in a room under one user pseudonym.

    Of devices that answer; those that don't are added to the rooms later.
    """

    async def for_sets(
        self, set_keys: Sequence[SigningKey], contact: Contact, serials: Sequence[bytes], *, last_resort: bool
    ) -> list[list[OpenKeyPackage]]:
        """Return what the others add to sets for a contact's shelf: for each set key, their KeyPackages."""

    async def for_room(self, room: MimiUri, set_key: SigningKey) -> list[OpenKeyPackage]:
        """Return what the others add where this device comes into a room under a new pseudonym."""
