"""The one way from a request to its answer; routes, uploads, overlays and jobs all take it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import repeat
from typing import Any

from vision_model_repo.api.concurrency import gather_or_cancel
from vision_model_repo.api.native.depth import NativeDepth
from vision_model_repo.api.native.detection import NativeDetection
from vision_model_repo.api.native.features import NativeFeatures
from vision_model_repo.api.native.images import Source, read_images
from vision_model_repo.api.native.segmentation import NativeSegmentation
from vision_model_repo.api.native.task import NativeTask, Options, check_count
from vision_model_repo.api.wire import extend, write
from vision_model_repo.engine.engine import Engine
from vision_model_repo.errors import NotFound
from vision_model_repo.formats.images import encode_png
from vision_model_repo.models.catalog import ModelSpec

TASKS: dict[str, NativeTask[Any, Any, Any, Any]] = {
    "segmentation": NativeSegmentation(),
    "detection": NativeDetection(),
    "depth": NativeDepth(),
    "features": NativeFeatures(),
}


def task_of(spec: ModelSpec) -> NativeTask[Any, Any, Any, Any]:
    """How a family's requests and answers look. Raises NotFound for a task that this protocol does not speak."""
    try:
        return TASKS[spec.task]
    except KeyError:
        raise NotFound(f"{spec.model_type} does {spec.task}, for which this API has no route.") from None


@dataclass(frozen=True, slots=True)
class Inference:
    """One request for one model.

    Attributes:
        options: of the schema of the model's task.
        sources: the images as they came.
    """

    engine: Engine
    spec: ModelSpec
    options: Options
    sources: Sequence[Source]

    @property
    def task(self) -> NativeTask[Any, Any, Any, Any]:
        return task_of(self.spec)

    def check(self) -> None:
        """Raises InvalidInput or TooLarge for what can be known before any image is fetched or decoded."""
        check_count(len(self.sources), self.engine.settings)
        self.task.check(self.options, len(self.sources), self.engine.settings)

    async def kept(self) -> Inference:
        """The same with all images fetched and found good, encoded as they came: small enough to wait in a queue."""
        pictures = await read_images(self.sources, self.engine)
        for index, picture in enumerate(pictures):
            self.task.request(self.options, index, picture.pixels)
        options = self.options.model_copy(update={"images": []})
        return replace(self, options=options, sources=[picture.encoded for picture in pictures])

    async def answer(self, started: float, on_progress: Callable[[int], None] | None = None) -> bytes:
        """The answer as JSON.

        Args:
            started: when the request arrived, by `time.perf_counter`.
            on_progress: called with the number of images answered so far.
        """
        requests = await self._requests(self.sources)
        answer = await self.engine.manager.run(
            self.spec.model_type, requests, model_id=self.options.model_id, on_progress=on_progress
        )
        self.task.check_results(self.options, answer.results, self.engine.settings)
        document = await self._write(requests, answer.results)
        seconds = round(time.perf_counter() - started, 6)
        return extend(document, model_id=write(answer.model_id), processing_time=write(seconds))

    async def overlay(self) -> tuple[bytes, str]:
        """The first image with its result drawn on it, as a PNG, and the model_id that gave it."""
        requests = await self._requests(self.sources[:1])
        answer = await self.engine.manager.run(self.spec.model_type, requests, model_id=self.options.model_id)
        run = self.engine.pixels.run
        drawing = await run(self.task.draw, requests[0], answer.results[0])
        return await run(encode_png, drawing), answer.model_id

    async def _write(self, requests: Sequence[Any], results: Sequence[Any]) -> bytes:
        """Writes one image in one go, which spares a change of threads, and several side by side."""
        task, options, run = self.task, self.options, self.engine.pixels.run
        if len(results) == 1:
            return await run(lambda: task.join(options, [task.encode(options, requests[0], results[0])]))

        async def encode(request: Any, result: Any) -> Any:
            return await run(task.encode, options, request, result)

        parts = await gather_or_cancel(map(partial, repeat(encode), requests, results))
        return await run(task.join, options, parts)

    async def _requests(self, sources: Sequence[Source]) -> list[Any]:
        pictures = await read_images(sources, self.engine)
        return [self.task.request(self.options, index, picture.pixels) for index, picture in enumerate(pictures)]
