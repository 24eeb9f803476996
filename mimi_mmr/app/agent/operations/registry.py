"""How an operation gets its name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mimi_mmr.app.agent.wire import Given

if TYPE_CHECKING:
    from mimi_mmr.app.agent.agent import Agent
    from mimi_mmr.app.agent.server import Say

Run = Callable[["Agent", Given, "Say"], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Operation:
    """What to run; `only_waits` if breaking it off loses nothing, `changes` if it leaves the client work to do."""

    run: Run
    only_waits: bool = False
    changes: bool = False


OPERATIONS: dict[str, Operation] = {}


def operation(name: str, *, only_waits: bool = False, changes: bool = False) -> Callable[[Run], Run]:
    """Make a coroutine function the operation of this name."""

    def register(run: Run) -> Run:
        OPERATIONS[name] = Operation(run, only_waits, changes)
        return run

    return register
