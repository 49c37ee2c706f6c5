"""Models that can be asked."""

from __future__ import annotations

import time

from fastapi import APIRouter

from vision_model_repo.api.dependencies import EngineDependency
from vision_model_repo.api.errors import describe
from vision_model_repo.api.openai.conversation import chat_models, find_model
from vision_model_repo.api.openai.schemas import ListedModel, ModelList
from vision_model_repo.models.catalog import ModelSpec

STARTED = int(time.time())
OURS = "vision-model-repo"

router = APIRouter(prefix="/v1/models", tags=["openai"], responses=describe(401, 429))


@router.get("")
async def list_models(engine: EngineDependency) -> ModelList:
    """Lists the models that chat."""
    return ModelList(data=[_listed(spec) for spec in chat_models(engine.manager.catalog)])


@router.get("/{model}", responses=describe(400, 404, 422))
async def get_model(engine: EngineDependency, model: str) -> ListedModel:
    """One model, by its name."""
    return _listed(find_model(engine.manager.catalog, model)[0])


def _listed(spec: ModelSpec) -> ListedModel:
    owner, slash, _ = next(iter(spec.variants), "").partition("/")
    return ListedModel(id=spec.model_type, created=STARTED, owned_by=owner if owner and slash else OURS)
