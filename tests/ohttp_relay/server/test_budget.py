"""A bound on bytes over many requests: who finds none left waits its turn, and nobody waits for ever."""

from __future__ import annotations

import asyncio

import pytest

from ohttp_relay.errors import Overloaded
from ohttp_relay.server.budget import SMALL, ByteBudget

UNIT = SMALL + 1


async def hold(budget: ByteBudget, size: int, end: asyncio.Event, log: list[int]) -> None:
    async with budget.taken(size):
        log.append(size)
        await end.wait()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_requests_together_hold_no_more_than_the_budget() -> None:
    budget, log, ends = ByteBudget(3 * UNIT), [], [asyncio.Event() for _ in range(5)]
    tasks = [asyncio.create_task(hold(budget, 2 * UNIT + n, end, log)) for n, end in enumerate(ends)]
    for number, end in enumerate(ends):
        await settle()
        assert log == [2 * UNIT + n for n in range(number + 1)]  # one after the other, in their order
        assert budget.held == 2 * UNIT + number
        end.set()
    await asyncio.gather(*tasks)
    assert budget.held == 0


async def test_a_small_request_does_not_wait_for_large_ones() -> None:
    budget, end, log = ByteBudget(UNIT), asyncio.Event(), []
    large = asyncio.create_task(hold(budget, UNIT, end, log))
    await settle()
    async with budget.taken(SMALL):
        assert budget.held == UNIT
    end.set()
    await large


async def test_what_is_larger_than_the_budget_goes_through_alone() -> None:
    budget = ByteBudget(UNIT)
    async with budget.taken(100 * UNIT):
        assert budget.held == UNIT
    assert budget.held == 0


async def test_nobody_waits_for_ever_and_who_gave_up_takes_nothing() -> None:
    budget, end, log = ByteBudget(2 * UNIT, seconds=0.01), asyncio.Event(), []
    first = asyncio.create_task(hold(budget, UNIT, end, log))
    await settle()
    with pytest.raises(Overloaded):
        await hold(budget, 2 * UNIT, end, log)
    cancelled = asyncio.create_task(hold(budget, 2 * UNIT, end, log))
    behind = asyncio.create_task(hold(budget, UNIT, end, log))
    await settle()
    cancelled.cancel()
    await settle()
    assert log == [UNIT, UNIT]  # the one behind has its turn
    end.set()
    await asyncio.gather(first, behind)
    assert budget.held == 0


async def test_who_only_announces_a_request_holds_nothing() -> None:
    budget = ByteBudget(2 * UNIT)
    async with budget.growing() as silent, budget.growing() as slow, budget.growing() as whole:
        await silent.grow(0)
        await slow.grow(SMALL)
        assert budget.held == 0
        async with asyncio.timeout(1):
            await whole.grow(UNIT)
            await whole.grow(UNIT)
        assert budget.held == 2 * UNIT
    assert budget.held == 0


async def test_requests_that_grow_do_not_all_wait_for_each_other() -> None:
    """The oldest goes on, and then the next one; all together hold the budget, and that one its own size."""
    budget, most = ByteBudget(3 * UNIT), 0

    async def receive() -> None:
        nonlocal most
        async with budget.growing() as share:
            for _ in range(4):
                await share.grow(UNIT)
                most = max(most, budget.held)
                await asyncio.sleep(0)

    async with asyncio.timeout(1):
        await asyncio.gather(*(receive() for _ in range(5)))
    assert 3 * UNIT <= most <= 7 * UNIT
    assert budget.held == 0


async def test_a_request_that_waits_to_grow_gives_up_in_time_and_keeps_nothing() -> None:
    budget = ByteBudget(UNIT, seconds=0.01)
    async with budget.growing() as first:
        await first.grow(UNIT)
        for _ in range(2):
            with pytest.raises(Overloaded):
                async with budget.growing() as second:
                    await second.grow(UNIT)
        assert budget.held == UNIT
    async with budget.growing() as alone:
        await alone.grow(100 * UNIT)  # larger than the budget: alone
    assert budget.held == 0
