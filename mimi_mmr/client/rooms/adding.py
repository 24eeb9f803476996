"""The adding of contacts to rooms: claim their KeyPackages, and add them in as few commits as possible."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from mimi_mmr.client.context import Context
from mimi_mmr.client.key_packages.claims import Claims
from mimi_mmr.client.people.contacts import Contact
from mimi_mmr.client.rooms.commits import Commits
from mimi_mmr.client.rooms.membership import Membership
from mimi_mmr.client.rooms.roster import Roster
from mimi_mmr.client.transport.private_path import gather
from mimi_mmr.client.waiting import wait_until
from mimi_mmr.errors import NotYet
from mimi_mmr.member.intent import CommitIntent
from mimi_mmr.protocol.key_packages import LIFETIME_SKEW, OpenKeyPackage, check_begun, client_of, leaf_of
from mimi_mmr.uris import MimiUri

BATCH = 100

Waiting: TypeAlias = Callable[[NotYet], None]


class Adding:
    """The adding of contacts."""

    def __init__(self, context: Context, claims: Claims, commits: Commits, roster: Roster) -> None:
        self._context = context
        self._claims = claims
        self._commits = commits
        self._roster = roster
        self._claimed: dict[
            tuple[MimiUri, MimiUri], list[OpenKeyPackage]
        ] = {}  # by room and user: not valid yet

    async def add(
        self, membership: Membership, contacts: Sequence[Contact], waiting: Waiting | None = None
    ) -> list[MimiUri]:
        """Add contacts who are not in the room yet, in as few commits as possible, and heal; return whom it added.

        If their KeyPackages are not valid yet by this device's clock, `waiting` is called, and this waits until
        they are, for at most an hour. Without `waiting` it raises `NotYet`; a later call uses the same KeyPackages.

        Raises the errors of the claim or the hub. May be called again when an answer was lost: a contact who was
        added already is not added twice.
        """
        await self._commits.catch_up(membership)
        present = self._roster.users_in(membership)
        missing = [contact for contact in contacts if contact.user not in present]
        for start in range(0, len(missing), BATCH):
            await self._add(membership, missing[start : start + BATCH], waiting)
        await self._commits.commit(membership)  # heals: an Add-only commit refreshes no keys
        return [contact.user for contact in missing]

    def notify(self, error: NotYet) -> None:
        """Tell the user by a notice that an Add waits."""
        self._context.notify(f"somebody is added to a room later: {error}")

    async def _add(
        self, membership: Membership, contacts: Sequence[Contact], waiting: Waiting | None
    ) -> None:
        claimed = await gather([self._claim(membership.uri, contact) for contact in contacts])
        await self._until_valid([one for packages in claimed for one in packages], waiting)
        for contact in contacts:
            self._claimed.pop((membership.uri, contact.user), None)
        added = self._roster.added(membership)
        with self._context.vault.transaction():
            for contact, packages in zip(contacts, claimed, strict=True):
                for package in packages:
                    added[str(client_of(package)).encode()] = str(contact.user).encode()
        adds = tuple(package for packages in claimed for package in packages)
        await self._commits.commit(membership, CommitIntent(adds=adds))

    async def _claim(self, room: MimiUri, contact: Contact) -> list[OpenKeyPackage]:
        """Claim a contact's KeyPackages, or return those that were claimed before and were not valid yet."""
        now, key = self._context.clock(), (room, contact.user)
        packages = self._claimed.pop(key, None) or await self._claims.claim(contact, room.domain)
        self._claims.check(packages, contact.device)
        try:
            check_begun([leaf_of(package) for package in packages], now)
        except NotYet:
            self._claimed[key] = packages
        return packages

    async def _until_valid(self, packages: Sequence[OpenKeyPackage], waiting: Waiting | None) -> None:
        clock = self._context.clock
        try:
            check_begun([leaf_of(package) for package in packages], clock())
        except NotYet as error:
            if waiting is None:
                raise
            waiting(error)
            await wait_until(error.due, clock, LIFETIME_SKEW)
