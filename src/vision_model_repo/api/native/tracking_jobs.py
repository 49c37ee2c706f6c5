"""Tracking as a job: all frames in one answer, and a clip of them where one is wanted."""

from __future__ import annotations

import time
from contextlib import aclosing
from typing import Any

from fastapi import Request, Response
from pydantic import Field

from vision_model_repo.api.dependencies import EngineDependency
from vision_model_repo.api.errors import describe
from vision_model_repo.api.native.jobs import JobWithResult, answer_job
from vision_model_repo.api.native.tracking import TrackFormat, TrackingOptions, write_frame
from vision_model_repo.api.native.tracking_body import describe_tracking, read_tracking
from vision_model_repo.api.native.tracking_routes import make_session
from vision_model_repo.api.native.video import EXAMPLES, VideoGiven, WireVideo
from vision_model_repo.api.protocols import VIDEO
from vision_model_repo.api.router import Router
from vision_model_repo.api.wire import write, write_base64, write_list, write_object
from vision_model_repo.engine.clips import TrackClip
from vision_model_repo.engine.engine import Engine
from vision_model_repo.engine.jobs import Progress
from vision_model_repo.engine.manager import MEGABYTE
from vision_model_repo.engine.tracking_session import TrackingSession
from vision_model_repo.errors import InvalidInput, TooLarge
from vision_model_repo.formats.clips import ClipKind, check_length

router = Router(prefix="/jobs", tags=["jobs"], responses=describe(401, 422, 429))

KIND = "tracking"
STEPS = 200
"""Most changes of progress that a job tells of: each of them is kept for those who ask later."""


class TrackingJobOptions(TrackingOptions):
    """A tracking session, or what to begin one with, and what of it to track."""

    session_id: str | None = Field(
        None,
        description="A session that was begun before; then no video, and nothing about what to track.",
        examples=["0b5f3c9de2c44ac0a6d5f6a0c6c4f0b1"],
    )
    start: int | None = Field(
        None,
        ge=0,
        description="First frame to answer; the first that a prompt is about, or that there is, if left out.",
        examples=[0],
    )
    stop: int | None = Field(
        None, ge=1, description="One past the last frame to answer; all to the end if left out.", examples=[40]
    )
    backward: bool = Field(False, description="Track from the last of these frames to the first.", examples=[False])
    output_format: TrackFormat = Field("rle", description="How masks are written.", examples=["rle"])
    clip: ClipKind | None = Field(
        None, description="Also make a clip of the frames with their objects drawn.", examples=["mp4"]
    )


class TrackingJobBody(TrackingJobOptions):
    """The same, with the video."""

    video: WireVideo | None = Field(
        None, description="The video, as for `POST /tracking`; null with a session_id.", examples=EXAMPLES
    )


@router.post(
    "/submit/tracking",
    policy=VIDEO,
    response_model=JobWithResult,
    responses=describe(400, 403, 404, 413, 415, 503),
    openapi_extra=describe_tracking(TrackingJobBody, TrackingJobOptions),
)
async def submit_tracking(request: Request, engine: EngineDependency) -> Response:
    """Tracks later. What can be known before the first frame is checked before the job is taken.

    The result has `session_id` (good for corrections until it expires), `model_id`, `frames` as the stream of the
    session tells them, `clip` (`format` and base64 `data`, or null) and `processing_time`.
    """
    engine.jobs.check_room()
    options, video = await read_tracking(request, TrackingJobBody, TrackingJobOptions)
    session = await _session(options, video, engine)
    start, stop = session.stretch(options.start, options.stop, backward=options.backward)
    if options.clip is not None:
        check_length(options.clip, stop - start)

    async def work(on_progress: Progress) -> bytes:
        return await _track(session, options, engine, on_progress, stop - start)

    return answer_job(engine.jobs.submit(KIND, work, total=stop - start, nbytes=session.nbytes))


async def _session(options: TrackingJobOptions, video: VideoGiven | None, engine: Engine) -> TrackingSession:
    if options.session_id is None:
        return await make_session(options, video, engine)
    if video is not None or options.phrases or options.prompts:
        raise InvalidInput("A session_id stands for a video and what to track in it. Give one or the other.")
    return engine.tracking.get(options.session_id)


async def _track(
    session: TrackingSession, options: TrackingJobOptions, engine: Engine, on_progress: Progress, total: int
) -> bytes:
    started = time.perf_counter()
    documents: list[bytes] = []
    bytes_left = engine.settings.max_job_results_mb * MEGABYTE
    clip = TrackClip(engine.pixels, options.clip, session.video.frames_per_second) if options.clip else None
    frames = engine.tracking.watch(session, options.start, options.stop, backward=options.backward)
    async with aclosing(frames):
        async for image, frame in frames:
            documents.append(await engine.pixels.run(write_frame, frame, options.output_format, engine.settings))
            bytes_left -= len(documents[-1])
            if bytes_left < 0:
                raise TooLarge("The result is too large to keep. Ask for fewer frames, or output_format rle.")
            if clip is not None:
                await clip.add(image, frame)
            if len(documents) * STEPS // total != (len(documents) - 1) * STEPS // total:
                on_progress(len(documents))
    members: dict[str, Any] = {"session_id": session.session_id, "model_id": session.answered_by}
    drawn = b"null"
    if clip is not None:
        drawn = write_object(format=write(options.clip), data=write_base64(await clip.finish()))
    return write_object(
        **{name: write(value) for name, value in members.items()},
        frames=write_list(documents),
        clip=drawn,
        processing_time=write(round(time.perf_counter() - started, 6)),
    )
