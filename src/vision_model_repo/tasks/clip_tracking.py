"""Tracking through a whole video at once, for models that go through it in a way of their own."""

from __future__ import annotations

from dataclasses import dataclass

from vision_model_repo.formats.video import Video
from vision_model_repo.tasks.tracking import TrackedFrame, TrackPrompt


@dataclass(frozen=True, slots=True)
class Interval:
    """Frames `start` to `end`, the last one included; the last one first where backward."""

    start: int
    end: int
    backward: bool = False


@dataclass(frozen=True, slots=True)
class ClipRequest:
    """A video, and what is to be tracked in it.

    Attributes:
        prompts: objects that are meant; none where the model finds them itself.
        as_keyframes: whether prompts were given one by one, and not as parallel lists; some models read one form alone.
        phrases: what to look for; what the model knows, where empty.
        least_score: of an object that is taken up; None for the model's own.
        propagate: whether objects are followed beyond the frames on which they are meant; None for the model's own.
        interval: frames to track; None for what the model thinks right.
    """

    video: Video
    prompts: tuple[TrackPrompt, ...] = ()
    as_keyframes: bool = True
    phrases: tuple[str, ...] = ()
    least_score: float | None = None
    propagate: bool | None = None
    interval: Interval | None = None


@dataclass(frozen=True, slots=True)
class ClipResult:
    """What has been reached.

    Attributes:
        frames: in the order of tracking; none before the end.
        frames_passed: how many frames the model has left behind.
    """

    frames: tuple[TrackedFrame, ...]
    frames_passed: int
