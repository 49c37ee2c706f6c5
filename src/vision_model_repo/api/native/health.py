"""Whether the server is well, and which models it holds."""

from __future__ import annotations

from typing import Literal

from fastapi import Response
from pydantic import BaseModel, Field

from vision_model_repo import __version__
from vision_model_repo.api.dependencies import EngineDependency
from vision_model_repo.api.protocols import OPEN
from vision_model_repo.api.router import Router
from vision_model_repo.engine.devices import device_memory, gpu_memory

GIGABYTE = 2**30
RETRY_SECONDS = 5
"""After which another look at `/ready` is worth it."""

router = Router(tags=["health"])


class Welcome(BaseModel):
    """What this is."""

    message: str = Field(description="Name of the API.", examples=["Vision Models API"])
    version: str = Field(description="Version of the server.", examples=["1.0.0"])
    docs: str = Field(description="Path of the interactive documentation.", examples=["/docs"])


class Health(BaseModel):
    """How the server is."""

    status: Literal["healthy", "unhealthy"] = Field(
        description="Unhealthy, with status code 503, when the thread of a device has died.", examples=["healthy"]
    )
    loaded_models: list[str] = Field(description="Model types in memory.", examples=[["sam3"]])
    available_memory_gb: float = Field(
        description="Free device memory in GB, or free host memory where there is no GPU.", examples=[10.5]
    )
    gpu_available: bool = Field(description="Whether there is a GPU.", examples=[True])


class Readiness(BaseModel):
    """Whether the models that the server was started with are there."""

    status: Literal["ready", "degraded", "loading", "failed"] = Field(
        description="Failed when a model could not be loaded and nothing more is to be waited for. Degraded, with "
        "status code 200, when reading a checkpoint took too long and was given up; models in memory answer as before.",
        examples=["ready"],
    )
    loading: list[str] = Field(description="Model types that are still being loaded and warmed up.", examples=[[]])
    failed: dict[str, str] = Field(description="Why a model type could not be loaded.", examples=[{}])


@router.get("/", policy=OPEN)
@router.head("/", policy=OPEN, include_in_schema=False)
async def root() -> Welcome:
    """Names the API and its version."""
    return Welcome(message="Vision Models API", version=__version__, docs="/docs")


@router.head("/health", policy=OPEN, include_in_schema=False)
@router.get(
    "/health", policy=OPEN, responses={503: {"model": Health, "description": "The thread of a device has died."}}
)
async def health(engine: EngineDependency, response: Response) -> Health:
    """Answers within milliseconds, whatever the models are doing."""
    gpu = gpu_memory()
    healthy = engine.manager.healthy
    if not healthy:
        response.status_code = 503
    return Health(
        status="healthy" if healthy else "unhealthy",
        loaded_models=engine.manager.loaded(),
        available_memory_gb=round((gpu or device_memory("cpu")).free / GIGABYTE, 2),
        gpu_available=gpu is not None,
    )


@router.head("/ready", policy=OPEN, include_in_schema=False)
@router.get(
    "/ready",
    policy=OPEN,
    responses={503: {"model": Readiness, "description": "Models of PRELOAD_MODELS are not loaded and warm."}},
)
async def ready(engine: EngineDependency, response: Response) -> Readiness:
    """Says whether the models of PRELOAD_MODELS are loaded and warm; with none there, the server is ready at once."""
    preload = engine.manager.preload
    if not preload.ready:
        response.status_code = 503
        response.headers["Retry-After"] = str(RETRY_SECONDS)
    ready = "degraded" if engine.manager.degraded else "ready"
    status = ready if preload.ready else "loading" if preload.loading else "failed"
    return Readiness(status=status, loading=preload.loading, failed=preload.failures)
