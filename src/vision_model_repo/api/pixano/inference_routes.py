"""Inference, in both contracts, with media in JSON or as files."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from random import getrandbits
from typing import Any

from fastapi import Request, Response

from vision_model_repo.api.dependencies import engine_of, read_json
from vision_model_repo.api.errors import describe
from vision_model_repo.api.pixano.body import describe_form, describe_json, read_form
from vision_model_repo.api.pixano.detection import PixanoDetection
from vision_model_repo.api.pixano.embedding import PixanoEmbedding
from vision_model_repo.api.pixano.media import Media
from vision_model_repo.api.pixano.ner import PixanoNer
from vision_model_repo.api.pixano.schemas import PixanoAnswer
from vision_model_repo.api.pixano.segmentation import PixanoSegmentation
from vision_model_repo.api.pixano.task import Capability
from vision_model_repo.api.pixano.tracking import PixanoTracking
from vision_model_repo.api.pixano.vlm import PixanoVlm
from vision_model_repo.api.pixano.wire import DOCUMENTED, V1, Dialect
from vision_model_repo.api.protocols import INFER
from vision_model_repo.api.router import DirectRoute, Router
from vision_model_repo.api.wire import write, write_object
from vision_model_repo.errors import RequestTimeout
from vision_model_repo.models.catalog import ModelSpec

PROBLEMS = describe(400, 401, 403, 404, 413, 415, 422, 429, 500, 503, 504, 507)
SPOKEN: tuple[Capability[Any], ...] = (
    PixanoSegmentation(),
    PixanoDetection(),
    PixanoTracking(),
    PixanoNer(),
    PixanoEmbedding(),
    PixanoVlm(),
)
IN_THE_DOCUMENTATION = ("segmentation", "detection", "tracking", "vlm")


def inference_router() -> Router:
    """The routes of every capability."""
    router = Router(tags=["pixano inference"], responses=PROBLEMS, route_class=DirectRoute)
    for capability in SPOKEN:
        _add_routes(router, capability, f"/v1/inference/{capability.name}", "/binary", V1)
        if capability.name in IN_THE_DOCUMENTATION:
            _add_routes(router, capability, f"/inference/{capability.name}/", "binary", DOCUMENTED)
    return router


def _add_routes(router: Router, capability: Capability[Any], path: str, binary: str, dialect: Dialect) -> None:
    async def infer(request: Request) -> Response:
        started = time.perf_counter()
        body = await read_json(request, capability.body, strict=False)
        return await _answer(request, capability, body, (), dialect, started)

    async def upload(request: Request) -> Response:
        started = time.perf_counter()
        assert capability.media is not None
        most = capability.most_files(engine_of(request).settings)
        body, files = await read_form(request, capability.body, capability.media, most=most)
        return await _answer(request, capability, body, files, dialect, started)

    described: dict[str, Any] = {"methods": ["POST"], "policy": INFER, "response_model": PixanoAnswer}
    title = capability.name.capitalize()
    router.add_api_route(path, infer, summary=title, openapi_extra=describe_json(capability.body), **described)
    if capability.media is not None:
        extra = describe_form(capability.body, capability.media)
        summary = f"{title}, media as files"
        router.add_api_route(f"{path}{binary}", upload, summary=summary, openapi_extra=extra, **described)


async def _answer(
    request: Request, capability: Capability[Any], body: Any, files: Sequence[Media], dialect: Dialect, started: float
) -> Response:
    engine = engine_of(request)
    spec = capability.find(engine, body.model)
    data = await within(spec.timeout_seconds or capability.seconds, capability.answer(engine, spec, body, files))
    document = dialect.write(data) if capability.light else await engine.pixels.run(dialect.write, data)
    return Response(_envelope(spec, capability.name, document, dialect, started), media_type="application/json")


async def within(seconds: float | None, work: Any) -> Any:
    """Work that is stopped when its time is over. Raises RequestTimeout."""
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError:
        raise RequestTimeout(f"Inference timed out after {seconds:g}s.") from None


def metadata_of(spec: ModelSpec, capability: str) -> dict[str, str]:
    """What an answer says of its model, in the same words in every contract."""
    return {"model_name": spec.model_type, "capability": capability, "model_class": spec.family or spec.model_type}


def _envelope(spec: ModelSpec, capability: str, data: bytes, dialect: Dialect, started: float) -> bytes:
    told = {
        # Clients have seen no other beginning, whatever runs the model. Nobody gains by guessing it.
        "id": f"ray-{spec.model_type}-{getrandbits(48):012x}",
        "status": "SUCCESS",
        "timestamp": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        dialect.name("processing_time"): round(time.perf_counter() - started, 6),
        "metadata": metadata_of(spec, capability),
    }
    return write_object(**{name: write(value) for name, value in told.items()}, data=data)
