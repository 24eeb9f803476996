"""Transactions over vault and memory: a change happens completely in both, or in neither."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mimi_mmr.client.storage.vault import Vault
from mimi_mmr.errors import MmrError

Undo = Callable[[], None]


class Changes:
    """Transactions of the vault that restore memory to the vault's state when they fail.

    A part that holds vault data in memory registers a function here. Called before a change, it returns a function
    that restores the part to that moment.
    """

    def __init__(self, vault: Vault) -> None:
        """Start without parts; the wiring fills `remember`, in the order in which the parts are restored."""
        self._vault = vault
        self.remember: list[Callable[[], Undo]] = []

    @contextmanager
    def transaction(self, *also: Undo) -> Iterator[None]:
        """Write all changes made inside, or none; on failure `also` is restored after the registered parts.

        If memory were ahead of the vault, the next request would acknowledge messages that the vault does not have,
        and they would be lost with the process.
        """
        undo = [remember() for remember in self.remember]
        try:
            with self._vault.transaction():
                yield
        except BaseException:
            self._put_back([*undo, *also])
            raise

    def _put_back(self, undo: list[Undo]) -> None:
        try:
            for put_back in undo:
                put_back()
        except (MmrError, KeyError):
            self._vault.close()  # rather than go on from an unknown state
