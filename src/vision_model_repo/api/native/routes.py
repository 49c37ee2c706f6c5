"""All routes of the native protocol."""

from __future__ import annotations

from vision_model_repo.api.errors import write_detail
from vision_model_repo.api.native import health, image_routes, jobs, metrics, models, tracking_jobs, tracking_routes
from vision_model_repo.api.native.inference_routes import inference_router
from vision_model_repo.api.protocols import Protocol
from vision_model_repo.api.router import Router, merged
from vision_model_repo.models.catalog import Catalog


def native_router(catalog: Catalog) -> Router:
    """The protocol for the model families of a catalog."""
    return merged(
        health.router,
        models.router,
        image_routes.router,
        inference_router(catalog),
        tracking_routes.router,
        # Before the jobs of models: its path would be taken for that of a model called "tracking".
        tracking_jobs.router,
        jobs.router,
        metrics.router,
    )


NATIVE = Protocol(
    name="native",
    title="Native",
    router=native_router,
    write_error=lambda refusal, scope, path: write_detail(refusal),
)
