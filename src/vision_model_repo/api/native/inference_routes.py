"""Inference, three ways: images in JSON, images as files, and a picture of the result.

The first two answer as JSON or, to an Accept header that prefers it, as a numpy archive.
"""

from __future__ import annotations

import time
from typing import Any

from fastapi import Request, Response

from vision_model_repo.api.dependencies import prefers
from vision_model_repo.api.errors import describe
from vision_model_repo.api.native.answer import headers_of
from vision_model_repo.api.native.body import FORM, JSON, describe_body, read_inference
from vision_model_repo.api.native.inference import TASKS
from vision_model_repo.api.native.task import NativeTask
from vision_model_repo.api.openapi import binary
from vision_model_repo.api.protocols import INFER
from vision_model_repo.api.router import DirectRoute, Router
from vision_model_repo.models.catalog import Catalog, ModelSpec

PROBLEMS = describe(400, 401, 403, 404, 413, 415, 422, 429, 500, 503, 504, 507)
NPZ = "application/x-npz"
ARCHIVE: dict[int | str, dict[str, Any]] = {200: binary(NPZ)}
PICTURE: dict[int | str, dict[str, Any]] = {200: binary("image/png")}
VARY = {"Vary": "Accept"}


def inference_router(catalog: Catalog) -> Router:
    """Three routes for every model family whose task this protocol speaks."""
    router = Router(prefix="/inference", tags=["inference"], responses=PROBLEMS, route_class=DirectRoute)
    for spec in catalog.values():
        if task := TASKS.get(spec.task):
            _add_routes(router, spec, task)
    return router


def _add_routes(router: Router, spec: ModelSpec, task: NativeTask[Any, Any, Any, Any]) -> None:
    async def infer(request: Request) -> Response:
        return await _answer(request, spec, JSON)

    async def upload(request: Request) -> Response:
        return await _answer(request, spec, FORM)

    async def overlay(request: Request) -> Response:
        started = time.perf_counter()
        inference = await read_inference(request, spec, (JSON, FORM))
        picture, told = await inference.overlay(started)
        return Response(picture, media_type="image/png", headers=headers_of(told))

    title = f"{task.summary} with {spec.model_type}"
    hyphened = spec.model_type.replace("_", "-")
    for name in dict.fromkeys((hyphened, spec.model_type)):
        documented: dict[str, Any] = {"methods": ["POST"], "policy": INFER, "include_in_schema": name == hyphened}
        router.add_api_route(
            f"/{name}",
            infer,
            summary=title,
            response_model=task.answer,
            responses=ARCHIVE,
            openapi_extra=describe_body((task,), (JSON,)),
            operation_id=f"infer_{spec.model_type}",
            **documented,
        )
        router.add_api_route(
            f"/{name}/upload",
            upload,
            summary=f"{title}, images as files",
            response_model=task.answer,
            responses=ARCHIVE,
            openapi_extra=describe_body((task,), (FORM,)),
            operation_id=f"upload_{spec.model_type}",
            **documented,
        )
        router.add_api_route(
            f"/{name}/overlay",
            overlay,
            summary=f"{title}, drawn onto the first image",
            response_class=Response,
            responses=PICTURE,
            openapi_extra=describe_body((task,), (JSON, FORM)),
            operation_id=f"overlay_{spec.model_type}",
            **documented,
        )


async def _answer(request: Request, spec: ModelSpec, media: str) -> Response:
    started = time.perf_counter()
    inference = await read_inference(request, spec, (media,))
    if prefers(request, NPZ, over=JSON):
        archive, told = await inference.archive(started)
        return Response(archive, media_type=NPZ, headers={**headers_of(told), **VARY})
    return Response(await inference.answer(started), media_type=JSON, headers=VARY)
