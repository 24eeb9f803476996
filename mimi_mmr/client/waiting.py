"""Waiting for a moment of the wall clock, which may be set meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

STEP_SECONDS = 5.0


async def wait_until(due: float, clock: Callable[[], float], seconds: float) -> bool:
    """Wait until `clock` has reached `due`, for at most `seconds`; return whether it has."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while (left := min(due - clock(), end - loop.time())) > 0:  # noqa: ASYNC110  # the clock may be set
        await asyncio.sleep(min(left, STEP_SECONDS))
    return clock() >= due
