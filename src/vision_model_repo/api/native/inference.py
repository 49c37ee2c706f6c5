"""The one way from a request to its answer; routes, uploads, overlays and jobs all take it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import repeat
from typing import Any

from vision_model_repo.api.native.answer import Answer, summarize
from vision_model_repo.api.native.chat import NativeChat
from vision_model_repo.api.native.classification import NativeClassification
from vision_model_repo.api.native.depth import NativeDepth
from vision_model_repo.api.native.detection import NativeDetection
from vision_model_repo.api.native.features import NativeFeatures
from vision_model_repo.api.native.images import Source, read_images
from vision_model_repo.api.native.segmentation import NativeSegmentation
from vision_model_repo.api.native.task import NativeTask, Options, check_count
from vision_model_repo.api.wire import extend, write, write_npz
from vision_model_repo.engine import manager
from vision_model_repo.engine.concurrency import gather_or_cancel
from vision_model_repo.engine.engine import Engine
from vision_model_repo.errors import InvalidInput, NotFound
from vision_model_repo.formats.images import encode_png
from vision_model_repo.models.catalog import ModelSpec

TASKS: dict[str, NativeTask[Any, Any, Any, Any]] = {
    "segmentation": NativeSegmentation(),
    "detection": NativeDetection(),
    "depth": NativeDepth(),
    "features": NativeFeatures(),
    "classification": NativeClassification(),
    "chat": NativeChat(),
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
            self.task.request(self.options, index, picture)
        options = self.options.model_copy(update={"images": []})
        return replace(self, options=options, sources=[picture.encoded for picture in pictures])

    async def answer(self, started: float, on_progress: Callable[[int], None] | None = None) -> bytes:
        """The answer as JSON.

        Args:
            started: when the request arrived, by `time.perf_counter`.
            on_progress: called with the number of images answered so far.
        """
        run = await self._run(self.sources, on_progress)
        written_from = time.perf_counter()
        self.task.check_results(self.options, run.results, self.engine.settings)
        document = await self._write(run)
        told = run.summary(started, written_from)
        return extend(
            document,
            model_id=write(told.model_id),
            processing_time=write(told.processing_time),
            timings=write(told.timings),
            cache_hits=write(told.cache_hits),
        )

    async def archive(self, started: float) -> tuple[bytes, Answer]:
        """The answer's arrays as an .npz file, and what else there is to say."""
        run = await self._run(self.sources)
        written_from = time.perf_counter()
        archive = await self.engine.pixels.run(
            lambda: write_npz(self.task.arrays(self.options, run.requests, run.results, self.engine.settings))
        )
        return archive, run.summary(started, written_from)

    async def overlay(self, started: float) -> tuple[bytes, Answer]:
        """The first image with its result drawn on it, as a PNG, and what else there is to say."""
        run = await self._run(self.sources[:1])
        written_from = time.perf_counter()
        picture = await self.engine.pixels.run(lambda: encode_png(self.task.draw(run.requests[0], run.results[0])))
        return picture, run.summary(started, written_from)

    async def _run(self, sources: Sequence[Source], on_progress: Callable[[int], None] | None = None) -> _Run:
        pictures = await read_images(sources, self.engine)
        requests = [self.task.request(self.options, index, picture) for index, picture in enumerate(pictures)]
        try:
            answer = await self.engine.manager.run(
                self.spec.model_type, requests, model_id=self.options.model_id, on_progress=on_progress
            )
        except InvalidInput as error:
            if error.index is None:
                raise
            raise InvalidInput(f"images[{error.index}]: {error.message}") from error
        results = self.task.keep(answer.results, self.engine.masks)
        return _Run(requests, results, answer, sum(picture.seconds for picture in pictures))

    async def _write(self, answered: _Run) -> bytes:
        """Writes one image in one go, which spares a change of threads, and several side by side."""
        task, options, run = self.task, self.options, self.engine.pixels.run
        requests, results = answered.requests, answered.results
        if task.light:
            return task.join(options, list(map(task.encode, repeat(options), requests, results)))
        if len(results) == 1:
            return await run(lambda: task.join(options, [task.encode(options, requests[0], results[0])]))

        async def encode(request: Any, result: Any) -> Any:
            return await run(task.encode, options, request, result)

        parts = await gather_or_cancel(map(partial, repeat(encode), requests, results))
        return await run(task.join, options, parts)


@dataclass(frozen=True, slots=True)
class _Run:
    """What the model was asked and has answered, by image, and the seconds that decoding took."""

    requests: Sequence[Any]
    results: Sequence[Any]
    answer: manager.Answer
    decoding: float

    def summary(self, started: float, written_from: float) -> Answer:
        writing = time.perf_counter() - written_from
        return summarize(self.answer, decoding=self.decoding, writing=writing, started=started)
