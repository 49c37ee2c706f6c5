"""Videos to track: sent once, tracked frame by frame, corrected, tracked again, drawn as a clip."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import Query, Request, Response
from pydantic import BaseModel, Field
from sse_starlette import EventSourceResponse, ServerSentEvent

from vision_model_repo.api.dependencies import EngineDependency, engine_of, read_json
from vision_model_repo.api.errors import describe, refusal_of
from vision_model_repo.api.native.inference_routes import PROBLEMS
from vision_model_repo.api.native.models import Message
from vision_model_repo.api.native.tracking import (
    Prompted,
    TrackedFrameAnswer,
    TrackFormat,
    TrackingBody,
    TrackingInfo,
    TrackingOptions,
    check_options,
    info_of,
    open_session,
    to_prompts,
    write_frame,
)
from vision_model_repo.api.native.tracking_body import describe_tracking, read_tracking
from vision_model_repo.api.native.video import VideoGiven, read_video
from vision_model_repo.api.openapi import request_body
from vision_model_repo.api.protocols import INFER, RESULTS, VIDEO
from vision_model_repo.api.router import Router
from vision_model_repo.api.streams import event_stream
from vision_model_repo.api.wire import write
from vision_model_repo.engine.clips import TrackClip
from vision_model_repo.engine.engine import Engine
from vision_model_repo.engine.tracking_session import TrackingSession
from vision_model_repo.errors import InvalidInput
from vision_model_repo.formats.clips import ClipKind, check_length
from vision_model_repo.tasks.tracking import TrackedFrame

router = Router(prefix="/tracking", tags=["tracking"], responses=describe(401, 422, 429))

MEDIA: dict[ClipKind, str] = {"mp4": "video/mp4", "gif": "image/gif"}
CLIP: dict[int | str, dict[str, Any]] = {
    200: {"content": {media: {"schema": {"type": "string", "format": "binary"}} for media in MEDIA.values()}}
}

Start = Annotated[
    int | None,
    Query(ge=0, description="First frame to answer; the first that a prompt is about, or that there is, if left out."),
]
Stop = Annotated[int | None, Query(ge=1, description="One past the last frame to answer; all to the end if left out.")]


class TrackingEnd(BaseModel):
    """The last event of a stream of frames."""

    frames: int = Field(description="Frames answered.", examples=[40])
    model_id: str | None = Field(description="Checkpoint that answered.", examples=["facebook/sam3"])
    processing_time: float = Field(
        description="Time from the request's arrival to the last frame in s.", examples=[3.1]
    )


EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
        "description": "Server-sent events: `frame` for every frame, with its index as id and "
        f"{{{', '.join(TrackedFrameAnswer.model_fields)}}} as data; then `end` with "
        f"{{{', '.join(TrackingEnd.model_fields)}}}, or `error` with {{detail}}.",
    }
}


@router.post(
    "",
    policy=VIDEO,
    status_code=201,
    responses=describe(400, 403, 404, 413, 415, 503),
    openapi_extra=describe_tracking(TrackingBody, TrackingOptions),
)
async def begin_tracking(request: Request, engine: EngineDependency) -> TrackingInfo:
    """Takes a video, and what to track in it, as JSON or as a form. The tracking begins when frames are asked for."""
    options, video = await read_tracking(request, TrackingBody, TrackingOptions)
    session = await make_session(options, video, engine)
    return info_of(session, engine)


async def make_session(options: TrackingOptions, given: VideoGiven | None, engine: Engine) -> TrackingSession:
    """A new session. What can be refused without the video is refused before it is fetched."""
    if given is None:
        raise InvalidInput("There is no video. Send one as video, or its pictures as frames.")
    check_options(options, engine)
    return await open_session(options, await read_video(given, engine, options.frames_per_second), engine)


@router.get("/{session_id}", policy=RESULTS, responses=describe(404))
async def get_tracking(engine: EngineDependency, session_id: str) -> TrackingInfo:
    """What is known of a session. Asking renews its time."""
    return info_of(engine.tracking.get(session_id), engine)


@router.delete("/{session_id}", policy=RESULTS, responses=describe(404))
async def delete_tracking(engine: EngineDependency, session_id: str) -> Message:
    """Forgets a session, and stops what is being tracked of it."""
    engine.tracking.delete(session_id)
    return Message(message=f"Tracking session {session_id} deleted")


@router.post(
    "/{session_id}/prompts", policy=INFER, responses=describe(400, 404, 413, 503), openapi_extra=request_body(Prompted)
)
async def add_prompts(request: Request, engine: EngineDependency, session_id: str) -> TrackingInfo:
    """Means further objects, or corrects those that are tracked, on any frame. The next tracking heeds it."""
    session = engine.tracking.get(session_id)
    body = await read_json(request, Prompted)
    session.add_prompts(await engine.pixels.run(to_prompts, body.prompts, session.video, engine.settings))
    return info_of(session, engine)


@router.delete("/{session_id}/prompts/{object_id}", policy=RESULTS, responses=describe(404, 503))
async def forget_prompts(engine: EngineDependency, session_id: str, object_id: int) -> TrackingInfo:
    """Takes back all that was said about an object."""
    session = engine.tracking.get(session_id)
    session.forget_prompts(object_id)
    return info_of(session, engine)


@router.get("/{session_id}/frames", policy=INFER, response_class=Response, responses={**PROBLEMS, **EVENTS})
async def track_frames(
    request: Request,
    session_id: str,
    start: Start = None,
    stop: Stop = None,
    backward: Annotated[bool, Query(description="Track from the last of these frames to the first.")] = False,
    output_format: Annotated[TrackFormat, Query(description="How masks are written.")] = "rle",
) -> EventSourceResponse:
    """Tracks, and tells of every frame as soon as it is done. Hang up to stop the work.

    Where the last call ended, the next one goes on; a stretch elsewhere, or a correction, begins anew. What is wrong
    before the first frame is told by the status.
    """
    started = time.perf_counter()
    engine = await _listening(request)
    session = engine.tracking.get(session_id)
    frames = engine.tracking.watch(session, start, stop, backward=backward)
    try:
        first = await anext(frames)
        told = await engine.pixels.run(write_frame, first[1], output_format, engine.settings)
    except BaseException:
        await frames.aclose()
        raise

    async def events() -> AsyncGenerator[ServerSentEvent]:
        count = 1
        try:
            async with aclosing(frames):
                yield _frame_event(first[1], told)
                async for _, frame in frames:
                    document = await engine.pixels.run(write_frame, frame, output_format, engine.settings)
                    count += 1
                    yield _frame_event(frame, document)
        except Exception as error:
            yield ServerSentEvent(write({"detail": refusal_of(error).detail}).decode(), event="error")
            return
        seconds = round(time.perf_counter() - started, 6)
        end = TrackingEnd(frames=count, model_id=session.answered_by, processing_time=seconds)
        yield ServerSentEvent(write(end).decode(), event="end")

    return event_stream(events(), engine.settings.shutdown_grace_seconds)


@router.get("/{session_id}/clip", policy=INFER, response_class=Response, responses={**PROBLEMS, **CLIP})
async def track_clip(
    request: Request,
    session_id: str,
    kind: Annotated[ClipKind, Query(alias="format", description="What kind of file.")] = "mp4",
    start: Start = None,
    stop: Stop = None,
) -> Response:
    """The video with its objects drawn, each in the colour of its id, tracked for it."""
    engine = await _listening(request)
    session = engine.tracking.get(session_id)
    first, end = session.stretch(start, stop)
    check_length(kind, end - first)
    clip = TrackClip(engine.pixels, kind, session.video.frames_per_second)
    async with aclosing(engine.tracking.watch(session, start, stop)) as frames:
        async for image, tracked in frames:
            await clip.add(image, tracked)
    name = f'inline; filename="tracked.{kind}"'
    return Response(await clip.finish(), media_type=MEDIA[kind], headers={"Content-Disposition": name})


async def _listening(request: Request) -> Engine:
    """The engine, once the request is read to its end: from then on the server notices when the client hangs up."""
    await request.body()
    return engine_of(request)


def _frame_event(frame: TrackedFrame, document: bytes) -> ServerSentEvent:
    return ServerSentEvent(document.decode(), event="frame", id=str(frame.frame_index))
