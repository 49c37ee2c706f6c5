"""Jobs: inference that a client comes back for."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Query, Request, Response
from pydantic import BaseModel, Field
from sse_starlette import EventSourceResponse, ServerSentEvent

from vision_model_repo.api.dependencies import EngineDependency
from vision_model_repo.api.errors import describe
from vision_model_repo.api.native.body import FORM, JSON, describe_body, read_inference
from vision_model_repo.api.native.inference import TASKS
from vision_model_repo.api.native.models import Message
from vision_model_repo.api.protocols import INFER, RESULTS
from vision_model_repo.api.router import Router
from vision_model_repo.api.streams import event_stream
from vision_model_repo.api.wire import extend, write, write_object
from vision_model_repo.engine.jobs import JobState, JobStatus, Progress

router = Router(prefix="/jobs", tags=["jobs"], responses=describe(401, 422, 429))

EVENTS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}, "description": "Server-sent events."}
}


class Job(BaseModel):
    """A job, as it is now."""

    job_id: str = Field(description="Its id.", examples=["1f6d0c1e0c2a4b0d9c54f1f2b5a7e3aa"])
    model_type: str = Field(description="Model family that it runs, or tracking.", examples=["sam3"])
    status: JobStatus = Field(description="Where it stands.", examples=["running"])
    created_at: datetime = Field(description="When it was submitted, UTC.", examples=["2026-01-31T12:00:00.000000Z"])
    completed_at: datetime | None = Field(
        description="When it finished, in whatever way; null before.", examples=["2026-01-31T12:00:04.200000Z"]
    )
    images_done: int = Field(description="Images, or frames of a video, finished.", examples=[3])
    images_total: int = Field(description="Images given, or frames to track.", examples=[8])
    error: str | None = Field(description="Why it failed or was cancelled.", examples=[None])


class JobWithResult(Job):
    """A job and, once it is completed, its result."""

    result: dict[str, Any] | None = Field(
        description="What the inference route would have answered; null before the job is completed.",
        examples=[None],
    )


def job_of(state: JobState) -> Job:
    return Job(
        job_id=state.job_id,
        model_type=state.kind,
        status=state.status,
        created_at=_moment(state.created_at),
        completed_at=None if state.completed_at is None else _moment(state.completed_at),
        images_done=state.done,
        images_total=state.total,
        error=state.error,
    )


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def answer_job(state: JobState) -> Response:
    """The job with its result as the bytes that were stored, neither parsed nor written again."""
    document = extend(write(job_of(state)), result=state.result or b"null")
    return Response(document, media_type="application/json")


@router.post(
    "/submit/{model_type}",
    policy=INFER,
    response_model=JobWithResult,
    responses=describe(400, 404, 413, 415, 503),
    openapi_extra=describe_body(tuple(TASKS.values()), (JSON, FORM)),
)
async def submit(request: Request, engine: EngineDependency, model_type: str) -> Response:
    """Takes a request as for the model's inference route and runs it later. It is checked before it is taken."""
    spec = engine.manager.catalog[model_type]
    engine.jobs.check_room()
    given = await read_inference(request, spec, (JSON, FORM))
    engine.manager.check_available(spec.model_type, given.options.model_id)
    inference = await given.kept()

    async def work(on_progress: Progress) -> bytes:
        return await inference.answer(time.perf_counter(), on_progress)

    held = sum(len(source) for source in inference.sources if isinstance(source, bytes))
    return answer_job(engine.jobs.submit(spec.model_type, work, total=len(inference.sources), nbytes=held))


@router.get("", policy=RESULTS, response_model=dict[str, Job])
async def list_jobs(
    engine: EngineDependency,
    status: Annotated[JobStatus | None, Query(description="Only jobs that stand there.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="Most jobs in the answer.")] = 100,
    offset: Annotated[int, Query(ge=0, description="Jobs to skip.")] = 0,
) -> Response:
    """Jobs by id, newest first, without their results."""
    states = engine.jobs.list(status=status, limit=limit, offset=offset)
    document = write_object(**{state.job_id: write(job_of(state)) for state in states})
    return Response(document, media_type="application/json")


@router.get("/{job_id}", policy=RESULTS, response_model=JobWithResult, responses=describe(404))
async def get_job(engine: EngineDependency, job_id: str) -> Response:
    """A job and, once it is completed, its result."""
    return answer_job(engine.jobs.get(job_id))


@router.delete("/{job_id}", policy=RESULTS, responses=describe(404))
async def delete_job(engine: EngineDependency, job_id: str) -> Message:
    """Drops a waiting job, cancels a running one as soon as the model can stop, forgets a finished one."""
    await engine.jobs.delete(job_id)
    return Message(message=f"Job {job_id} deleted")


@router.get("/{job_id}/events", policy=RESULTS, response_class=Response, responses={**EVENTS, **describe(404)})
async def job_events(engine: EngineDependency, job_id: str) -> EventSourceResponse:
    """Server-sent events: the job, without its result, at every change of status and progress; ends with the job."""
    # Found here, and not when the first event is sent: the job may be deleted before.
    states = engine.jobs.events(job_id)

    async def events() -> AsyncGenerator[ServerSentEvent]:
        last = None
        async for state in states:
            event = "progress" if state.status is last else "status"
            last = state.status
            yield ServerSentEvent(write(job_of(state)).decode(), event=event)

    return event_stream(events(), engine.settings.shutdown_grace_seconds)
