"""What each operation cost: time, requests, bytes, as the people's clients counted them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from mimi_mmr.lab.demo.people import Person


@dataclass(slots=True)
class Cost:
    """One line of the table; `times` operations together."""

    operation: str
    times: int
    seconds: float = 0.0
    requests: int = 0
    sent: int = 0
    received: int = 0


@dataclass(slots=True)
class Costs:
    """All lines, in the order of the story."""

    people: list[Person] = field(default_factory=list)
    lines: list[Cost] = field(default_factory=list)

    @contextmanager
    def of(self, operation: str, times: int = 1) -> Iterator[None]:
        """Measure the work of all clients while the context is open."""
        before, start = self._sum(self.people), time.perf_counter()
        yield
        after, seconds = self._sum(self.people), time.perf_counter() - start
        requests, sent, received = (late - early for late, early in zip(after, before, strict=True))
        self.lines.append(Cost(operation, times, seconds, requests, sent, received))

    def _sum(self, people: Sequence[Person]) -> tuple[int, int, int]:
        traffic = [person.client.path.traffic for person in people]
        return (
            sum(entry.requests for entry in traffic),
            sum(entry.sent for entry in traffic),
            sum(entry.received for entry in traffic),
        )
