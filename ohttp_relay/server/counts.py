"""Counters that all workers of a service add to and any of them reads, in memory that a fork shares.

Each worker adds to a row of its own.  So there is no lock, and counting costs one addition.
"""

from __future__ import annotations

import mmap
from collections.abc import Hashable, Iterable
from typing import Final

_SIZE: Final = 8  # bytes of a number


class Counts:
    """A row of numbers for each of `workers` processes; the last of `names` counts for every name not listed."""

    def __init__(self, names: Iterable[Hashable], workers: int) -> None:
        self._places = {name: at for at, name in enumerate(names)}
        width = len(self._places)
        table = memoryview(mmap.mmap(-1, workers * width * _SIZE)).cast("d")
        self._rows = [table[at : at + width] for at in range(0, workers * width, width)]
        self._row = self._rows[0]

    def enter(self, worker: int, gauges: Iterable[Hashable]) -> None:
        """Add to the row of `worker` from now on; set its `gauges`, left by a worker that died, to 0."""
        self._row = self._rows[worker]
        for name in gauges:
            self._row[self._places[name]] = 0.0

    def add(self, name: Hashable, amount: float = 1.0) -> None:
        """Add to a number."""
        self._row[self._places.get(name, -1)] += amount

    def total(self, name: Hashable) -> float:
        """Return a number over all workers."""
        place = self._places[name]
        return sum(row[place] for row in self._rows)
