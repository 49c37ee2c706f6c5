"""An image is encoded once, whoever asks, and every question goes on from there."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from weakref import ref

import numpy as np
import pytest
from numpy.typing import NDArray

from vision_model_repo.engine.cache import EncodingCache
from vision_model_repo.engine.pixels import PixelThreads
from vision_model_repo.engine.runner import Runner
from vision_model_repo.engine.slots import Slot
from vision_model_repo.engine.worker import DeviceWorker
from vision_model_repo.errors import InsufficientMemory, InvalidInput, RequestTimeout
from vision_model_repo.models.base import Checkpoint, EncoderModel, HostArrays
from vision_model_repo.models.catalog import ModelSpec
from vision_model_repo.tasks.features import FeatureRequest

SPEC = ModelSpec("adder", "features", "nowhere", ())


@dataclass(frozen=True)
class Sum(HostArrays):
    value: NDArray[np.int64]


@dataclass(frozen=True)
class Item:
    sign: int
    encoding: Sum | None = None


class Adder(EncoderModel[FeatureRequest, Item, int, int, NDArray[np.int64], Sum]):
    """Adds up an image's pixels, slowly; the question is whether to turn the sign."""

    model_id, device, dtype, max_batch, max_questions = "adder", "cpu", "float32", 4, 4

    def __init__(self, *, alike: bool = False) -> None:
        self.encoded: list[int] = []
        self.asked: list[int] = []
        self.failures: list[Exception] = []
        self.gate = threading.Event()
        self.gate.set()
        self.answers_alike = alike  # type: ignore[misc]

    def preprocess(self, request: FeatureRequest) -> Item:
        return Item(-1 if request.normalize else 1)

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.int64]:
        if not image.any():
            raise InvalidInput("black")
        return image.astype(np.int64)

    def image_key(self, pixels: NDArray[np.int64]) -> Hashable:
        return pixels.shape

    def encode(self, images: Sequence[NDArray[np.int64]]) -> list[Sum]:
        self.gate.wait(10)
        if self.failures:
            raise self.failures.pop()
        self.encoded.append(len(images))
        time.sleep(0.02)
        return [Sum(np.array(image.sum())) for image in images]

    def attach(self, item: Item, encoding: Sum) -> Item:
        return replace(item, encoding=encoding)

    def forward(self, items: Sequence[Item]) -> list[int]:
        if not self.answers_alike:
            self.asked.append(len(items))
        return [item.sign * int(item.encoding.value) for item in items if item.encoding]

    def postprocess(self, raw: int, item: Item) -> int:
        return raw

    def memory_bytes(self) -> int:
        return 0

    def unload(self) -> None:
        """Nothing to give back."""


@dataclass
class Bench:
    model: Adder
    slot: Slot
    runner: Runner
    cache: EncodingCache
    room_made: list[Slot]

    def ask(self, image: NDArray[np.uint8], *, negative: bool = False, seconds: float = 60) -> Awaitable[Any]:
        deadline = time.monotonic() + seconds
        return asyncio.ensure_future(self.runner.answer(self.slot, FeatureRequest(image, negative), deadline))


@pytest.fixture
async def bench() -> AsyncIterator[Callable[..., Bench]]:
    started: list[tuple[PixelThreads, DeviceWorker]] = []

    def begin(**options: Any) -> Bench:
        pixels, worker, model, room_made = PixelThreads(2), DeviceWorker("cpu"), Adder(**options), []
        started.append((pixels, worker))
        cache = EncodingCache(0, 10_000, pixels)

        async def make_room(slot: Slot) -> None:
            room_made.append(slot)

        slot = Slot(SPEC, Checkpoint("adder", None), model, worker)  # type: ignore[arg-type]
        return Bench(model, slot, Runner(pixels, cache, make_room), cache, room_made)

    yield begin
    for pixels, worker in started:
        worker.stop()
        pixels.close()


def image(value: int, size: int = 4) -> NDArray[np.uint8]:
    return np.full((size, size, 3), value, np.uint8)


async def test_ten_requests_for_one_new_image_encode_it_once(bench: Callable[..., Bench]) -> None:
    it = bench()
    answers = await asyncio.gather(*(it.ask(image(1), negative=number % 2 == 1) for number in range(10)))
    assert [result for result, _ in answers] == [48, -48] * 5
    assert it.model.encoded == [1]
    assert sum(it.model.asked) == 10
    assert [timings.cached for _, timings in answers].count(False) == 1


@pytest.mark.parametrize("alike", [False, True])
async def test_the_second_look_skips_the_encoder(bench: Callable[..., Bench], alike: bool) -> None:
    it = bench(alike=alike)
    first = (await it.ask(image(1)))[1]
    result, second = await it.ask(image(1), negative=True)
    assert result == -48
    assert it.model.encoded == [1]
    assert (first.cached, second.cached) == (False, True)
    assert first.encode >= 0.02
    assert second.encode == 0
    assert 0 <= second.queue < 0.02
    assert (second.prompt == 0) == alike
    assert first.queue >= 0


@pytest.mark.parametrize("alike", [False, True])
async def test_what_is_encoded_together_is_answered_together(bench: Callable[..., Bench], alike: bool) -> None:
    it = bench(alike=alike)
    it.model.gate.clear()
    asked = [it.ask(image(1))]
    await asyncio.sleep(0.1)
    asked += [it.ask(image(value)) for value in range(2, 6)]
    await asyncio.sleep(0.1)
    it.model.gate.set()
    assert [(await one)[0] for one in asked] == [48 * value for value in range(1, 6)]
    # The first went alone, as nobody else was there; the four behind it shared both passes.
    assert it.model.encoded == [1, 4]
    assert it.model.asked == ([] if alike else [1, 4])


async def test_images_of_other_shapes_are_encoded_apart(bench: Callable[..., Bench]) -> None:
    it = bench()
    it.model.gate.clear()
    asked = [it.ask(image(1, size)) for size in (2, 4, 6, 4, 6)]
    await asyncio.sleep(0.1)
    it.model.gate.set()
    assert [(await one)[0] for one in asked] == [12, 48, 108, 48, 108]
    # Five requests, three images.
    assert it.model.encoded == [1, 1, 1]


async def test_an_image_that_cannot_be_prepared_fails_who_asked(bench: Callable[..., Bench]) -> None:
    it = bench()
    asked = [it.ask(image(value)) for value in (0, 0, 1)]
    for refused in asked[:2]:
        with pytest.raises(InvalidInput, match="black"):
            await refused
    assert (await asked[2])[0] == 48
    assert not it.runner._flights


async def test_who_hangs_up_leaves_the_others_their_encoding(bench: Callable[..., Bench]) -> None:
    it = bench()
    it.model.gate.clear()
    first, second = it.ask(image(1)), it.ask(image(1))
    await asyncio.sleep(0.05)
    first.cancel()  # type: ignore[attr-defined]
    await asyncio.sleep(0.05)
    it.model.gate.set()
    assert (await second)[0] == 48
    assert it.model.encoded == [1]


async def test_when_all_have_hung_up_the_image_never_reaches_the_device(bench: Callable[..., Bench]) -> None:
    it = bench()
    it.model.gate.clear()
    busy = it.ask(image(1))
    await asyncio.sleep(0.05)
    gone = [it.ask(image(2)) for _ in range(3)]
    await asyncio.sleep(0.05)
    for one in gone:
        one.cancel()  # type: ignore[attr-defined]
    await asyncio.sleep(0.05)
    it.model.gate.set()
    await busy
    assert (await it.ask(image(3)))[0] == 144
    assert it.model.encoded == [1, 1]
    assert not it.runner._flights


async def test_out_of_memory_is_tried_once_more_with_room(bench: Callable[..., Bench]) -> None:
    it = bench()
    it.model.failures = [MemoryError()]
    assert (await it.ask(image(1)))[0] == 48
    assert it.room_made == [it.slot]
    assert it.model.encoded == [1]


async def test_out_of_memory_for_good_is_a_clear_error_for_all_who_wait(bench: Callable[..., Bench]) -> None:
    it = bench()
    it.model.failures = [MemoryError(), MemoryError()]
    asked = [it.ask(image(1)) for _ in range(3)]
    for one in asked:
        with pytest.raises(InsufficientMemory, match="does not fit"):
            await one
    assert (await it.ask(image(1)))[0] == 48


async def test_a_deadline_that_even_a_fast_pass_would_miss_is_refused(bench: Callable[..., Bench]) -> None:
    it = bench()
    await it.ask(image(1))
    with pytest.raises(RequestTimeout):
        await it.ask(image(2), seconds=0.005)
    assert it.model.encoded == [1]


async def test_what_was_prepared_is_gone_with_the_answer_and_waits_for_no_garbage_collector(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    it, attach, prepared = bench(), Adder.attach, []

    def watched(model: Adder, item: Item, encoding: Sum) -> Item:
        whole = attach(model, item, encoding)
        prepared.append(ref(whole))
        return whole

    monkeypatch.setattr(Adder, "attach", watched)
    gc.disable()
    try:
        # Threads let go of what they did last when they are given something else.
        await asyncio.gather(*(it.ask(image(value)) for value in range(1, 9)))
        await asyncio.gather(*(it.ask(image(value)) for value in range(9, 17)))
        assert [each() for each in prepared[:8]] == [None] * 8
    finally:
        gc.enable()


async def test_a_retired_model_keeps_nothing(bench: Callable[..., Bench]) -> None:
    it = bench()
    await it.ask(image(1))
    await it.slot.retire()
    it.cache.drop(it.slot)
    assert it.cache.bytes_held["host"] == 0
