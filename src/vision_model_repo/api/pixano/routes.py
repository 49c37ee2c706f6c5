"""All routes of the Pixano protocol."""

from __future__ import annotations

from vision_model_repo.api.pixano import models, service
from vision_model_repo.api.pixano.errors import write_error
from vision_model_repo.api.pixano.inference_routes import inference_router
from vision_model_repo.api.pixano.jobs import jobs_router
from vision_model_repo.api.protocols import Protocol
from vision_model_repo.api.router import Router, merged
from vision_model_repo.models.catalog import Catalog


def pixano_router(catalog: Catalog) -> Router:
    """The protocol; its paths are the same for every catalog."""
    return merged(
        service.router,
        models.router,
        inference_router(),
        jobs_router(),
    )


SERVICE = ("/health", "/ready", "/info", "/metrics")
PIXANO = Protocol(
    name="pixano",
    title="Pixano Inference",
    router=pixano_router,
    write_error=write_error,
)
