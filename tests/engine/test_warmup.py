"""A model is run before it counts as loaded, and its batches grow for as long as that pays."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from vision_model_repo.engine import warmup
from vision_model_repo.engine.warmup import measure_batch, warm_batches, warm_up
from vision_model_repo.engine.worker import DeviceWorker
from vision_model_repo.errors import InvalidInput
from vision_model_repo.models.base import EncoderModel, HostArrays, Model
from vision_model_repo.models.catalog import BUILT_IN
from vision_model_repo.tasks.examples import EXAMPLES, examples
from vision_model_repo.tasks.features import FeatureRequest

MILLISECOND = 1e-3


class Sleeper(Model[Any, Any, Any, Any]):
    """Sleeps so many milliseconds for each batch and for each image of it; more than it holds is too much for it."""

    device = "cpu"

    def __init__(self, batch: float, image: float, *, holds: int = 1000, most: int = 64) -> None:
        self.batch, self.image, self.holds, self.max_batch = batch, image, holds, most
        self.sizes: list[int] = []
        self.trimmed = False

    def preprocess(self, request: Any) -> Any:
        return request

    def forward(self, items: Sequence[Any]) -> Sequence[Any]:
        if len(items) > self.holds:
            raise MemoryError
        self.sizes.append(len(items))
        time.sleep((self.batch + self.image * len(items)) * MILLISECOND)
        return items

    def postprocess(self, raw: Any, item: Any) -> Any:
        return raw

    def trim(self) -> None:
        self.trimmed = True

    def memory_bytes(self) -> int:
        return 0

    def unload(self) -> None:
        """Nothing to give back."""


class Seen(HostArrays):
    pass


class Looker(EncoderModel[FeatureRequest, FeatureRequest, Any, Any, Any, Seen]):
    """Counts the images of each batch of its encoder."""

    device = "cpu"
    max_batch = 4

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def preprocess(self, request: FeatureRequest) -> FeatureRequest:
        return request

    def prepare(self, image: Any) -> Any:
        return image

    def encode(self, images: Sequence[Any]) -> list[Seen]:
        self.sizes.append(len(images))
        return [Seen() for _ in images]

    def attach(self, item: FeatureRequest, encoding: Seen) -> FeatureRequest:
        return item

    def forward(self, items: Sequence[Any]) -> Sequence[Any]:
        return items

    def postprocess(self, raw: Any, item: Any) -> Any:
        return raw

    def memory_bytes(self) -> int:
        return 0

    def unload(self) -> None:
        """Nothing to give back."""


@pytest.fixture
def worker() -> Iterator[DeviceWorker]:
    worker = DeviceWorker("cpu")
    yield worker
    worker.stop()


async def test_batches_grow_while_company_is_cheap(worker: DeviceWorker) -> None:
    assert await measure_batch(Sleeper(20, 0.1, most=16), worker, None) == 16


async def test_batches_stay_small_where_company_costs_as_much_as_waiting(worker: DeviceWorker) -> None:
    assert await measure_batch(Sleeper(0, 10), worker, None) == 1


async def test_running_out_of_memory_ends_the_growth_and_is_no_error(worker: DeviceWorker) -> None:
    model = Sleeper(20, 0, holds=4)
    assert await measure_batch(model, worker, None) == 4
    assert model.trimmed


async def test_any_other_failure_is_one(worker: DeviceWorker) -> None:
    model = Sleeper(0, 0)
    model.holds = -1
    model.forward = lambda items: 1 / 0  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        await measure_batch(model, worker, None)


async def test_measuring_ends_when_its_time_is_over(worker: DeviceWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warmup, "BUDGET_SECONDS", 0.1)
    assert await measure_batch(Sleeper(20, 0), worker, None) == 1


@pytest.mark.parametrize(("device", "most", "tried"), [("cpu", 8, 8), ("cuda:0", 8, 64), ("cuda:0", 1, 1)])
def test_a_gpu_may_take_more_than_the_models_own_limit_unless_that_is_one(device: str, most: int, tried: int) -> None:
    model = Sleeper(0, 0, most=most)
    model.device = device
    assert warmup.ceiling(model) == tried


async def test_of_a_model_with_an_encoder_the_encoder_is_measured(worker: DeviceWorker) -> None:
    model = Looker()
    request = FeatureRequest(np.zeros((8, 8, 3), np.uint8))
    await warm_up(model, worker, request)
    assert model.sizes == [1]
    await warm_batches(model, worker, request)
    assert model.sizes == [1, 1, 2, 4]
    assert await measure_batch(model, worker, request) in (1, 2, 4)


class Picky(Sleeper):
    """Takes what is among `likes`."""

    def __init__(self, *likes: str) -> None:
        super().__init__(0, 0)
        self.likes = likes

    def preprocess(self, request: Any) -> Any:
        if request not in self.likes:
            raise InvalidInput(f"No {request}.")
        return request


@pytest.mark.parametrize("likes", [("text",), ("image",), ("text", "image")])
async def test_a_model_is_run_on_every_kind_of_request_that_it_takes(
    worker: DeviceWorker, likes: tuple[str, ...]
) -> None:
    model = Picky(*likes)
    assert await warm_up(model, worker, "text", "image") == list(likes)
    assert model.sizes == [1] * len(likes)


async def test_a_model_that_takes_none_says_why(worker: DeviceWorker) -> None:
    with pytest.raises(InvalidInput, match="No image"):
        await warm_up(Picky(), worker, "text", "image")


@pytest.mark.parametrize("task", ["segmentation", "detection", "depth", "features", "classification", "tracking"])
def test_every_task_has_an_example(task: str) -> None:
    request = examples(task, 60, 80)[0]
    assert request.image.shape == (60, 80, 3) and request.image.dtype == np.uint8
    assert request.image.min() == 0 and request.image.max() == 255


def test_embedding_has_examples_of_either_kind() -> None:
    *said, seen = examples("embedding", 60, 80)
    assert [len(request.texts) for request in said] == [1, 2] and not any(request.images for request in said)
    assert seen.image.shape == (60, 80, 3) and not seen.texts


def test_every_task_of_the_built_in_families_has_an_example() -> None:
    assert {spec.task for spec in BUILT_IN} <= set(EXAMPLES)
