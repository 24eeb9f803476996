"""Whoever waits for something to happen looks again each time, and misses nothing that happens while they look."""

from __future__ import annotations

import asyncio

import pytest

from mimi_mmr.app.agent.wakeup import Wakeup


async def test_until_looks_again_after_each_wake_up() -> None:
    changed, looks = Wakeup(), 0

    async def look() -> str | None:
        nonlocal looks
        looks += 1
        return "found" if looks == 3 else None

    waiting = asyncio.create_task(changed.until(look))
    for expected in (1, 2):
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert looks == expected
        changed.wake()
    async with asyncio.timeout(30):
        assert await waiting == "found"


async def test_what_happens_during_a_look_is_not_missed() -> None:
    changed, looks = Wakeup(), 0

    async def look() -> bool:
        nonlocal looks
        looks += 1
        if looks == 1:
            changed.wake()
        return looks == 2

    async with asyncio.timeout(30):
        assert await changed.until(look)


async def test_after_its_time_until_gives_up_and_one_look_is_always_made() -> None:
    async def never() -> None:
        return None

    async def at_once() -> int:
        return 5

    with pytest.raises(TimeoutError):
        await Wakeup().until(never, 0.01)
    assert await Wakeup().until(at_once, 0.0) == 5


async def test_all_who_wait_are_woken() -> None:
    changed = Wakeup()
    waiting = [asyncio.create_task(changed.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    changed.wake()
    async with asyncio.timeout(30):
        await asyncio.gather(*waiting)
        await changed.wait(after=0)  # which was before the wake-up


async def test_a_task_that_is_woken_and_cancelled_at_once_ends() -> None:
    wakeup = Wakeup()

    async def work() -> None:
        while True:
            await wakeup.wait(10)

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    wakeup.wake()
    await asyncio.sleep(0)
    task.cancel()
    done, _ = await asyncio.wait({task}, timeout=1)
    assert done
