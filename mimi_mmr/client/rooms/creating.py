"""The creation of rooms on the user's own provider."""

from __future__ import annotations

import secrets
from dataclasses import replace

from mimi_mmr.client.context import Context
from mimi_mmr.client.key_packages.maker import KeyPackageMaker
from mimi_mmr.client.rooms.commits import Commits
from mimi_mmr.client.rooms.membership import Membership, Place
from mimi_mmr.client.rooms.memberships import Memberships
from mimi_mmr.client.storage.history import History
from mimi_mmr.client.storage.sent import SentMessages
from mimi_mmr.client.transport.read_queues import ReadQueues
from mimi_mmr.member.intent import CommitIntent
from mimi_mmr.member.room import Room
from mimi_mmr.protocol.endpoints import CREATE_ROOM
from mimi_mmr.protocol.room.policy import Identities
from mimi_mmr.uris import Kind, random_uri
from treewrap import DEFAULT_ARITY


class Creating:
    """The part that creates rooms."""

    def __init__(
        self,
        context: Context,
        memberships: Memberships,
        read_queues: ReadQueues,
        maker: KeyPackageMaker,
        commits: Commits,
    ) -> None:
        self._context = context
        self._memberships = memberships
        self._read_queues = read_queues
        self._maker = maker
        self._commits = commits

    async def create(
        self, identities: Identities = Identities.EVERYONE, arity: int = DEFAULT_ARITY, *, name: str = ""
    ) -> Membership:
        """Make a minimal metadata room on the user's own provider, with this user as admin."""
        leaf = await self._maker.leaf()
        uri = random_uri(self._context.user.domain, Kind.ROOM, secrets.token_bytes(16))
        room, request = Room.create(uri, leaf, identities, arity)
        await self._context.path.ask(CREATE_ROOM, uri.domain, request)
        vault, queue = self._context.vault, self._read_queues.get(leaf.queue)
        place = Place(room, leaf, queue, History(vault, uri), SentMessages(vault, uri))
        membership = self._memberships.enter(place)
        if name:
            await self._commits.commit(
                membership, CommitIntent(state=lambda state: replace(state, name=name))
            )
        self._memberships.announce(membership)
        return membership
