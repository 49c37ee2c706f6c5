"""Loading models, unloading them, and what is in memory."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends
from pydantic import BaseModel, ConfigDict, Field

from vision_model_repo.api.dependencies import EngineDependency, json_body
from vision_model_repo.api.errors import describe
from vision_model_repo.api.openapi import request_body
from vision_model_repo.api.protocols import MANAGE, READ
from vision_model_repo.api.router import Router
from vision_model_repo.engine.manager import MEGABYTE, ModelStatus

router = Router(prefix="/models", tags=["models"])

ModelType = Annotated[
    str,
    Field(
        min_length=1,
        max_length=100,
        description="Model family; a hyphen is as good as an underscore.",
        examples=["sam3", "grounding_dino", "depth_anything", "dinov3"],
    ),
]
ModelId = Annotated[str, Field(min_length=1, max_length=500)]


class LoadBody(BaseModel):
    """Which model to load, and where to."""

    model_config = ConfigDict(extra="forbid")

    model_type: ModelType
    model_id: ModelId | None = Field(
        None,
        description="Checkpoint: a Hugging Face id, an embedded `demo/` id, or the path of a folder on the server. "
        "The one in memory or the default if left out.",
        examples=["IDEA-Research/grounding-dino-tiny"],
    )
    device: str | None = Field(
        None,
        min_length=1,
        max_length=40,
        description="cpu, cuda, cuda:N, mps or auto; where it is, or the server's default, if left out.",
        examples=["cuda"],
    )


class UnloadBody(BaseModel):
    """Which model to unload."""

    model_config = ConfigDict(extra="forbid")

    model_type: ModelType


class ModelInfo(BaseModel):
    """One model family, loaded or not."""

    model_type: str = Field(description="Model family.", examples=["sam3"])
    task: str = Field(description="What it does.", examples=["segmentation"])
    model_id: str | None = Field(description="Checkpoint in memory.", examples=["facebook/sam3"])
    device: str | None = Field(description="Device that holds it.", examples=["cuda:0"])
    dtype: str | None = Field(description="Number format of its weights.", examples=["bfloat16"])
    loaded: bool = Field(description="Whether it is in memory.", examples=[True])
    loading: bool = Field(description="Whether it is being loaded.", examples=[False])
    memory_mb: float = Field(description="Memory of its weights in MB.", examples=[1650.4])
    requests_in_flight: int = Field(description="Requests that use it now.", examples=[0])
    idle_seconds: float | None = Field(description="Time since its last request in s.", examples=[12.5])
    fallback_reason: str | None = Field(
        description="Why the embedded demo checkpoint stands in for the default one, where it does.", examples=[None]
    )
    variants: list[str] = Field(description="Known checkpoints, the default first.", examples=[["facebook/sam3"]])


class ModelsStatus(BaseModel):
    """Every model family of the server."""

    models: dict[str, ModelInfo] = Field(description="Models by model_type, loaded or not.")
    total_memory_mb: float = Field(description="Memory of all weights in MB.", examples=[1650.4])


class Loaded(BaseModel):
    """A model is in memory."""

    message: str = Field(description="What happened.", examples=["Model sam3 loaded successfully"])
    model_info: ModelInfo = Field(description="The model as it is now.")


class Message(BaseModel):
    """Something was done."""

    message: str = Field(description="What happened.", examples=["Model sam3 unloaded successfully"])


def model_info(status: ModelStatus) -> ModelInfo:
    spec = status.spec
    return ModelInfo(
        model_type=spec.model_type,
        task=spec.task,
        model_id=status.model_id,
        device=status.device,
        dtype=status.dtype,
        loaded=status.loaded,
        loading=status.loading,
        memory_mb=round(status.memory_bytes / MEGABYTE, 2),
        requests_in_flight=status.requests_in_flight,
        idle_seconds=status.idle_seconds,
        fallback_reason=status.fallback_reason,
        variants=[*spec.variants, *([spec.demo] if spec.demo else [])],
    )


@router.get("/status", policy=READ)
async def status(engine: EngineDependency) -> ModelsStatus:
    """Lists every model type, loaded or not."""
    infos = {status.spec.model_type: model_info(status) for status in engine.manager.status()}
    return ModelsStatus(models=infos, total_memory_mb=round(sum(info.memory_mb for info in infos.values()), 2))


@router.post(
    "/load", policy=MANAGE, openapi_extra=request_body(LoadBody), responses=describe(400, 403, 404, 415, 422, 503, 507)
)
async def load(engine: EngineDependency, body: Annotated[LoadBody, Depends(json_body(LoadBody))]) -> Loaded:
    """Loads a model. What is loaded already stays; another model_id or device replaces it once it is ready."""
    loaded = await engine.manager.load(body.model_type, body.model_id, body.device)
    return Loaded(message=f"Model {loaded.spec.model_type} loaded successfully", model_info=model_info(loaded))


@router.post("/unload", policy=MANAGE, openapi_extra=request_body(UnloadBody), responses=describe(404, 415, 422))
async def unload(engine: EngineDependency, body: Annotated[UnloadBody, Depends(json_body(UnloadBody))]) -> Message:
    """Unloads a model after its requests in flight and frees its memory. One that is not loaded is no error."""
    await engine.manager.unload(body.model_type)
    name = engine.manager.catalog[body.model_type].model_type
    return Message(message=f"Model {name} unloaded successfully")


@router.post("/unload-all", policy=MANAGE)
async def unload_all(engine: EngineDependency) -> Message:
    """Unloads all models after their requests in flight."""
    await engine.manager.unload_all()
    return Message(message="All models unloaded successfully")
