"""One thread a device, fair between models, alive whatever happens."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence

import pytest
from tokenizers.normalizers import Precompiled

from vision_model_repo.engine.batching import Entry, Lane
from vision_model_repo.engine.pixels import PixelThreads
from vision_model_repo.engine.worker import DeviceWorker


@pytest.fixture
async def worker() -> AsyncIterator[DeviceWorker]:
    device = DeviceWorker("test")
    yield device
    device.stop()


def entry(item: object) -> Entry:
    return Entry(item, None, time.monotonic() + 60)


async def submit(worker: DeviceWorker, lane: Lane, entry: Entry) -> object:
    """Waits for an entry's output."""
    worker.put(lane, entry)
    return await asyncio.wrap_future(entry.future)


def gated(gate: threading.Event, log: list[list[object]]) -> Callable[[Sequence[object]], list[object]]:
    """A forward pass that notes its batch and waits for the gate."""

    def forward(items: Sequence[object]) -> list[object]:
        log.append(list(items))
        gate.wait(10)
        return list(items)

    return forward


async def test_what_waits_while_the_device_is_busy_becomes_one_batch(worker: DeviceWorker) -> None:
    gate, log = threading.Event(), []
    lane = Lane(gated(gate, log), max_batch=8)
    worker.add(lane)
    first = asyncio.ensure_future(submit(worker, lane, entry(0)))
    while not log:
        await asyncio.sleep(0.001)
    others = [asyncio.ensure_future(submit(worker, lane, entry(number))) for number in range(1, 5)]
    await asyncio.sleep(0.01)
    gate.set()
    assert await asyncio.gather(first, *others) == [0, 1, 2, 3, 4]
    assert log == [[0], [1, 2, 3, 4]]


async def test_models_take_turns(worker: DeviceWorker) -> None:
    gate, log = threading.Event(), []
    busy, quiet = (Lane(gated(gate, log), max_batch=1) for _ in range(2))
    worker.add(busy)
    worker.add(quiet)
    crowd = [asyncio.ensure_future(submit(worker, busy, entry(f"busy{number}"))) for number in range(5)]
    while not log:
        await asyncio.sleep(0.001)
    lone = asyncio.ensure_future(submit(worker, quiet, entry("quiet")))
    await asyncio.sleep(0.01)
    gate.set()
    await asyncio.gather(lone, *crowd)
    assert log[1] == ["quiet"], "the second model waits for one batch of the first, not for its whole queue"


async def test_a_cancelled_caller_leaves_the_queue(worker: DeviceWorker) -> None:
    gate, log = threading.Event(), []
    lane = Lane(gated(gate, log), max_batch=1)
    worker.add(lane)
    first = asyncio.ensure_future(submit(worker, lane, entry("first")))
    while not log:
        await asyncio.sleep(0.001)
    gone = asyncio.ensure_future(submit(worker, lane, entry("gone")))
    last = asyncio.ensure_future(submit(worker, lane, entry("last")))
    await asyncio.sleep(0.01)
    gone.cancel()
    await asyncio.sleep(0.01)
    gate.set()
    await asyncio.gather(first, last)
    assert log == [["first"], ["last"]]


async def test_the_thread_outlives_failing_work(worker: DeviceWorker) -> None:
    def forward(items: Sequence[object]) -> list[object]:
        raise ValueError("broken model")

    lane = Lane(forward, max_batch=1)
    worker.add(lane)
    for _ in range(2):
        with pytest.raises(ValueError, match="broken model"):
            await submit(worker, lane, entry(None))
    with pytest.raises(ZeroDivisionError):
        await worker.call(lambda: 1 // 0)
    assert await worker.call(lambda: threading.current_thread().name) == "device-test"
    assert worker.alive


async def test_a_set_wait_gathers_company(worker: DeviceWorker) -> None:
    gate, log = threading.Event(), []
    gate.set()
    lane = Lane(gated(gate, log), max_batch=2, wait_seconds=30)
    worker.add(lane)
    first = asyncio.ensure_future(submit(worker, lane, entry(1)))
    await asyncio.sleep(0.02)
    assert log == []
    assert await asyncio.gather(first, submit(worker, lane, entry(2))) == [1, 2]
    assert log == [[1, 2]]


def panic(*_: object) -> list[object]:
    """Makes an extension written in Rust panic, by a table that it reads beyond its end."""
    Precompiled(b"\0\0\0\0abc").normalize_str("h\u00e9llo")
    return []


async def test_a_panic_fails_its_request_and_not_the_thread(worker: DeviceWorker) -> None:
    with pytest.raises(BaseException) as caught:
        panic()
    assert not isinstance(caught.value, Exception), "else the rest shows nothing"
    lane = Lane(panic, max_batch=4)
    worker.add(lane)
    entries = [entry(0), entry(1)]
    with pytest.raises(RuntimeError, match="PanicException: index out of bounds"):
        await submit(worker, lane, entries[0])
    with pytest.raises(RuntimeError, match="PanicException"):
        await worker.call(panic)
    assert await worker.call(lambda: 7) == 7


async def test_a_panic_in_a_pixel_thread_is_an_error() -> None:
    pixels = PixelThreads(1)
    try:
        with pytest.raises(RuntimeError, match="PanicException"):
            await pixels.run(panic)
        with pytest.raises(RuntimeError, match="PanicException"):
            pixels.submit(panic).result()
        assert await pixels.run(int, "7") == 7
    finally:
        pixels.close()
