"""All routes of the Ingrain protocol."""

from __future__ import annotations

from vision_model_repo.api.errors import write_detail
from vision_model_repo.api.ingrain import inference, repository, service
from vision_model_repo.api.protocols import Protocol
from vision_model_repo.api.router import Router, merged
from vision_model_repo.models.catalog import Catalog


def ingrain_router(catalog: Catalog) -> Router:
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
)
