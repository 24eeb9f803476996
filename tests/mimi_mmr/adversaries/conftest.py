"""The room that most adversaries are in."""

from __future__ import annotations

import pytest

from tests.mimi_mmr.bench import RoomBench


@pytest.fixture
def bench() -> RoomBench:
    """Alice, the admin, with Bob and Cathy."""
    made = RoomBench()
    made.commit("alice", add=["bob", "cathy"])
    made.commit("alice")
    return made
