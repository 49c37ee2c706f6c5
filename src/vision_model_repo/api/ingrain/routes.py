"""All routes of the Ingrain protocol."""

from __future__ import annotations

from fastapi import APIRouter

from vision_model_repo.api.errors import write_detail
from vision_model_repo.api.ingrain import inference, repository, service
from vision_model_repo.api.protocols import Protocol
from vision_model_repo.models.catalog import Catalog

INFERENCE = frozenset({"/embed_text", "/embed_image", "/embed", "/infer", "/classify_image"})
REPOSITORY = frozenset(
    {
        *("/load_model", "/unload_model", "/delete_model", "/loaded_models", "/repository_models"),
        *("/model_embedding_size", "/model_classification_labels"),
    }
)


def ingrain_router(catalog: Catalog) -> APIRouter:
    """The protocol; its paths are the same for every catalog."""
    router = APIRouter()
    router.include_router(service.router)
    router.include_router(inference.router)
    router.include_router(repository.router)
    return router


INGRAIN = Protocol(
    name="ingrain",
    title="Ingrain",
    router=ingrain_router,
    write_error=lambda refusal, scope, path: write_detail(refusal),
    open_paths=frozenset({"/", "/health", "/ready"}),
    work_paths=tuple(INFERENCE),
    own_routes=INFERENCE | REPOSITORY,
)
