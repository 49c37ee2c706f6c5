"""Requests to track: objects meant on a frame of a video, or classes to look for."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from vision_model_repo.api.json_bounds import AtMost
from vision_model_repo.api.native.geometry import Box, Point, Size, fit_point
from vision_model_repo.api.pixano.detection import Classes
from vision_model_repo.api.pixano.segmentation import POINTS, clip_box
from vision_model_repo.api.pixano.task import CapabilityRequest
from vision_model_repo.api.pixano.wire import WireMask, WireModel
from vision_model_repo.errors import TooLarge
from vision_model_repo.settings import Settings
from vision_model_repo.tasks.segmentation import ObjectPrompt
from vision_model_repo.tasks.tracking import TrackPrompt

PROMPTS = AtMost(lambda limits: limits.max_track_prompts)
KEYFRAME_POINTS = AtMost(lambda limits: limits.max_track_prompts * limits.max_points, together=True)


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

    points: Annotated[list[TrackPoint], KEYFRAME_POINTS] | None = Field(
        None, description="Points on and beside the object."
    )
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

    video: Annotated[list[str], AtMost(lambda limits: limits.max_video_frames)] | str = Field(
        description="Frames, or a video file; each a URL or a data URI, or a path where settings allow one.",
        examples=["https://example.com/clip.mp4"],
    )
    objects_ids: Annotated[list[int], PROMPTS] = Field(
        default_factory=list,
        description="Ids of the objects; one that is corrected on another frame, again.",
        examples=[[1, 2]],
    )
    frame_indexes: Annotated[list[int], PROMPTS] = Field(
        default_factory=list, description="For each object, the frame on which it is meant.", examples=[[0, 0]]
    )
    keyframes: Annotated[list[TrackKeyframe], PROMPTS] | None = Field(
        None, description="For each object, what means it."
    )
    points: Annotated[list[Annotated[list[Point], POINTS]], PROMPTS] | None = Field(
        None, description="For each object, points, where there are no keyframes.", examples=[[[[80, 70]]]]
    )
    labels: Annotated[list[Annotated[list[Literal[0, 1]], POINTS]], PROMPTS] | None = Field(
        None, description="For each point, 1 on the object or 0 beside it.", examples=[[[1]]]
    )
    boxes: Annotated[list[Box], PROMPTS] | None = Field(
        None, description="For each object, a box of two corners.", examples=[[[40, 30, 120, 110]]]
    )
    propagate: bool | None = Field(
        None, description="False to answer the frames alone on which objects are meant.", examples=[True]
    )
    interval: TrackInterval | None = Field(None, description="Frames to track; else from the first prompt to the end.")
    classes: Classes | str | None = Field(
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


def _fit(prompt: TrackPrompt, size: Size) -> ObjectPrompt:
    meant, name = prompt.prompt, f"The prompt of object {prompt.object_id}"
    points = tuple(fit_point(point, size, f"{name}: point {place}") for place, point in enumerate(meant.points))
    return replace(meant, points=points, box=None if meant.box is None else clip_box(meant.box, size, f"{name}: box"))
