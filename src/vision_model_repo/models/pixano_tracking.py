"""Models of Pixano's classes that track, in our engine: each gets a video whole, and can be stopped on the way."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from functools import partial
from threading import Lock, Thread
from typing import Any, SupportsIndex, overload

from pixano_inference import schemas
from pixano_inference.configs.deployment import ModelDeploymentConfig
from pixano_inference.schemas import tracking

from vision_model_repo.errors import InvalidInput
from vision_model_repo.formats.masks import coco_rle, from_coco_rle
from vision_model_repo.formats.video import Video
from vision_model_repo.models.base import Checkpoint, GenerativeModel
from vision_model_repo.models.pixano_adapters import picture_file
from vision_model_repo.models.pixano_model import id_of, interface_of, make
from vision_model_repo.tasks.clip_tracking import ClipRequest, ClipResult
from vision_model_repo.tasks.tracking import Box, TrackedFrame, TrackedObject, TrackPrompt

MOMENT_SECONDS = 0.05
"""How long the device waits for a video before it looks after what else it has to do."""
LAST_STEP_SECONDS = 10.0


class Frames(list[bytes]):
    """The frames of a video as picture files, each made when it is asked for: all of them would fill the memory.

    Attributes:
        passed: how many frames lie before the farthest that was asked for.
        ended: whether nobody wants them any more; then asking for one ends the thread.
    """

    def __init__(self, video: Video) -> None:
        # Whoever asks for the length, or whether this is a list, looks past what is defined here.
        super().__init__([b""] * video.frame_count)
        self._video = video
        self.passed = 0
        self.ended = False

    def __iter__(self) -> Iterator[bytes]:
        return self._files(0, len(self))

    def __reversed__(self) -> Iterator[bytes]:
        return (self[index] for index in reversed(range(len(self))))

    @overload
    def __getitem__(self, place: SupportsIndex) -> bytes: ...
    @overload
    def __getitem__(self, place: slice) -> list[bytes]: ...
    def __getitem__(self, place: SupportsIndex | slice) -> bytes | list[bytes]:
        if isinstance(place, slice):
            chosen = range(len(self))[place]
            return list(self._files(chosen.start, chosen.stop)) if chosen.step == 1 else [self[each] for each in chosen]
        index = range(len(self))[place]
        return next(self._files(index, index + 1))

    def _files(self, start: int, stop: int) -> Iterator[bytes]:
        for index, image in self._video.frames(start, stop):
            if self.ended:
                raise SystemExit
            self.passed = max(self.passed, index)
            yield picture_file(image)


class Call:
    """A function on a thread of its own, which can be ended between two steps of Python.

    Attributes:
        outcome: what it gives or raises.
    """

    def __init__(self, function: Callable[[], Any]) -> None:
        self.outcome: Future[Any] = Future()
        self._thread = Thread(target=self._run, args=(function,), daemon=True)

    def wait(self, seconds: float) -> None:
        """Lets it run for so long, or to its end."""
        if self._thread.ident is None:
            self._thread.start()
        wait([self.outcome], seconds)

    def end(self) -> None:
        """Raises SystemExit in it, which ends a thread without a word. Any thread may call this."""
        if self._thread.is_alive() and self._thread.ident is not None:
            thread = ctypes.c_ulong(self._thread.ident)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(SystemExit))

    def _run(self, function: Callable[[], Any]) -> None:
        try:
            self.outcome.set_result(function())
        except Exception as error:
            self.outcome.set_exception(error)
        except BaseException as error:
            # Ended, by us or by itself: nobody who waits for the outcome is to end as well.
            if not self.outcome.done():
                self.outcome.set_exception(RuntimeError(f"The model ended with {error!r}"))


class Tracking:
    """A video on its way through a plugin."""

    def __init__(self, frames: Frames, predict: Callable[[], schemas.TrackingOutput]) -> None:
        self.frames = frames
        self.call = Call(predict)

    def end(self) -> None:
        self.frames.ended = True
        self.call.end()


class PixanoTracker(GenerativeModel[ClipRequest, Tracking, Tracking, ClipResult]):
    """A plugin's model that tracks.

    Its `predict` runs on a thread of its own, so that it can be ended; never two at once.
    """

    def __init__(self, config: ModelDeploymentConfig, device: str, dtype: str) -> None:
        self.model_id = id_of(config)
        self.device, self.dtype = device, dtype
        self.max_batch = 1
        self._model = make(config)
        self.interface = interface_of(self._model)
        self._turn = Lock()

    def preprocess(self, request: ClipRequest) -> Tracking:
        frames = Frames(request.video)
        # Not validated with the frames, which would all be made for that.
        question = question_of(request).model_copy(update={"video": frames})
        return Tracking(frames, partial(self._predict, question))

    def forward(self, items: Sequence[Tracking]) -> Sequence[Tracking]:
        for item in items:
            item.call.wait(MOMENT_SECONDS)
        return items

    def finished(self, raw: Tracking) -> bool:
        return raw.call.outcome.done()

    def postprocess(self, raw: Tracking, item: Tracking) -> ClipResult:
        if not self.finished(raw):
            return ClipResult((), raw.frames.passed)
        return ClipResult(tuple(map(_frame, raw.call.outcome.result().frames)), raw.frames.passed)

    def abandon(self, item: Tracking) -> None:
        if not self.finished(item):
            item.end()

    def memory_bytes(self) -> int:
        """0: what a plugin holds, only itself knows."""
        return 0

    def unload(self) -> None:
        # One that was ended may still be on its last step. If that never ends, nor does the server wait for it.
        if self._turn.acquire(timeout=LAST_STEP_SECONDS):
            self._model.unload()
            self._turn.release()

    def _predict(self, question: schemas.TrackingInput) -> schemas.TrackingOutput:
        # One that was ended may still be on its last step.
        with self._turn:
            return self._model.predict(question)


def load(
    checkpoint: Checkpoint, *, device: str, dtype: str, config: ModelDeploymentConfig | None = None
) -> PixanoTracker:
    assert config is not None, "a plugin's model is made from its configuration"
    return PixanoTracker(config, device, dtype)


def question_of(request: ClipRequest) -> schemas.TrackingInput:
    """The plugin's input, still without frames. Raises InvalidInput for what it has no words for."""
    prompts = request.prompts
    ids = [prompt.object_id for prompt in prompts]
    if len(set(ids)) < len(ids):
        raise InvalidInput("This model takes one prompt for each object, and no correction on another frame.")
    interval = request.interval
    return schemas.TrackingInput(
        video=[],
        objects_ids=ids,
        frame_indexes=[prompt.frame_index for prompt in prompts],
        **(_keyframes(prompts) if request.as_keyframes else _lists(prompts)),
        propagate=request.propagate,
        interval=None
        if interval is None
        else tracking.TrackingInterval(
            start_frame=interval.start,
            end_frame=interval.end,
            direction="backward" if interval.backward else "forward",
        ),
        classes=list(request.phrases) or None,
        box_threshold=request.least_score,
    )


def _keyframes(prompts: Sequence[TrackPrompt]) -> dict[str, Any]:
    return {"keyframes": [_keyframe(prompt) for prompt in prompts] or None}


def _keyframe(prompt: TrackPrompt) -> tracking.TrackingKeyframe:
    meant = prompt.prompt
    points = [
        tracking.TrackingPointPrompt.model_validate({"x": round(x), "y": round(y), "label": label})
        for (x, y), label in zip(meant.points, meant.point_labels, strict=True)
    ]
    box = None
    if meant.box is not None:
        x0, y0, x1, y1 = map(round, meant.box)
        box = tracking.TrackingBoxPrompt(x=x0, y=y0, width=x1 - x0, height=y1 - y0)
    mask = None if prompt.mask is None else schemas.CompressedRLE.model_validate(coco_rle(prompt.mask))
    return tracking.TrackingKeyframe(frame_index=prompt.frame_index, points=points or None, box=box, mask=mask)


def _lists(prompts: Sequence[TrackPrompt]) -> dict[str, Any]:
    points = [[[round(x), round(y)] for x, y in prompt.prompt.points] for prompt in prompts]
    boxes = [[round(side) for side in prompt.prompt.box] for prompt in prompts if prompt.prompt.box is not None]
    return {
        "points": points if any(points) else None,
        "labels": [list(prompt.prompt.point_labels) for prompt in prompts] if any(points) else None,
        "boxes": boxes or None,
    }


def _frame(frame: schemas.TrackedFrame) -> TrackedFrame:
    return TrackedFrame(frame.frame_index, tuple(map(_object, frame.objects)))


def _object(tracked: schemas.TrackedObject) -> TrackedObject:
    mask = None
    if tracked.mask is not None:
        mask = from_coco_rle({"size": tracked.mask.size, "counts": tracked.mask.counts})
    x0, y0, x1, y1 = tracked.box or (mask and mask.box) or (0, 0, 0, 0)
    box: Box = x0, y0, x1, y1
    return TrackedObject(tracked.track_id, box, mask, tracked.score, tracked.class_name)
