"""A model in memory, and who uses it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial

from vision_model_repo.engine.batching import Forward, Lane
from vision_model_repo.engine.worker import DeviceWorker
from vision_model_repo.models.base import Checkpoint, EncoderModel, GenerativeModel, Model, Servable
from vision_model_repo.models.catalog import ModelSpec


class Slot:
    """One model in memory, its lanes to the device, and who uses it.

    Attributes:
        encode: where images wait for the encoder; None for a model that has none of its own.
        forward: where everything else waits. A model on another server has none.
        places: bounds the images that are prepared for the device, or the answers that are under way, at once.
        retired: whether its memory has been given back.

    Args:
        worker: of the model's device.
        wait_seconds: how long a lane's oldest entry waits for company.
        on_batch: told the step, "encode" or "forward", the size of every batch, and the seconds that it took.
    """

    def __init__(
        self,
        spec: ModelSpec,
        checkpoint: Checkpoint,
        model: Servable,
        worker: DeviceWorker,
        *,
        wait_seconds: float = 0.0,
        on_batch: Callable[[str, int, float], None] = lambda step, size, seconds: None,
    ) -> None:
        self.spec = spec
        self.checkpoint = checkpoint
        self.model = model
        self.worker = worker
        self.places = asyncio.Semaphore(_places(model))
        self.users = 0
        self.last_used = time.monotonic()
        self.retired = False
        self._unused = asyncio.Event()
        self._unused.set()

        def lane(step: str, function: Forward, most: int) -> Lane:
            return Lane(function, max_batch=most, wait_seconds=wait_seconds, on_batch=partial(on_batch, step))

        self.encode: Lane | None = None
        self._lanes: list[Lane] = []
        if isinstance(model, EncoderModel):
            self.encode = lane("encode", model.encode, model.max_batch)
            self._lanes.append(self.encode)
        if isinstance(model, Model):
            self.forward = lane("forward", model.forward, _most_in_a_pass(model))
            self._lanes.append(self.forward)
        for each in self._lanes:
            worker.add(each)

    def matches(self, model_id: str | None, device: str | None) -> bool:
        return model_id in (None, self.model.model_id) and device in (None, self.model.device)

    def hold(self) -> None:
        self.users += 1
        self._unused.clear()

    def release(self) -> None:
        self.users -= 1
        self.last_used = time.monotonic()
        if not self.users:
            self._unused.set()

    async def retire(self) -> None:
        """Waits for the requests in flight, then gives the memory back."""
        await self._unused.wait()
        self.retired = True
        for lane in self._lanes:
            self.worker.remove(lane)
        await self.worker.call(self.model.unload)


def _most_in_a_pass(model: Model) -> int:
    if isinstance(model, EncoderModel):
        return model.max_questions
    # Of answers that grow, several in one pass would make all wait for each.
    return 1 if isinstance(model, GenerativeModel) else model.max_batch


def _places(model: Servable) -> int:
    if isinstance(model, Model) and not isinstance(model, GenerativeModel):
        # Three batches: one on the device, one prepared behind it and one being finished. More would only fill the
        # memory with pixels.
        return 3 * model.max_batch
    return model.max_batch
