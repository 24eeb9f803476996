"""Requests that have to reach the user's own provider: stored first, and tried until they succeed."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable

from mimi_mmr.client.context import Context
from mimi_mmr.errors import MmrError, PeerError, PrivatePathFailed


class Errand(enum.IntEnum):
    """The kinds of errands."""

    DELETE_QUEUE = 1
    CLOSE_SHELF = 2


class Errands:
    """The open errands, stored in the vault. Each kind has one handler, which gets the errand's key and row."""

    def __init__(self, context: Context) -> None:
        """Read what the vault has."""
        self._context = context
        self._rows = context.vault.table("errands")
        self.handlers: dict[Errand, Callable[[bytes, bytes], Awaitable[None]]] = {}

    def owe(self, kind: Errand, key: bytes, row: bytes = b"") -> None:
        """Store an errand. Call this inside the transaction that makes it necessary."""
        self._rows[bytes([kind]) + key] = row

    async def run(self) -> None:
        """Run all open errands. One that can't be done now stays open; one that the provider refuses is dropped."""
        for errand, row in list(self._rows.items()):
            try:
                await self.handlers[Errand(errand[0])](errand[1:], row)
            except (PrivatePathFailed, PeerError) as error:
                self._context.refusals.add("an errand, to be tried again", error)
                continue
            except MmrError as error:
                self._context.refusals.add("an errand", error)
            self._rows.pop(errand, None)
