"""Tracking on the wire: what is to be followed through a video, and where it is on each frame."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from vision_model_repo.api.json_bounds import AtMost
from vision_model_repo.api.native.geometry import Box, Point, fit_box, fit_point
from vision_model_repo.api.native.masks import MASK_WRITERS, Corner, OutputFormat, RunLengthMask, check_masks
from vision_model_repo.api.native.models import ModelType
from vision_model_repo.api.native.prompts import Phrases, check_phrase
from vision_model_repo.api.native.task import Options, Unit
from vision_model_repo.api.native.video import EXAMPLES, WireVideo
from vision_model_repo.api.wire import extend, write, write_list, write_object
from vision_model_repo.engine.engine import Engine
from vision_model_repo.engine.tracking_session import TrackingSession
from vision_model_repo.errors import InvalidInput, TooLarge
from vision_model_repo.formats.images import decode_base64, decode_image
from vision_model_repo.formats.masks import RunLengths, encode_mask, from_coco_rle
from vision_model_repo.formats.video import Video
from vision_model_repo.settings import Settings
from vision_model_repo.tasks.segmentation import ObjectPrompt
from vision_model_repo.tasks.tracking import TrackedFrame, TrackedObject, TrackPrompt

TrackFormat = OutputFormat | Literal["none"]
MASK_FIELDS: dict[OutputFormat, str] = {
    "rle": "mask_rle",
    "polygons": "mask_polygon",
    "dense": "mask",
    "png": "mask_png",
}


POINTS = AtMost(lambda limits: limits.max_points)


class ObjectOnFrame(BaseModel):
    """What means one object on one frame: points, a box or both, or else its mask."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    object_id: int = Field(
        ge=0,
        le=2**31 - 1,
        description="Your own id of the object, under which it is answered; or the id of an object that was found, to "
        "correct it.",
        examples=[1],
    )
    frame_index: int = Field(0, ge=0, description="Frame that this is about, from 0.", examples=[0])
    points: Annotated[list[Point], POINTS] = Field(
        default_factory=list, description="Points `[x, y]` in pixels of the frame.", examples=[[[80, 70]]]
    )
    point_labels: Annotated[list[Literal[0, 1]], POINTS] | None = Field(
        None,
        description="For each point, 1 if it lies on the object (the default) or 0 if it lies beside it.",
        examples=[[1]],
    )
    box: Box | None = Field(
        None, description="Box `[x0, y0, x1, y1]` around the object in pixels.", examples=[[40, 30, 120, 110]]
    )
    mask: RunLengthMask | str | None = Field(
        None,
        description="Mask of the object: COCO's compressed run lengths, or base64 of a picture that is white where it "
        "is.",
        examples=[{"size": [480, 640], "counts": "`n\\\\4>1N2000O1"}],
    )


class Prompted(BaseModel):
    """Objects that are meant, or corrected."""

    model_config = ConfigDict(extra="forbid")

    prompts: Annotated[list[ObjectOnFrame], AtMost(lambda limits: limits.max_track_prompts)] = Field(
        min_length=1,
        description="One or more objects on frames. What is said of an object on a second frame corrects it from there "
        "on; on the same frame it replaces what was said before.",
        examples=[[{"object_id": 1, "frame_index": 20, "points": [[90, 75]]}]],
    )


class TrackingOptions(Options):
    """What to track in a video: all that phrases name, objects that are meant, or both."""

    repeated: ClassVar[frozenset[str]] = frozenset({"phrases"})

    model_type: ModelType = Field(
        "sam3",
        description="Model that tracks: one with a memory of its own, or any that segments or detects, whose findings "
        "are then followed from frame to frame.",
        examples=["sam3", "sam2_video"],
    )
    phrases: Phrases = Field(default_factory=list, description="What to look for.", examples=[["red cube", "person"]])
    prompts: Annotated[list[ObjectOnFrame], AtMost(lambda limits: limits.max_track_prompts)] = Field(
        default_factory=list,
        description="Objects that are meant, each on a frame.",
        examples=[[{"object_id": 1, "frame_index": 0, "points": [[80, 70]]}]],
    )
    threshold: Unit | None = Field(
        None,
        description="Least score, 0..1, at which an object that a phrase names is taken up; TRACK_BIRTH_SCORE if left "
        "out. Models with a memory of their own do not heed it.",
        examples=[0.5],
    )
    frames_per_second: float = Field(
        10.0, gt=0, le=240, description="Pace of play of a video that comes as images.", examples=[10]
    )


class TrackingBody(TrackingOptions):
    """A video, and what to track in it."""

    video: WireVideo = Field(
        description="A file (mp4, mov, webm, mkv, avi, gif): a base64 string, an `http(s)` URL, or an object that says "
        "which of the two it is. Or a list of images of one size, its frames, in every form that an image has.",
        examples=EXAMPLES,
    )


class PromptPlace(BaseModel):
    """An object that is meant on a frame."""

    object_id: int = Field(description="Its id.", examples=[1])
    frame_index: int = Field(description="The frame, from 0.", examples=[0])


class TrackingInfo(BaseModel):
    """A tracking session: a video, and what is to be tracked in it."""

    session_id: str = Field(description="Its id.", examples=["0b5f3c9de2c44ac0a6d5f6a0c6c4f0b1"])
    width: int = Field(description="Width of the frames in pixels, upright.", examples=[640])
    height: int = Field(description="Height of the frames in pixels, upright.", examples=[480])
    frame_count: int = Field(description="Number of frames.", examples=[300])
    frames_per_second: float = Field(description="Pace of play.", examples=[25.0])
    expires_at: datetime = Field(
        description="When it will be forgotten if it is not used until then, UTC; earlier only when newer sessions "
        "need the room.",
        examples=["2026-01-31T12:15:00.000000Z"],
    )
    model_type: str = Field(description="What tracks.", examples=["sam3"])
    model_id: str | None = Field(
        description="Checkpoint that answered last, or is to answer; null before the first frame where none was asked "
        "for.",
        examples=["facebook/sam3"],
    )
    phrases: list[str] = Field(description="What is looked for.", examples=[["red cube"]])
    prompts: list[PromptPlace] = Field(description="What is meant, and where.")
    tracking: bool = Field(description="Whether it is being tracked at this moment.", examples=[False])
    memory_mb: float = Field(
        description="Memory held, for the video and what is remembered of it, in MB.", examples=[3.2]
    )


class TrackedObjectAnswer(BaseModel):
    """An object on one frame. Of the mask's forms, the requested one is present, where the model gives masks."""

    object_id: int = Field(description="The same on all frames.", examples=[1])
    label: str | None = Field(
        description="Phrase that it answers to; null where it is meant by a prompt.", examples=["red cube"]
    )
    score: float | None = Field(description="Belief that it is there, 0..1.", examples=[0.93])
    box: list[float] = Field(description="Box `[x0, y0, x1, y1]` in pixels.", examples=[[40.0, 30.0, 120.0, 110.0]])
    mask_rle: RunLengthMask | None = Field(None, description="Mask for output_format rle.")
    mask_polygon: list[list[Corner]] | None = Field(
        None,
        description="Mask for output_format polygons: the rings of its outline, in pixels, holes included.",
        examples=[[[[40, 30], [120, 30], [120, 110], [40, 110]]]],
    )
    mask: list[list[int]] | None = Field(
        None, description="Mask for output_format dense: rows of 0 and 1.", examples=[[[0, 1], [1, 1]]]
    )
    mask_png: str | None = Field(
        None,
        description="Mask for output_format png: base64 of a one-bit PNG, white where set.",
        examples=["iVBORw0KGgo..."],
    )


class TrackedFrameAnswer(BaseModel):
    """The objects that are seen on one frame; one that is hidden, or gone, is not among them."""

    frame_index: int = Field(description="The frame, from 0.", examples=[17])
    objects: list[TrackedObjectAnswer] = Field(description="What is seen, by id.")


async def open_session(options: TrackingOptions, video: Video, engine: Engine) -> TrackingSession:
    """Begins a session that is kept.

    Raises InvalidInput or TooLarge: the model cannot track, or a prompt makes no sense for this video.
    """
    prompts = await engine.pixels.run(to_prompts, options.prompts, video, engine.settings)
    return engine.tracking.keep(
        engine.tracking.open(
            video,
            options.model_type,
            options.model_id,
            phrases=options.phrases,
            prompts=prompts,
            birth_score=options.threshold,
        )
    )


def check_options(options: TrackingOptions, engine: Engine) -> None:
    """Raises NotFound, InvalidInput or TooLarge for what can be known without seeing the video."""
    engine.manager.check_available(options.model_type, options.model_id)
    for index, phrase in enumerate(options.phrases):
        check_phrase(phrase, f"phrases[{index}]", engine.settings)
    if not options.phrases and not options.prompts:
        raise InvalidInput("Say what to track: give phrases, or prompts with points, a box or a mask on a frame.")


def to_prompts(given: list[ObjectOnFrame], video: Video, limits: Settings) -> list[TrackPrompt]:
    """Prompts as the engine takes them. Decodes masks, and is for a pixel thread.

    Raises:
        InvalidInput, TooLarge: a prompt cannot be about a frame of the video; the message names it.
    """
    return [_to_prompt(each, f"prompts[{index}]", video, limits) for index, each in enumerate(given)]


def _to_prompt(given: ObjectOnFrame, name: str, video: Video, limits: Settings) -> TrackPrompt:
    size = video.height, video.width
    if len(given.points) > limits.max_points:
        raise TooLarge(f"{name}.points has {len(given.points)} points; at most {limits.max_points} are accepted.")
    points = tuple(fit_point(point, size, f"{name}.points[{place}]") for place, point in enumerate(given.points))
    labels = (1,) * len(points) if given.point_labels is None else tuple(given.point_labels)
    box = None if given.box is None else fit_box(given.box, size, f"{name}.box")
    try:
        mask = None if given.mask is None else _decode_mask(given.mask, limits)
        prompt = TrackPrompt(given.frame_index, given.object_id, ObjectPrompt(points, labels, box), mask)
        prompt.check(*size, video.frame_count)
    except InvalidInput as error:
        raise InvalidInput(f"{name}: {error.message}") from None
    return prompt


def _decode_mask(given: RunLengthMask | str, limits: Settings) -> RunLengths:
    if isinstance(given, RunLengthMask):
        return from_coco_rle(given.model_dump())
    pixels = decode_image(decode_base64(given), max_pixels=limits.max_image_pixels)
    return encode_mask(pixels[..., 0] > 127)


def info_of(session: TrackingSession, engine: Engine) -> TrackingInfo:
    video = session.video
    return TrackingInfo(
        session_id=session.session_id,
        width=video.width,
        height=video.height,
        frame_count=video.frame_count,
        frames_per_second=round(video.frames_per_second, 3),
        expires_at=datetime.fromtimestamp(engine.tracking.expires_at, UTC),
        model_type=session.model_type,
        model_id=session.answered_by or session.model_id,
        phrases=list(session.phrases),
        prompts=[PromptPlace(object_id=each.object_id, frame_index=each.frame_index) for each in session.prompts],
        tracking=session.tracking,
        memory_mb=round(session.count() / 2**20, 3),
    )


def write_frame(frame: TrackedFrame, output_format: TrackFormat, limits: Settings) -> bytes:
    """A frame as JSON. For a pixel thread. Raises TooLarge for masks that would be too many numbers."""
    if output_format != "none":
        check_masks([each.mask for each in frame.objects if each.mask is not None], output_format, limits)
    objects = write_list(_write_object(each, output_format) for each in frame.objects)
    return write_object(frame_index=write(frame.frame_index), objects=objects)


def _write_object(found: TrackedObject, output_format: TrackFormat) -> bytes:
    members: dict[str, Any] = {
        "object_id": found.object_id,
        "label": found.label,
        "score": None if found.score is None else round(float(found.score), 6),
        "box": [round(float(side), 2) for side in found.box],
    }
    if output_format == "none" or found.mask is None:
        return write(members)
    _, write_mask = MASK_WRITERS[output_format]
    return extend(write(members), **{MASK_FIELDS[output_format]: write_mask(found.mask)})
