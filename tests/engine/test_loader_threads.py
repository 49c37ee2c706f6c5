"""A loader that does not come back is given up, and the next one has a thread."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
import torch

from vision_model_repo.engine.loader_threads import MAX_GIVEN_UP, LoaderThreads
from vision_model_repo.errors import Busy, RequestTimeout


def spin() -> None:
    """Never ends, and runs Python."""
    while True:
        time.sleep(0.001)


async def until(condition: object) -> None:
    async with asyncio.timeout(10):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.01)


async def test_results_and_errors_come_back() -> None:
    threads = LoaderThreads(10)
    assert await threads.run(lambda: threading.current_thread().name, "x") == "loader"
    with pytest.raises(ZeroDivisionError):
        await threads.run(lambda: 1 // 0, "x")
    assert not threads.degraded


async def test_one_at_a_time_even_when_whoever_asked_is_gone() -> None:
    threads, running, most = LoaderThreads(10), 0, 0

    def work() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        time.sleep(0.05)
        running -= 1

    tasks = [asyncio.create_task(threads.run(work, "x")) for _ in range(4)]
    await asyncio.sleep(0.01)
    tasks[0].cancel()
    tasks[1].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await until(lambda: not running)
    assert most == 1


async def test_one_that_hangs_is_given_up_and_the_next_one_runs() -> None:
    threads = LoaderThreads(0.1)
    with pytest.raises(RequestTimeout, match="some/model was not read within"):
        await threads.run(spin, "some/model")
    assert threads.degraded
    await until(lambda: not threads.stuck)
    assert threads.degraded, "until a checkpoint was read"
    assert await threads.run(lambda: "model", "another", discard=lambda model: None) == "model"
    assert not threads.degraded


async def test_one_that_is_stuck_outside_of_python_keeps_its_thread_and_only_that() -> None:
    threads, gate, late = LoaderThreads(0.1), threading.Event(), []

    def stuck() -> str:
        torch.set_default_dtype(torch.bfloat16)
        gate.wait()
        return "late"

    with pytest.raises(RequestTimeout):
        await threads.run(stuck, "some/model", discard=late.append)
    assert torch.get_default_dtype() == torch.float32
    assert threads.stuck == ["some/model"]
    assert await threads.run(lambda: "model", "another", discard=late.append) == "model"
    assert threads.degraded
    gate.set()
    await until(lambda: not threads.stuck)
    assert not threads.degraded


async def test_with_too_many_stuck_no_other_is_begun() -> None:
    threads, gate = LoaderThreads(0.02), threading.Event()
    for _ in range(MAX_GIVEN_UP):
        with pytest.raises(RequestTimeout):
            await threads.run(gate.wait, "x")
    with pytest.raises(Busy, match="Restart"):
        await threads.run(lambda: None, "x")
    gate.set()
    await until(lambda: not threads.stuck)
    await threads.run(lambda: None, "x")
