"""A commit that waits for the hub's answer, over mls-rs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mimi_mmr.errors import EngineError
from mimi_mmr.mls.mls_rs.binding import engine_errors


@dataclass(slots=True, eq=False)
class MlsRsStagedCommit:
    """`StagedCommit` over mls-rs: a copy of the group, already in the next epoch and not stored."""

    copy: Any = field(repr=False)
    commit: bytes = field(repr=False)
    welcome: bytes | None = field(repr=False)
    ratchet_tree: bytes = field(repr=False)
    epoch: int
    added: tuple[int, ...]
    settle: Callable[[Any | None], None] = field(repr=False)
    accepted: bool | None = None

    def export_secret(self, label: bytes, context: bytes, length: int) -> bytes:
        """Export a secret of the epoch that begins with this commit."""
        with engine_errors():
            return bytes(self.copy.export_secret(label, context, length))

    def accept(self) -> None:
        """Replace the group by the copy, and store it; a second call does nothing."""
        self._decide(accepted=True)

    def reject(self) -> None:
        """Discard the copy; a second call does nothing."""
        self._decide(accepted=False)

    def _decide(self, *, accepted: bool) -> None:
        if self.accepted is accepted:
            return
        if self.accepted is not None:
            raise EngineError(f"the commit has been {'accepted' if self.accepted else 'rejected'} already")
        self.settle(self.copy if accepted else None)
        self.accepted = accepted
