"""Models are loaded once, replaced, evicted and unloaded; requests survive all of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.engine import weighty
from vision_model_repo.engine.manager import ModelManager
from vision_model_repo.engine.metrics import Metrics
from vision_model_repo.engine.pixels import PixelThreads
from vision_model_repo.errors import InsufficientMemory, InvalidInput, NotFound, RequestTimeout
from vision_model_repo.models.hub import Hub
from vision_model_repo.settings import Settings

Start = Callable[..., Awaitable[ModelManager]]


@pytest.fixture(autouse=True)
def fresh_family() -> None:
    for record in (weighty.LOADED, weighty.FAILURES, weighty.DEVICE_THREADS):
        record.clear()


@pytest.fixture
def checkpoint(tmp_path: Path) -> str:
    return weighty.write_checkpoint(tmp_path / "one")


@pytest.fixture
async def start(checkpoint: str) -> AsyncIterator[Start]:
    """Starts a manager whose three model types all default to the checkpoint; settings are keywords."""
    started: list[tuple[ModelManager, PixelThreads]] = []

    async def begin(**settings: Any) -> ModelManager:
        defaults: dict[str, Any] = {"default_model_ids": dict.fromkeys(weighty.NAMES, checkpoint), "device": "cpu"}
        configured = Settings(**(defaults | settings))
        pixels = PixelThreads(2)
        manager = ModelManager(configured, weighty.catalog(), Hub(offline=True), pixels, Metrics())
        started.append((manager, pixels))
        await manager.start()
        return manager

    yield begin
    for manager, pixels in started:
        await manager.close()
        pixels.close()


async def test_results_come_in_the_order_of_the_requests(start: Start, checkpoint: str) -> None:
    manager = await start()
    seen: list[int] = []
    answer = await manager.run("first", list(range(30)), on_progress=seen.append)
    assert answer.results == [2 * number for number in range(30)]
    assert answer.model_id == checkpoint
    assert seen == list(range(1, 31))
    assert weighty.DEVICE_THREADS == {"device-cpu"}


async def test_a_hundred_callers_at_once_load_a_model_once(start: Start) -> None:
    manager = await start()
    answers = await asyncio.gather(*(manager.run("first", [number]) for number in range(100)))
    assert [answer.results for answer in answers] == [[2 * number] for number in range(100)]
    assert len(weighty.LOADED) == 1


async def test_the_load_goes_on_when_the_caller_that_began_it_hangs_up(start: Start) -> None:
    manager = await start()
    impatient = asyncio.create_task(manager.run("first", [1]))
    await asyncio.sleep(0.01)
    patient = asyncio.create_task(manager.run("first", [2]))
    await asyncio.sleep(0)
    impatient.cancel()
    assert (await patient).results == [4]
    assert len(weighty.LOADED) == 1


async def test_loading_what_is_loaded_is_a_no_op_and_another_id_replaces_it(start: Start, tmp_path: Path) -> None:
    manager = await start()
    await manager.load("first")
    await manager.load("first")
    assert len(weighty.LOADED) == 1
    other = weighty.write_checkpoint(tmp_path / "other")
    status = await manager.load("first", other)
    assert status.model_id == other
    assert weighty.LOADED[1:] == [other]
    assert (await manager.run("first", [1])).model_id == other, "a request that names none uses the one in memory"


async def test_requests_in_flight_finish_on_the_model_they_began_with(start: Start, tmp_path: Path) -> None:
    manager = await start(max_batch_size=1)
    await manager.load("first")
    running = asyncio.create_task(manager.run("first", list(range(20))))
    await asyncio.sleep(0.01)
    await manager.load("first", weighty.write_checkpoint(tmp_path / "other"))
    assert (await running).results == [2 * number for number in range(20)]


async def test_unloading_waits_for_requests_and_gives_the_memory_back(start: Start) -> None:
    manager = await start(max_batch_size=1)
    await manager.load("first")
    running = asyncio.create_task(manager.run("first", list(range(20))))
    await asyncio.sleep(0.01)
    assert await manager.unload("first")
    assert (await running).results == [2 * number for number in range(20)]
    assert manager.loaded() == []
    assert not await manager.unload("first")


async def test_a_failed_load_leaves_nothing_behind_and_the_next_one_works(start: Start) -> None:
    manager = await start()
    weighty.FAILURES.append(ValueError("broken file"))
    with pytest.raises(ValueError, match="broken file"):
        await manager.load("first")
    status = next(status for status in manager.status() if status.spec.model_type == "first")
    assert (status.loaded, status.loading) == (False, False)
    assert (await manager.run("first", [1])).results == [2]


async def test_one_bad_request_fails_alone(start: Start) -> None:
    manager = await start()
    asked = ([1], [1, -1], [weighty.BROKEN])
    good, refused, broken = await asyncio.gather(
        *(manager.run("first", requests) for requests in asked), return_exceptions=True
    )
    assert good.results == [2]  # type: ignore[union-attr]
    assert isinstance(refused, ValueError)
    assert isinstance(broken, ZeroDivisionError)
    assert manager.healthy


async def test_the_least_recently_used_idle_model_makes_room(start: Start, tmp_path: Path) -> None:
    large = weighty.write_checkpoint(tmp_path / "large", megabytes=4)
    manager = await start(memory_budget_mb=9, default_model_ids=dict.fromkeys(weighty.NAMES, large))
    await manager.load("first")
    await manager.load("second")
    await manager.run("first", [1])
    await manager.load("third")
    assert sorted(manager.loaded()) == ["first", "third"]


async def test_a_model_in_use_is_never_evicted(start: Start, tmp_path: Path) -> None:
    large = weighty.write_checkpoint(tmp_path / "large", megabytes=4)
    manager = await start(memory_budget_mb=6, default_model_ids=dict.fromkeys(weighty.NAMES, large), max_batch_size=1)
    await manager.load("first")
    running = asyncio.create_task(manager.run("first", list(range(50))))
    await asyncio.sleep(0.01)
    with pytest.raises(InsufficientMemory, match="MEMORY_BUDGET_MB"):
        await manager.load("second")
    assert (await running).results == [2 * number for number in range(50)]
    await manager.load("second")
    assert manager.loaded() == ["second"]


async def test_out_of_memory_frees_what_is_idle_and_tries_once_more(start: Start) -> None:
    manager = await start()
    await manager.load("second")
    await manager.load("first")
    weighty.FAILURES.append(MemoryError())
    assert (await manager.run("first", [1])).results == [2]
    assert manager.loaded() == ["first"]


async def test_out_of_memory_twice_is_said_and_survived(start: Start) -> None:
    manager = await start()
    await manager.load("first")
    weighty.FAILURES.extend([MemoryError(), MemoryError()])
    with pytest.raises(InsufficientMemory, match="smaller images"):
        await manager.run("first", [1])
    assert (await manager.run("first", [1])).results == [2]


async def test_out_of_memory_while_loading(start: Start) -> None:
    manager = await start()
    await manager.load("second")
    weighty.FAILURES.append(MemoryError())
    await manager.load("first")
    assert manager.loaded() == ["first"]
    weighty.FAILURES.extend([MemoryError(), MemoryError()])
    with pytest.raises(InsufficientMemory, match="does not fit"):
        await manager.load("third")


async def test_idle_models_are_unloaded_after_the_set_time(start: Start) -> None:
    manager = await start(model_idle_seconds=0.05)
    await manager.run("first", [1])
    assert manager.loaded() == ["first"]
    await asyncio.sleep(0.2)
    assert manager.loaded() == []


async def test_with_auto_load_off_inference_asks_for_a_load_first(start: Start, tmp_path: Path) -> None:
    manager = await start(auto_load=False)
    with pytest.raises(NotFound, match=r"^Model first not loaded\. Call load_model\(\) first\.$"):
        await manager.run("first", [1])
    await manager.load("first")
    assert (await manager.run("first", [1])).results == [2]
    with pytest.raises(NotFound, match="not loaded as"):
        await manager.run("first", [1], model_id=weighty.write_checkpoint(tmp_path / "other"))


async def test_a_request_has_a_time_limit(start: Start) -> None:
    manager = await start(request_timeout_seconds=1, max_batch_size=1)
    await manager.load("first")
    with pytest.raises(RequestTimeout):
        await manager.run("first", list(range(10_000)))
    assert (await manager.run("first", [1])).results == [2]


@pytest.mark.parametrize("device", ["cuda:9", "gpu", "cpu:7", ""])
async def test_a_device_that_is_not_there_is_refused_by_name(start: Start, device: str) -> None:
    manager = await start()
    if not device:
        assert (await manager.load("first", device=device)).device == "cpu"
        return
    with pytest.raises(InvalidInput, match="It has: cpu"):
        await manager.load("first", device=device)


async def test_models_named_in_settings_are_loaded_at_start(start: Start) -> None:
    manager = await start(preload_models="second,third")
    assert not manager.preload.ready
    while not manager.preload.ready:
        await asyncio.sleep(0.01)
    assert sorted(manager.loaded()) == ["second", "third"]
