"""Changes of vault and memory together: all of a change in both, or nothing of it in either."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mimi_mmr.client.storage.vault import Vault
from mimi_mmr.errors import MmrError

Undo = Callable[[], None]


class Changes:
    """Transactions of the vault that, when they fail, put memory back to what the vault is.

    A part that holds in memory what the vault has registers here how it remembers itself: a function that gives,
    before a change, what puts the part back to that moment.
    """

    def __init__(self, vault: Vault) -> None:
        """Start with no part; the wiring fills `remember`, in the order in which the parts are put back."""
        self._vault = vault
        self.remember: list[Callable[[], Undo]] = []

    @contextmanager
    def transaction(self, *also: Undo) -> Iterator[None]:
        """Write all that is written inside, or nothing; `also` is put back after the registered parts.

        Were memory ahead of the vault, what was read would be acknowledged at the next look, and lost with the
        process.
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
            self._vault.close()  # rather than go on from what nobody knows
