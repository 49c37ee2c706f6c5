"""The server answers while its models load, and is ready when they are there."""

from __future__ import annotations

import asyncio

from vision_model_repo.engine.preload import Preload
from vision_model_repo.errors import NotFound

MODELS = ("one", "two", "three")


async def test_models_are_loaded_one_after_the_other_and_then_it_is_ready() -> None:
    gate = asyncio.Semaphore(0)

    async def load(model_type: str) -> None:
        await gate.acquire()
        preload.loaded(model_type)

    preload = Preload(load, MODELS)
    preload.start()
    for left in (3, 2, 1):
        assert not preload.ready and preload.loading == list(MODELS[-left:])
        gate.release()
        await asyncio.sleep(0.01)
    assert preload.ready and preload.loading == []


async def test_nothing_to_load_is_ready_at_once() -> None:
    async def load(model_type: str) -> None:
        raise AssertionError

    preload = Preload(load, ())
    preload.start()
    assert preload.ready


async def test_a_failure_is_kept_until_the_model_is_loaded_after_all_and_stops_no_other() -> None:
    async def load(model_type: str) -> None:
        if model_type == "one":
            raise NotFound("There is no such checkpoint.")
        if model_type == "two":
            raise OSError("/secret/path")
        preload.loaded(model_type)

    preload = Preload(load, MODELS)
    preload.start()
    await asyncio.sleep(0.01)
    assert preload.failures == {"one": "There is no such checkpoint.", "two": "OSError; the log has more."}
    assert not preload.ready and preload.loading == []
    preload.loaded("one")
    preload.loaded("two")
    assert preload.ready
