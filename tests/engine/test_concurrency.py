"""Several things at once, of which none is left behind."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from vision_model_repo.engine.concurrency import AT_ONCE, gather_or_cancel


async def double(number: int) -> int:
    await asyncio.sleep(0.001 * (10 - number % 10))
    return 2 * number


@pytest.mark.parametrize("count", [0, 1, 30])
async def test_results_come_in_order(count: int) -> None:
    assert await gather_or_cancel(partial(double, number) for number in range(count)) == list(range(0, 2 * count, 2))


async def test_only_so_many_run_at_once() -> None:
    running, most = 0, 0

    async def work() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1

    await gather_or_cancel(work for _ in range(4 * AT_ONCE))
    assert most == AT_ONCE


async def sleep_long(ended: list[bool]) -> None:
    """Notes that it has ended, however."""
    try:
        await asyncio.sleep(30)
    finally:
        ended.append(True)


async def test_one_failure_ends_the_others() -> None:
    ended: list[bool] = []
    wait = partial(sleep_long, ended)

    async def fail() -> None:
        await asyncio.sleep(0.01)
        raise KeyError("first")

    with pytest.raises(KeyError, match="first"):
        await gather_or_cancel([wait, fail, wait])
    assert ended == [True, True]


@pytest.mark.parametrize("count", [1, 3])
async def test_who_is_cancelled_takes_all_along(count: int) -> None:
    ended: list[bool] = []
    wait = partial(sleep_long, ended)

    task = asyncio.ensure_future(gather_or_cancel([wait] * count))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == [True] * count
