"""All routes of the Ingrain protocol."""

from __future__ import annotations

from fastapi import APIRouter

from vision_model_repo.api.errors import write_detail
from vision_model_repo.api.ingrain import inference, repository, service
from vision_model_repo.api.protocols import Protocol
from vision_model_repo.api.routing import merged
from vision_model_repo.models.catalog import Catalog


def ingrain_router(catalog: Catalog) -> APIRouter:
    """The protocol; its paths are the same for every catalog."""
    return merged(
        service.router,
        inference.router,
        repository.router,
    )


INGRAIN = Protocol(
    name="ingrain",
    title="Ingrain",
    router=ingrain_router,
    write_error=lambda refusal, scope, path: write_detail(refusal),
    open_paths=frozenset({"/", "/health", "/ready"}),
    work_paths=("/embed", "/infer", "/classify_image"),
)
