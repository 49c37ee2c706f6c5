"""Tracking as a job: submitted, looked at, cancelled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from fastapi import Request, Response
from pydantic import Field

from vision_model_repo.api.dependencies import EngineDependency, engine_of, read_json
from vision_model_repo.api.errors import describe
from vision_model_repo.api.pixano.body import describe_form, describe_json, read_form
from vision_model_repo.api.pixano.inference_routes import metadata_of, within
from vision_model_repo.api.pixano.media import Media
from vision_model_repo.api.pixano.tracking import SECONDS, PixanoTracking
from vision_model_repo.api.pixano.tracking_body import PixanoTrackingRequest
from vision_model_repo.api.pixano.wire import DOCUMENTED, V1, Dialect, WireModel
from vision_model_repo.api.protocols import INFER, RESULTS
from vision_model_repo.api.router import Router
from vision_model_repo.api.wire import write, write_object
from vision_model_repo.engine.jobs import JobState, JobStatus, Progress
from vision_model_repo.errors import NotFound

TRACKING = PixanoTracking()
STATUSES = {
    JobStatus.PENDING: "running",
    JobStatus.RUNNING: "running",
    JobStatus.COMPLETED: "completed",
    JobStatus.FAILED: "failed",
    JobStatus.CANCELLED: "canceled",
}
"""Clients know no job that waits, and spell with one l."""


class PixanoJob(WireModel):
    """A job, as it is now."""

    job_id: str = Field(description="Its id.", examples=["job-1f6d0c1e0c2a4b0d9c54f1f2b5a7e3aa"])
    status: Literal["running", "completed", "failed", "canceled"] = Field(
        description="Where it stands; one that waits is called running.", examples=["running"]
    )
    detail: str | None = Field(description="Why it failed or was cancelled.", examples=[None])
    data: dict[str, Any] | None = Field(description="The answer, once it is completed.", examples=[None])
    metadata: dict[str, str] = Field(description="Which model tracks.", examples=[{"model_name": "sam3"}])
    timestamp: datetime = Field(
        description="When it was submitted or, once it has ended, when it did.", examples=["2026-01-01T12:00:00Z"]
    )
    processing_time: float = Field(description="Time from submission to the end in s; 0 before.", examples=[0.0])
    progress: float = Field(description="Share of the frames that are done, 0..1.", examples=[0.25])


@dataclass(frozen=True, slots=True)
class JobPaths:
    """Where and how one contract speaks of jobs."""

    submit: str
    upload: str
    job: str
    prefix: str
    dialect: Dialect


CONTRACTS = (
    JobPaths("/v1/inference/tracking/jobs", "/v1/inference/tracking/jobs/binary", "/v1/jobs/{job_id}", "job-", V1),
    JobPaths(
        "/inference/tracking/jobs/",
        "/inference/tracking/jobs/binary",
        "/inference/tracking/jobs/{job_id}",
        "tracking-job-",
        DOCUMENTED,
    ),
)


def jobs_router() -> Router:
    """The routes of jobs, in both contracts."""
    router = Router(tags=["pixano jobs"], responses=describe(400, 401, 404, 413, 415, 422, 429, 503))
    for paths in CONTRACTS:
        _add_routes(router, paths)
    return router


def _add_routes(router: Router, paths: JobPaths) -> None:
    async def submit(request: Request) -> Response:
        engine_of(request).jobs.check_room()
        body = await read_json(request, PixanoTrackingRequest, strict=False)
        return _told(await _submit(request, body, (), paths), paths, 202)

    async def upload(request: Request) -> Response:
        engine = engine_of(request)
        engine.jobs.check_room()
        most = TRACKING.most_files(engine.settings)
        body, files = await read_form(request, PixanoTrackingRequest, "frames", most=most)
        return _told(await _submit(request, body, files, paths), paths, 202)

    async def look(engine: EngineDependency, job_id: str) -> Response:
        return _told(engine.jobs.get(_own(job_id, paths)), paths)

    async def cancel(engine: EngineDependency, job_id: str) -> Response:
        return _told(await engine.jobs.cancel(_own(job_id, paths)), paths)

    described: dict[str, Any] = {"response_model": PixanoJob, "policy": RESULTS}
    submitting: dict[str, Any] = {**described, "methods": ["POST"], "policy": INFER, "status_code": 202}
    extra, form = describe_json(PixanoTrackingRequest), describe_form(PixanoTrackingRequest, "frames")
    # Before the path of a job, which would take "binary" for an id.
    router.add_api_route(paths.submit, submit, summary="Tracking job", openapi_extra=extra, **submitting)
    router.add_api_route(
        paths.upload, upload, summary="Tracking job, frames as files", openapi_extra=form, **submitting
    )
    router.add_api_route(paths.job, look, methods=["GET"], summary="A job, as it is now", **described)
    router.add_api_route(paths.job, cancel, methods=["DELETE"], summary="Cancel a job, which stops it", **described)


def _own(job_id: str, paths: JobPaths) -> str:
    """Raises NotFound for what no job of this contract can be called."""
    if not job_id.startswith(paths.prefix):
        raise NotFound(f"No job {job_id[:80]!r}. Ids of tracking jobs begin with {paths.prefix}.")
    return job_id


async def _submit(request: Request, body: PixanoTrackingRequest, files: Sequence[Media], paths: JobPaths) -> JobState:
    engine = engine_of(request)
    spec = TRACKING.find(engine, body.model)
    engine.manager.check_available(spec.model_type)
    track = await TRACKING.prepare(engine, spec, body, files)

    async def work(on_progress: Progress) -> bytes:
        data = await within(spec.timeout_seconds or SECONDS, track.run(on_progress))
        document = await engine.pixels.run(paths.dialect.write, data)
        return write_object(data=document, metadata=write(metadata_of(spec, TRACKING.name)))

    return engine.jobs.submit(spec.model_type, work, total=track.total, nbytes=track.nbytes, prefix=paths.prefix)


def _told(state: JobState, paths: JobPaths, status_code: int = 200) -> Response:
    ended = state.completed_at
    told = {
        paths.dialect.name("job_id"): state.job_id,
        "status": STATUSES[state.status],
        "detail": state.error,
        "timestamp": datetime.fromtimestamp(ended or state.created_at, UTC).isoformat().replace("+00:00", "Z"),
        paths.dialect.name("processing_time"): round((ended or state.created_at) - state.created_at, 6),
        "progress": round(state.done / max(state.total, 1), 4),
    }
    document = write_object(**{name: write(value) for name, value in told.items()})
    rest = state.result or write_object(data=b"null", metadata=write({"model_name": state.kind}))
    return Response(document[:-1] + b"," + rest[1:], status_code, media_type="application/json")
