"""What rooms need to know of the user's other devices: all of them belong in a room under one user pseudonym.

A user that comes into a room twice, under two pseudonyms, keeps one of them: see `rank`.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Protocol

from mimi_mmr.client.rooms.membership import Membership
from mimi_mmr.crypto.signing import SigningKey
from mimi_mmr.member.room import Room
from mimi_mmr.protocol.key_packages import OpenKeyPackage
from mimi_mmr.uris import MimiUri


class OwnLeaves(Protocol):
    """The leaves of this user's devices in rooms."""

    def leaves(self, membership: Membership) -> Set[int]:
        """Return the leaves of this user's devices in a room, under every pseudonym."""


class DevicesAtJoining(Protocol):
    """The user's other devices when a device asks to join a room by a link."""

    async def catch_up(self) -> None:
        """Read all that the other devices have said, and answer what they ask."""

    async def for_joining(self, room: MimiUri, set_key: SigningKey) -> list[OpenKeyPackage] | None:
        """Return the other devices' KeyPackages for joining a room; None if one of the devices is there already.

        The other devices are told the pseudonym in either case, so that they recognise the request to join.
        """

    def joins_as(self, room: MimiUri, pseudonym: MimiUri) -> bool:
        """Say whether another device of this user has told that it joins a room under this user pseudonym."""


def rank(room: Room, pseudonym: MimiUri) -> tuple[int, int]:
    """Return a number for each of a user's pseudonyms in a room; the user keeps the one with the highest.

    It is the one with the higher role and, of the same role, the one with the lowest leaf.
    """
    leaves = room.members.by_user.get(pseudonym)
    return (room.policy.policy.role(pseudonym), -leaves[0]) if leaves else (-1, 0)


def own_rank(room: Room) -> tuple[int, int]:
    """Return the `rank` of this client's own pseudonym in a room."""
    user = room.members.user(room.own_leaf)
    return rank(room, user) if user is not None else (-1, 0)
