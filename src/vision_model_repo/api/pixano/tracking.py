"""Tracking on the wire: where the objects that a request means are on each frame of its video.

An answer tells it twice, frame by frame and as three parallel lists: clients of package 0.7 read the one, those of 0.6
and of the documentation the other.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from vision_model_repo.api.pixano.detection import check_phrases
from vision_model_repo.api.pixano.media import Media, read_media, read_video
from vision_model_repo.api.pixano.task import Capability, capability_of
from vision_model_repo.api.pixano.tracking_body import PixanoTrackingRequest
from vision_model_repo.engine.concurrency import gather_or_cancel
from vision_model_repo.engine.engine import Engine
from vision_model_repo.engine.manager import ModelManager
from vision_model_repo.engine.trackers import ANYTHING
from vision_model_repo.engine.tracking_session import TrackingSession
from vision_model_repo.errors import InvalidInput, NotFound
from vision_model_repo.formats.video import PictureSequence, Video, open_video
from vision_model_repo.models.catalog import Catalog, ModelSpec
from vision_model_repo.settings import Settings
from vision_model_repo.tasks.clip_tracking import ClipRequest, ClipResult, Interval
from vision_model_repo.tasks.tracking import TrackedFrame, TrackPrompt

SECONDS = 600.0
"""Time for a video, where the deployment says nothing."""
SUFFIX = "-tracking"
"""Ends the name under which a model that finds objects is listed a second time, as one that tracks them: clients look
for trackers in the list, and take a model for what the first entry of its name says."""

OnProgress = Callable[[int], None]


class Track(ABC):
    """A video that is ready to be tracked, and what of it is wanted."""

    @property
    @abstractmethod
    def total(self) -> int:
        """Frames to be tracked."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Memory held until it has run."""

    @abstractmethod
    async def run(self, on_progress: OnProgress = lambda done: None) -> dict[str, Any]:
        """The `data` of the answer."""


@dataclass(frozen=True, slots=True)
class FrameByFrame(Track):
    """By a model that is shown one frame after the other.

    Attributes:
        start, stop: frames `start` to `stop` - 1 are tracked, the last one first where backward.
        only: the frames of them that are answered; all where None.
    """

    session: TrackingSession
    start: int
    stop: int
    backward: bool = False
    only: frozenset[int] | None = None

    @property
    def total(self) -> int:
        return max(self.stop - self.start, 0)

    @property
    def nbytes(self) -> int:
        return self.session.nbytes

    async def run(self, on_progress: OnProgress = lambda done: None) -> dict[str, Any]:
        answered: list[TrackedFrame] = []
        async with aclosing(self.session.track(self.start, self.stop, backward=self.backward)) as frames:
            done = 0
            async for frame in frames:
                done += 1
                on_progress(done)
                if self.only is None or frame.frame_index in self.only:
                    answered.append(frame)
        return data_of(answered)


@dataclass(frozen=True, slots=True)
class Whole(Track):
    """By a model that gets the video whole."""

    manager: ModelManager
    model_type: str
    request: ClipRequest

    @property
    def total(self) -> int:
        return self.request.video.frame_count

    @property
    def nbytes(self) -> int:
        return self.request.video.nbytes

    async def run(self, on_progress: OnProgress = lambda done: None) -> dict[str, Any]:
        last = ClipResult((), 0)
        async with aclosing(self.manager.stream(self.model_type, self.request)) as results:
            async for result, _ in results:
                if result.frames_passed > last.frames_passed:
                    on_progress(result.frames_passed)
                last = result
        return data_of(last.frames)


class PixanoTracking(Capability[PixanoTrackingRequest]):
    name: ClassVar[str] = "tracking"
    media: ClassVar[str | None] = "frames"
    seconds: ClassVar[float | None] = SECONDS
    body = PixanoTrackingRequest

    def most_files(self, limits: Settings) -> int:
        return limits.max_video_frames

    async def answer(self, engine: Engine, spec: ModelSpec, body: PixanoTrackingRequest, files: Sequence[Media]) -> Any:
        return await (await self.prepare(engine, spec, body, files)).run()

    async def prepare(
        self, engine: Engine, spec: ModelSpec, body: PixanoTrackingRequest, files: Sequence[Media]
    ) -> Track:
        """Fetches the video and checks all that can be known before it is tracked."""
        check_phrases(body.phrases, engine)
        body.check(engine.settings)
        video = await _read_video(engine, files or body.video)
        prompts = body.to_prompts((video.height, video.width))
        if spec.task == "clip_tracking":
            return Whole(engine.manager, spec.model_type, _whole(video, prompts, body))
        session = engine.tracking.open(
            video,
            spec.model_type,
            phrases=body.phrases if body.phrases or prompts else (ANYTHING,),
            prompts=prompts,
            birth_score=body.box_threshold,
        )
        return _plan(session, body)

    def find(self, engine: Engine, name: str) -> ModelSpec:
        """The model of that name: any that finds objects on an image can track them."""
        catalog = engine.manager.catalog
        able = [spec.model_type for spec in catalog.values() if can_track(spec)]
        name = name if name in catalog else name.removesuffix(SUFFIX)
        if not able or name not in catalog:
            raise NotFound(f"No model {name[:80]!r} is deployed. Models that can track: {', '.join(able) or 'none'}.")
        if not can_track(spec := catalog[name]):
            raise InvalidInput(
                f"Model {name[:80]!r} is for {capability_of(spec) or spec.task}, and cannot track. Models that can: "
                f"{', '.join(able)}."
            )
        return spec


def can_track(spec: ModelSpec) -> bool:
    return spec.sees_frames or spec.task == "clip_tracking"


def second_name(spec: ModelSpec, catalog: Catalog) -> str | None:
    """What a model that is listed for something else is called as a tracker; None for one that is not."""
    name = f"{spec.model_type}{SUFFIX}"
    return name if spec.sees_frames and capability_of(spec) != "tracking" and name not in catalog else None


async def _read_video(engine: Engine, given: Sequence[Media] | str) -> Video:
    limits = engine.video_limits
    if isinstance(given, str):
        return await engine.pixels.run(open_video, await read_video(given, engine, "video"), limits)
    if len(given) > limits.max_frames:
        raise InvalidInput(f"The video has {len(given)} frames; at most {limits.max_frames} are accepted.")
    calls = [partial(read_media, frame, engine, f"video[{index}]") for index, frame in enumerate(given)]
    return await engine.pixels.run(PictureSequence, await gather_or_cancel(calls), limits)


def _whole(video: Video, prompts: Sequence[TrackPrompt], body: PixanoTrackingRequest) -> ClipRequest:
    given = body.interval
    return ClipRequest(
        video,
        tuple(prompts),
        as_keyframes=body.keyframes is not None,
        phrases=body.phrases,
        least_score=body.box_threshold,
        propagate=body.propagate,
        interval=None if given is None else Interval(given.start_frame, given.end_frame, given.direction == "backward"),
    )


def _plan(session: TrackingSession, body: PixanoTrackingRequest) -> FrameByFrame:
    meant = [prompt.frame_index for prompt in session.prompts]
    count = session.video.frame_count
    if body.propagate is False and meant:
        return FrameByFrame(session, min(meant), max(meant) + 1, only=frozenset(meant))
    if body.interval is None:
        return FrameByFrame(session, 0 if session.phrases else min(meant), count)
    first, last = sorted((body.interval.start_frame, body.interval.end_frame))
    if first >= count:
        raise InvalidInput(f"The interval begins with frame {first}; the video has {count} frames, from 0.")
    return FrameByFrame(session, first, min(last + 1, count), body.interval.direction == "backward")


def data_of(frames: Sequence[TrackedFrame]) -> dict[str, Any]:
    """Frames in the order of tracking, and the masks on them as three lists."""
    masked = [(frame.frame_index, each) for frame in frames for each in frame.objects if each.mask is not None]
    return {
        "frames": [
            {
                "frame_index": frame.frame_index,
                "objects": [
                    {
                        "track_id": each.object_id,
                        "box": [round(float(side), 2) for side in each.box],
                        "score": None if each.score is None else round(float(each.score), 6),
                        "class": each.label,
                        "mask": each.mask,
                    }
                    for each in frame.objects
                ],
            }
            for frame in frames
        ],
        "objects_ids": [each.object_id for _, each in masked],
        "frame_indexes": [index for index, _ in masked],
        "masks": [each.mask for _, each in masked],
    }
