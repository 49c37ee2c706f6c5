"""All routes of the OpenAI protocol."""

from __future__ import annotations

from vision_model_repo.api.openai import completions, embeddings, models
from vision_model_repo.api.openai.errors import write_error
from vision_model_repo.api.protocols import Protocol
from vision_model_repo.api.router import Router, merged
from vision_model_repo.models.catalog import Catalog


def openai_router(catalog: Catalog) -> Router:
    """The protocol; its paths are the same for every catalog."""
    return merged(
        completions.router,
        embeddings.router,
        models.router,
    )


OPENAI = Protocol(
    name="openai",
    title="OpenAI",
    router=openai_router,
    write_error=write_error,
)
