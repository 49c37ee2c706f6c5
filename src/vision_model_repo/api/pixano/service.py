"""Whether the server is well, and what it is, in both contracts."""

from __future__ import annotations

import os

from fastapi import Response

from vision_model_repo import __version__
from vision_model_repo.api.dependencies import EngineDependency
from vision_model_repo.api.native import metrics
from vision_model_repo.api.native.health import RETRY_SECONDS, Welcome
from vision_model_repo.api.pixano.deployed import deployed, listed
from vision_model_repo.api.pixano.schemas import (
    DocumentedModel,
    DocumentedSettings,
    PixanoHealth,
    PixanoInfo,
    PixanoReadiness,
    ServeStatus,
)
from vision_model_repo.api.protocols import OPEN, READ
from vision_model_repo.api.router import Router
from vision_model_repo.engine.devices import gpu_memory
from vision_model_repo.engine.engine import Engine

NAME = "Pixano Inference"
"""What clients of the protocol expect a server of it to be called."""

router = Router(tags=["pixano service"])


async def health(engine: EngineDependency, response: Response) -> PixanoHealth:
    """Answers within milliseconds, whatever the models are doing."""
    healthy = engine.manager.healthy
    if not healthy:
        response.status_code = 503
    return PixanoHealth(status="healthy" if healthy else "unhealthy")


async def ready(engine: EngineDependency, response: Response) -> PixanoReadiness:
    """Says whether the models that the server was started with are loaded; 503 until they are."""
    is_ready = engine.manager.preload.ready
    if not is_ready:
        response.status_code = 503
        response.headers["Retry-After"] = str(RETRY_SECONDS)
    models = _statuses(engine)
    running = sum(status == "RUNNING" for status in models.values())
    return PixanoReadiness(ready=is_ready, models=models, models_loaded=running, version=__version__)


async def info(engine: EngineDependency) -> PixanoInfo:
    """Describes the server and its models."""
    models = _statuses(engine)
    return PixanoInfo(
        app_name=NAME,
        app_version=__version__,
        num_cpus=os.cpu_count(),
        num_gpus=int(gpu_memory() is not None),
        num_nodes=1,
        gpus_used=float(len(_gpus(engine))),
        models=list(models),
        models_status=models,
    )


for path in ("/health", "/ready", "/info"):
    endpoint = {"/health": health, "/ready": ready, "/info": info}[path]
    router.add_api_route(f"/v1{path}", endpoint, policy=OPEN)
    router.add_api_route(path, endpoint, policy=OPEN, include_in_schema=False)
router.add_api_route("/v1/metrics", metrics.metrics, policy=OPEN, include_in_schema=False)


@router.get("/", policy=OPEN)
async def root() -> Welcome:
    """Names the API and its version."""
    return Welcome(message=NAME, version=__version__, docs="/docs")


@router.get("/app/settings/", policy=READ)
async def app_settings(engine: EngineDependency) -> DocumentedSettings:
    """Describes the server, in the contract of the documentation."""
    capabilities = {model.name: model.capability for model in listed(engine)}
    return DocumentedSettings(
        app_name=NAME,
        app_version=__version__,
        app_description="Vision models over the Pixano Inference protocol.",
        num_cpus=os.cpu_count(),
        num_gpus=int(gpu_memory() is not None),
        num_nodes=1,
        gpus_used=float(len(_gpus(engine))),
        gpu_to_model=_gpus(engine),
        models=list(capabilities),
        models_to_capability=capabilities,
    )


@router.get("/app/models/", policy=READ)
async def app_models(engine: EngineDependency) -> list[DocumentedModel]:
    """Lists the models, in the contract of the documentation."""
    return [
        DocumentedModel(
            name=model.name, capability=model.capability, model_path=model.model_path, model_class=model.model_class
        )
        for model in listed(engine)
    ]


def _statuses(engine: Engine) -> dict[str, ServeStatus]:
    return {model.name: model.status for model in deployed(engine)}


def _gpus(engine: Engine) -> dict[str, str]:
    """A model on each GPU that holds any."""
    held = ((status.device, status.spec.model_type) for status in engine.manager.status() if status.device)
    return {device: model_type for device, model_type in held if device.startswith("cuda")}
