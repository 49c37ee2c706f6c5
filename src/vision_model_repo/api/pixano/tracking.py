"""Tracking on the wire: objects meant on a frame of a video, or classes to look for, and where they are on each frame.

An answer tells it twice, frame by frame and as three parallel lists: clients of package 0.7 read the one, those of 0.6
and of the documentation the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from vision_model_repo.api.concurrency import gather_or_cancel
from vision_model_repo.api.native.geometry import Box, Point, Size, fit_point
from vision_model_repo.api.pixano.detection import check_phrases
from vision_model_repo.api.pixano.media import Media, read_media, read_video
from vision_model_repo.api.pixano.segmentation import clip_box
from vision_model_repo.api.pixano.task import Capability, CapabilityRequest, capability_of
from vision_model_repo.api.pixano.wire import WireMask, WireModel
from vision_model_repo.engine.engine import Engine
from vision_model_repo.engine.trackers import ANYTHING
from vision_model_repo.engine.tracking_session import TrackingSession
from vision_model_repo.errors import InvalidInput, NotFound, TooLarge
from vision_model_repo.formats.video import PictureSequence, Video, open_video
from vision_model_repo.models.catalog import ModelSpec
from vision_model_repo.settings import Settings
from vision_model_repo.tasks.segmentation import ObjectPrompt
from vision_model_repo.tasks.tracking import TrackedFrame, TrackPrompt

ABLE = ("tracking", "segmentation", "detection")
"""Tasks whose models can track, by their own memory or by what they find on each frame."""
SECONDS = 600.0
"""Time for a video, where the deployment says nothing."""


class TrackPoint(WireModel):
    """A point on a frame."""

    x: float = Field(description="Pixels from the left.", examples=[80])
    y: float = Field(description="Pixels from the top.", examples=[70])
    label: Literal[0, 1] = Field(description="1 on the object, 0 beside it.", examples=[1])


class TrackBox(WireModel):
    """A box on a frame, by its corner and its size; in answers boxes have two corners."""

    x: float = Field(description="Left edge in pixels.", examples=[40])
    y: float = Field(description="Upper edge in pixels.", examples=[30])
    width: float = Field(gt=0, description="Width in pixels.", examples=[80])
    height: float = Field(gt=0, description="Height in pixels.", examples=[80])


class TrackMeaning(WireModel):
    """Points and a box, or a mask."""

    points: list[TrackPoint] | None = Field(None, description="Points on and beside the object.")
    box: TrackBox | None = Field(None, description="Box around the object.")
    mask: WireMask | None = Field(None, description="Mask of the object; then no points and no box.")

    def to_prompt(self, frame_index: int, object_id: int) -> TrackPrompt:
        points, box = self.points or [], self.box
        meant = ObjectPrompt(
            tuple((point.x, point.y) for point in points),
            tuple(point.label for point in points),
            None if box is None else (box.x, box.y, box.x + box.width, box.y + box.height),
        )
        return TrackPrompt(frame_index, object_id, meant, None if self.mask is None else self.mask.to_runs())


class TrackKeyframe(TrackMeaning):
    """What means an object, on one frame: in `prompts`, or beside it in the contract of the documentation."""

    frame_index: int = Field(ge=0, description="Index of the frame, from 0.", examples=[0])
    prompts: TrackMeaning | None = Field(None, description="Points and a box, or a mask.")

    @model_validator(mode="after")
    def _points_or_box_or_mask(self) -> Self:
        meant = self.prompts or self
        if bool(meant.points or meant.box) == bool(meant.mask):
            raise ValueError("a keyframe has points, a box or both, or else a mask")
        return self


class TrackInterval(WireModel):
    """Frames to track, the first and the last included."""

    start_frame: int = Field(ge=0, description="Where to begin.", examples=[0])
    end_frame: int = Field(ge=0, description="Where to end.", examples=[10])
    direction: Literal["forward", "backward"] = Field("forward", description="Which way.", examples=["forward"])


class PixanoTrackingRequest(CapabilityRequest):
    """A video, and what is to be tracked in it: objects that are meant, or classes."""

    video: list[str] | str = Field(
        description="Frames, or a video file; each a URL or a data URI, or a path where settings allow one.",
        examples=["https://example.com/clip.mp4"],
    )
    objects_ids: list[int] = Field(
        default_factory=list,
        description="Ids of the objects; one that is corrected on another frame, again.",
        examples=[[1, 2]],
    )
    frame_indexes: list[int] = Field(
        default_factory=list, description="For each object, the frame on which it is meant.", examples=[[0, 0]]
    )
    keyframes: list[TrackKeyframe] | None = Field(None, description="For each object, what means it.")
    points: list[list[Point]] | None = Field(
        None, description="For each object, points, where there are no keyframes.", examples=[[[[80, 70]]]]
    )
    labels: list[list[Literal[0, 1]]] | None = Field(
        None, description="For each point, 1 on the object or 0 beside it.", examples=[[[1]]]
    )
    boxes: list[Box] | None = Field(
        None, description="For each object, a box of two corners.", examples=[[[40, 30, 120, 110]]]
    )
    propagate: bool | None = Field(
        None, description="False to answer the frames alone on which objects are meant.", examples=[True]
    )
    interval: TrackInterval | None = Field(None, description="Frames to track; else from the first prompt to the end.")
    classes: list[str] | str | None = Field(
        None, description="What to look for and track; anything, where no object is meant.", examples=[["car"]]
    )
    box_threshold: float | None = Field(
        None, ge=0, le=1, description="Score from which an object is tracked.", examples=[0.5]
    )

    @model_validator(mode="after")
    def _one_prompt_for_each_object(self) -> Self:
        count = len(self.objects_ids)
        given = [each for each in (self.keyframes, self.points, self.boxes) if each is not None]
        if any(len(each) != count for each in given):
            raise ValueError("give one prompt for each object id")
        if count and not given:
            raise ValueError("give a keyframe for each object id")
        if self.keyframes is None and count != len(self.frame_indexes):
            raise ValueError("give a frame index for each object id")
        if len(set(zip(self._frame_indexes(), self.objects_ids, strict=True))) != count:
            raise ValueError("object ids must differ, but for an object that is corrected on another frame")
        return self

    def _frame_indexes(self) -> list[int]:
        return self.frame_indexes if self.keyframes is None else [each.frame_index for each in self.keyframes]

    @property
    def phrases(self) -> tuple[str, ...]:
        return (self.classes,) if isinstance(self.classes, str) else tuple(self.classes or ())

    def check(self, limits: Settings) -> None:
        """Raises TooLarge for more points on one object than are accepted."""
        meant = [frame.prompts or frame for frame in self.keyframes or []]
        most = max(map(len, [*(each.points or [] for each in meant), *(self.points or [])]), default=0)
        if most > limits.max_points:
            raise TooLarge(f"A prompt has {most} points; at most {limits.max_points} are accepted.")

    def to_prompts(self, size: Size) -> list[TrackPrompt]:
        """What is meant in a video of a size. Raises InvalidInput for what lies outside it."""
        if self.keyframes is None:
            prompts = [self._listed(index) for index in range(len(self.objects_ids))]
        else:
            pairs = zip(self.keyframes, self.objects_ids, strict=True)
            prompts = [(frame.prompts or frame).to_prompt(frame.frame_index, object_id) for frame, object_id in pairs]
        return [replace(prompt, prompt=_fit(prompt, size)) for prompt in prompts]

    def _listed(self, index: int) -> TrackPrompt:
        points = tuple(self.points[index]) if self.points else ()
        labels = tuple(self.labels[index]) if self.labels and index < len(self.labels) else (1,) * len(points)
        meant = ObjectPrompt(points, labels, self.boxes[index] if self.boxes else None)
        return TrackPrompt(self.frame_indexes[index], self.objects_ids[index], meant)


@dataclass(frozen=True, slots=True)
class Track:
    """A video that is ready to be tracked, and what of it is wanted.

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
        """Frames to be tracked."""
        return max(self.stop - self.start, 0)

    async def run(self, on_progress: Callable[[int], None] = lambda done: None) -> dict[str, Any]:
        """The `data` of the answer."""
        answered: list[TrackedFrame] = []
        async with aclosing(self.session.track(self.start, self.stop, backward=self.backward)) as frames:
            done = 0
            async for frame in frames:
                done += 1
                on_progress(done)
                if self.only is None or frame.frame_index in self.only:
                    answered.append(frame)
        return data_of(answered)


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
        able = [spec.model_type for spec in catalog.values() if spec.task in ABLE]
        if not able or name not in catalog:
            raise NotFound(f"No model {name[:80]!r} is deployed. Models that can track: {', '.join(able) or 'none'}.")
        if (spec := catalog[name]).task not in ABLE:
            raise InvalidInput(f"Model {name[:80]!r} is for {capability_of(spec) or spec.task}, and cannot track.")
        return spec


def _fit(prompt: TrackPrompt, size: Size) -> ObjectPrompt:
    meant, name = prompt.prompt, f"The prompt of object {prompt.object_id}"
    points = tuple(fit_point(point, size, f"{name}: point {place}") for place, point in enumerate(meant.points))
    return replace(meant, points=points, box=None if meant.box is None else clip_box(meant.box, size, f"{name}: box"))


async def _read_video(engine: Engine, given: Sequence[Media] | str) -> Video:
    limits = engine.video_limits
    if isinstance(given, str):
        return await engine.pixels.run(open_video, await read_video(given, engine, "video"), limits)
    if len(given) > limits.max_frames:
        raise InvalidInput(f"The video has {len(given)} frames; at most {limits.max_frames} are accepted.")
    calls = [partial(read_media, frame, engine, f"video[{index}]") for index, frame in enumerate(given)]
    return await engine.pixels.run(PictureSequence, await gather_or_cancel(calls), limits)


def _plan(session: TrackingSession, body: PixanoTrackingRequest) -> Track:
    meant = [prompt.frame_index for prompt in session.prompts]
    count = session.video.frame_count
    if body.propagate is False and meant:
        return Track(session, min(meant), max(meant) + 1, only=frozenset(meant))
    if body.interval is None:
        return Track(session, 0 if session.phrases else min(meant), count)
    first, last = sorted((body.interval.start_frame, body.interval.end_frame))
    if first >= count:
        raise InvalidInput(f"The interval begins with frame {first}; the video has {count} frames, from 0.")
    return Track(session, first, min(last + 1, count), body.interval.direction == "backward")


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
