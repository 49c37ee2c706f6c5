"""The first passes of a model, before anyone waits for them.

The first pass over a network is far slower than all later ones: kernels are chosen, memory is taken, code is
compiled. So a model is run once, on its device's own thread and at its real size, before it counts as loaded. The
same passes tell how many images are worth a batch on this device.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from vision_model_repo.engine.worker import DeviceWorker
from vision_model_repo.errors import InvalidInput, is_out_of_memory
from vision_model_repo.models.base import EncoderModel, Model

GROWTH = 1.05
"""A batch of twice the size is worth it where it does so many times as many images a second."""
REPEATS = 3
BUDGET_SECONDS = 4.0
"""For all passes that are timed; a batch that is expected to pass the rest of it is not tried."""
GPU_FACTOR = 8
"""A model's own limit is made for any device. A GPU may have room for so many times as much."""


def ceiling(model: Model) -> int:
    """The largest batch that may be tried. A model that takes one image alone has its reasons."""
    return model.max_batch * GPU_FACTOR if model.device.startswith("cuda") and model.max_batch > 1 else model.max_batch


async def warm_up(model: Model, worker: DeviceWorker, *requests: Any) -> list[Any]:
    """Runs all steps once for each request; answers those that the model takes.

    Raises:
        InvalidInput: it takes none of them.
        What else the model raises: one that does not fit fails here.
    """
    taken: list[Any] = []
    for request in requests:
        try:
            await worker.call(partial(model, request))
        except InvalidInput:
            # Of the two kinds that a task may have, a model may be for the other one.
            if request is requests[-1] and not taken:
                raise
        else:
            taken.append(request)
    return taken


async def warm_batches(model: Model, worker: DeviceWorker, request: Any) -> None:
    """Runs one batch of each size up to the model's limit, doubling: for code that is compiled for every size."""
    run = _passes(model, request)
    for size in _sizes(model.max_batch):
        await worker.call(partial(run, size))


async def measure_batch(model: Model, worker: DeviceWorker, request: Any) -> int:
    """How many images are worth a batch: doubled for as long as images a second grow and the memory suffices."""
    run = _passes(model, request)
    best, best_rate, left = 1, 0.0, BUDGET_SECONDS
    for size in _sizes(ceiling(model)):
        try:
            seconds = await worker.call(partial(_fastest, run, size))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            break
        if size / seconds < GROWTH * best_rate:
            break
        best, best_rate = size, size / seconds
        left -= REPEATS * seconds
        if left < 2 * REPEATS * seconds:
            break
    await worker.call(model.trim)
    return best


def _sizes(most: int) -> list[int]:
    return [2**power for power in range(most.bit_length())]


def _passes(model: Model, request: Any) -> Callable[[int], None]:
    """Runs the network, or its encoder where it has one, over a batch of a size, and waits for the device."""
    if isinstance(model, EncoderModel):
        pixels = model.prepare(request.image)

        def run(size: int) -> None:
            # The last one's way to the host is what waits for a device that works on by itself.
            model.encode([pixels] * size)[-1].to("cpu")

    else:
        item = model.preprocess(request)

        def run(size: int) -> None:
            model.forward([item] * size)

    return run


def _fastest(run: Callable[[int], None], size: int) -> float:
    """Seconds of one batch, at best; the first pass of a size is not counted."""
    run(size)
    return min(_seconds(run, size) for _ in range(REPEATS))


def _seconds(run: Callable[[int], None], size: int) -> float:
    started = time.perf_counter()
    run(size)
    return time.perf_counter() - started
