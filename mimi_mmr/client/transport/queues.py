"""Queues at the user's own provider, made and read through another provider's relay."""

from __future__ import annotations

from mimi_mmr.client.transport.private_path import PrivatePath
from mimi_mmr.crypto.sealing import SealedBox
from mimi_mmr.crypto.secret import AccessToken
from mimi_mmr.protocol.deposits import ReplyDeposit
from mimi_mmr.protocol.endpoints import COLLECT, CREATE_QUEUE, DELETE_QUEUE, REPLY
from mimi_mmr.protocol.queues import CollectRequest, QueueOrder, QueuePage, QueueRemoval

PAGE = 64


class Queues:
    """The requests that make, delete, read and fill a queue."""

    def __init__(self, path: PrivatePath) -> None:
        """Use the provider of this path's user."""
        self._path = path

    async def create(self, token: AccessToken, *, accepts_deposits: bool) -> None:
        """Make the queue that this token reads."""
        await self._path.ask(CREATE_QUEUE, self._path.domain, QueueOrder(token.reveal(), accepts_deposits))

    async def delete(self, token: AccessToken) -> None:
        """Delete a queue and its messages."""
        await self._path.ask(DELETE_QUEUE, self._path.domain, QueueRemoval(token.reveal()))

    async def collect(self, token: AccessToken, acknowledged: int, wait: float) -> QueuePage:
        """Acknowledge up to a sequence number, and return the next page; wait up to `wait` seconds for one."""
        request = CollectRequest(token.reveal(), acknowledged, PAGE, int(wait * 1000))
        return await self._path.ask(COLLECT, self._path.domain, request)

    async def deposit(self, domain: str, queue: bytes, box: SealedBox) -> None:
        """Put a message into a queue that accepts deposits, at any provider."""
        await self._path.ask(REPLY, domain, ReplyDeposit(queue, box))
