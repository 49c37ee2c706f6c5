"""Tracking: the same object under the same id, frame after frame."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vision_model_repo.errors import InvalidInput
from vision_model_repo.formats.masks import RunLengths
from vision_model_repo.tasks.segmentation import ObjectPrompt

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class TrackPrompt:
    """What means one object on one frame: points and a box, or its mask.

    Several prompts about one object, on different frames, correct each other: the later one counts from its frame on.

    Attributes:
        frame_index: the frame that the prompt is about.
        object_id: the caller's own, and the id of the object in every answer.
        prompt: points and box, in pixels of the frame.
        mask: of the whole frame's size; then `prompt` is empty.
    """

    frame_index: int
    object_id: int
    prompt: ObjectPrompt = field(default_factory=ObjectPrompt)
    mask: RunLengths | None = None

    def check(self, height: int, width: int, frame_count: int) -> None:
        """Raises InvalidInput for a prompt that cannot be about a frame of a video."""
        name = f"The prompt of object {self.object_id}"
        if not 0 <= self.frame_index < frame_count:
            raise InvalidInput(f"{name} is about frame {self.frame_index}; the video has {frame_count} frames, from 0.")
        clicked = bool(self.prompt.points) or self.prompt.box is not None
        if clicked == (self.mask is not None):
            raise InvalidInput(f"{name} needs either points or a box, or a mask.")
        if len(self.prompt.points) != len(self.prompt.point_labels):
            raise InvalidInput(f"{name} has {len(self.prompt.points)} points. Give a label for each of them.")
        if self.prompt.box is None and clicked and 1 not in self.prompt.point_labels:
            raise InvalidInput(f"{name} has no point on the object. Give one with label 1, or a box around the object.")
        if self.mask is not None and (self.mask.height, self.mask.width) != (height, width):
            raise InvalidInput(
                f"{name} is a mask of {self.mask.width} x {self.mask.height} pixels on a video of {width} x {height}."
            )
        if self.mask is not None and not self.mask.area:
            raise InvalidInput(f"{name} is an empty mask.")


@dataclass(frozen=True, slots=True)
class TrackedObject:
    """An object as it is seen on one frame.

    Attributes:
        box: xyxy pixels, tight around the mask where there is one.
        mask: at the frame's full size; None from models that give boxes alone.
        score: the model's belief in it on this frame, 0..1.
        label: the phrase that it answers to; None where it was meant by a prompt.
    """

    object_id: int
    box: Box
    mask: RunLengths | None = None
    score: float | None = None
    label: str | None = None


@dataclass(frozen=True, slots=True)
class TrackedFrame:
    """The objects that are seen on one frame, by id; one that is hidden, or gone, is not among them."""

    frame_index: int
    objects: tuple[TrackedObject, ...]


class TrackMemory:
    """What a model remembers of a video between two frames. Belongs to the model that first writes into it.

    Attributes:
        state: the model's own; None before the first frame.
        nbytes: memory held, on the host and on the device.
    """

    def __init__(self) -> None:
        self.state: Any = None
        self.nbytes = 0


@dataclass(frozen=True, slots=True)
class TrackRequest:
    """The next frame of a video, for models that track by themselves.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        frame_index: of the frame; a model is shown the frames in the order of tracking.
        memory: the same for all frames of a video; the answer changes it.
        prompts: those about this very frame.
        phrases: what to look for, the same on all frames.
        backward: whether frames come from the last to the first.
        digest: of the pixels, where it is known already.
    """

    image: NDArray[np.uint8]
    frame_index: int
    memory: TrackMemory
    prompts: tuple[TrackPrompt, ...] = ()
    phrases: tuple[str, ...] = ()
    backward: bool = False
    digest: str | None = None
