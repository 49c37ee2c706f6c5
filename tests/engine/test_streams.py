"""Answers that grow: a moment on the device at a time, and no longer than somebody waits for them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from tests.engine import counting, weighty
from vision_model_repo.engine.manager import ModelManager
from vision_model_repo.engine.metrics import Metrics
from vision_model_repo.engine.pixels import PixelThreads
from vision_model_repo.errors import InsufficientMemory, RequestTimeout
from vision_model_repo.models.hub import Hub
from vision_model_repo.settings import Settings

Start = Callable[..., Awaitable[ModelManager]]
LONG = 100_000


@pytest.fixture(autouse=True)
def _fresh() -> None:
    for record in (counting.STEPS, counting.FAILURES, counting.CLOSED, weighty.FAILURES):
        record.clear()


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    started: list[tuple[ModelManager, PixelThreads]] = []
    checkpoint = weighty.write_checkpoint(tmp_path / "quick")

    async def begin(**changes: Any) -> ModelManager:
        pixels = PixelThreads(2)
        settings = Settings(device="cpu", default_model_ids={"quick": checkpoint}, **changes)
        manager = ModelManager(settings, counting.catalog(), Hub(offline=True), pixels, Metrics())
        started.append((manager, pixels))
        return manager

    yield begin
    for manager, pixels in started:
        await manager.close()
        pixels.close()


async def steps_have_ended() -> bool:
    """Whether no more steps are taken, but for the one under way."""
    await asyncio.sleep(2 * counting.STEP_SECONDS)
    taken = len(counting.STEPS)
    await asyncio.sleep(10 * counting.STEP_SECONDS)
    return len(counting.STEPS) == taken


async def test_a_result_is_seen_growing_to_its_end(start: Start) -> None:
    manager = await start()
    seen = [result async for result in manager.stream("counter", 7)]
    assert seen == [(3, "counter"), (6, "counter"), (7, "counter")]


async def test_run_answers_the_last_of_it(start: Start) -> None:
    answer = await (await start()).run("counter", [7, 2])
    assert answer.results == [7, 2]
    assert all(timings.prompt > 0 for timings in answer.timings)


async def test_others_have_the_device_while_an_answer_grows(start: Start) -> None:
    manager = await start()
    await manager.load("quick")
    long = asyncio.create_task(manager.run("counter", [LONG]))
    while not counting.STEPS:
        await asyncio.sleep(0.001)
    before = len(counting.STEPS)
    assert (await manager.run("quick", [21])).results == [42]
    assert len(counting.STEPS) - before <= 20, "it waits for a pass or two, and not for the end"
    long.cancel()


async def test_two_answers_grow_beside_each_other(start: Start) -> None:
    manager = await start()
    await asyncio.gather(manager.run("counter", [30]), manager.run("counter", [31]))
    first, last = counting.STEPS.index(31), len(counting.STEPS) - counting.STEPS[::-1].index(30)
    assert first < last / 2, "neither waits for the other's end"


async def test_closing_the_stream_ends_the_work_at_once(start: Start) -> None:
    manager = await start()
    async with aclosing(manager.stream("counter", LONG)) as results:
        await anext(results)
    assert await steps_have_ended()
    assert manager.status()[0].requests_in_flight == 0


async def test_cancelling_a_caller_ends_the_work_at_once(start: Start) -> None:
    manager = await start()
    caller = asyncio.create_task(manager.run("counter", [LONG]))
    while not counting.STEPS:
        await asyncio.sleep(0.001)
    caller.cancel()
    assert await steps_have_ended()


async def test_an_answer_that_takes_too_long_is_given_up(start: Start) -> None:
    manager = await start(request_timeout_seconds=0.3)
    with pytest.raises(RequestTimeout, match=r"0\.3 s"):
        async for _ in manager.stream("counter", LONG):
            pass
    assert await steps_have_ended()


async def test_a_reader_that_dawdles_is_not_interrupted_but_has_no_more_time(start: Start) -> None:
    manager = await start(request_timeout_seconds=0.2)
    results = manager.stream("counter", LONG)
    await anext(results)
    started = time.monotonic()
    await asyncio.sleep(0.3)
    assert time.monotonic() - started >= 0.3
    with pytest.raises(RequestTimeout):
        await anext(results)


async def test_unloading_waits_for_the_answer(start: Start) -> None:
    manager = await start()
    running = asyncio.create_task(manager.run("counter", [40]))
    while not counting.STEPS:
        await asyncio.sleep(0.001)
    assert await manager.unload("counter")
    assert running.done() and running.result().results == [40]


async def test_no_more_answers_grow_at_once_than_the_model_has_places_for(start: Start) -> None:
    manager = await start()
    callers = [asyncio.create_task(manager.run("counter", [1000 + number])) for number in range(6)]
    while len(counting.STEPS) < 60:
        await asyncio.sleep(0.001)
    assert len(set(counting.STEPS)) == 4
    for caller in callers:
        caller.cancel()


async def test_a_pass_that_ran_out_of_memory_begins_anew_once(start: Start) -> None:
    manager = await start()
    await manager.load("counter")
    counting.FAILURES.append(MemoryError())
    assert (await manager.run("counter", [5])).results == [5]
    counting.FAILURES.extend([MemoryError(), MemoryError()])
    with pytest.raises(InsufficientMemory):
        await manager.run("counter", [5])


async def test_a_model_that_answers_at_once_gives_one_result(start: Start) -> None:
    manager = await start()
    assert [result for result, _ in [each async for each in manager.stream("quick", 4)]] == [8]


async def test_a_model_elsewhere_takes_no_device_and_is_told_when_nobody_listens(start: Start) -> None:
    manager = await start()
    assert (await manager.run("elsewhere", [3])).results == [3]
    async with aclosing(manager.stream("elsewhere", LONG)) as results:
        assert await anext(results) == (1, "elsewhere")
    assert counting.CLOSED == [3, LONG]
    assert await manager.unload("elsewhere")
