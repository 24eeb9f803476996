"""The adding of contacts to rooms: claim their KeyPackages, and add them in as few commits as possible."""

from __future__ import annotations

from collections.abc import Sequence

from mimi_mmr.client.context import Context
from mimi_mmr.client.key_packages.claims import Claims
from mimi_mmr.client.people.contacts import Contact
from mimi_mmr.client.rooms.commits import Commits
from mimi_mmr.client.rooms.membership import Membership
from mimi_mmr.client.rooms.roster import Roster
from mimi_mmr.client.transport.private_path import gather
from mimi_mmr.member.intent import CommitIntent
from mimi_mmr.protocol.key_packages import client_of

BATCH = 100


class Adding:
    """The adding of contacts."""

    def __init__(self, context: Context, claims: Claims, commits: Commits, roster: Roster) -> None:
        self._context = context
        self._claims = claims
        self._commits = commits
        self._roster = roster

    async def add(self, membership: Membership, contacts: Sequence[Contact]) -> None:
        """Add contacts who are not in the room yet, in as few commits as possible, and heal.

        Raises the errors of the claim or the hub. May be called again when an answer was lost: a contact who was
        added already is not added twice.
        """
        await self._commits.catch_up(membership)
        present = self._roster.users_in(membership)
        missing = [contact for contact in contacts if contact.user not in present]
        for start in range(0, len(missing), BATCH):
            await self._add(membership, missing[start : start + BATCH])
        await self._commits.commit(membership)  # heals: an Add-only commit refreshes no keys

    async def _add(self, membership: Membership, contacts: Sequence[Contact]) -> None:
        hub = membership.uri.domain
        claimed = await gather([self._claims.claim(contact, hub) for contact in contacts])
        added = self._roster.added(membership)
        with self._context.vault.transaction():
            for contact, packages in zip(contacts, claimed, strict=True):
                for package in packages:
                    added[str(client_of(package)).encode()] = str(contact.user).encode()
        adds = tuple(package for packages in claimed for package in packages)
        await self._commits.commit(membership, CommitIntent(adds=adds))
