"""Loading and unloading models, and what is known of them."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from fastapi import Query, Request

from vision_model_repo.api.dependencies import EngineDependency
from vision_model_repo.api.embedding import embed
from vision_model_repo.api.errors import describe
from vision_model_repo.api.ingrain import models
from vision_model_repo.api.ingrain.body import read_body
from vision_model_repo.api.ingrain.inference import check_classifier
from vision_model_repo.api.ingrain.schemas import (
    ClassificationLabels,
    EmbeddingSize,
    IngrainLoad,
    IngrainMessage,
    LoadedModels,
    Named,
    RepositoryModels,
)
from vision_model_repo.api.openapi import request_body
from vision_model_repo.api.protocols import INFER, MANAGE, READ
from vision_model_repo.api.router import Router
from vision_model_repo.engine.engine import Engine
from vision_model_repo.models.catalog import ModelSpec
from vision_model_repo.tasks.classification import ClassificationRequest

BLANK = np.zeros((32, 32, 3), np.uint8)
"""An image to ask a model about that says of itself only what its answers show."""

Name = Annotated[str, Query(description="Model name, as it was loaded.", examples=["intfloat/e5-small-v2"])]

router = Router(tags=["ingrain models"], responses=describe(400, 401, 422, 429))


@router.post("/load_model", policy=MANAGE, openapi_extra=request_body(IngrainLoad), responses=describe(403, 503, 507))
async def load_model(request: Request, engine: EngineDependency) -> IngrainMessage:
    """Loads a model under its own name, from the hub, its cache or a folder."""
    body = await read_body(request, IngrainLoad)
    return IngrainMessage(message=await models.load_model(engine.manager, body.name, body.library))


@router.post("/unload_model", policy=MANAGE, openapi_extra=request_body(Named), responses=describe(404))
async def unload_model(request: Request, engine: EngineDependency) -> IngrainMessage:
    """Takes a model out of memory after its requests in flight. It stays in the repository."""
    name = (await read_body(request, Named)).name
    await models.unload_model(engine.manager, name)
    return IngrainMessage(message=f"Model {name} unloaded successfully.")


@router.delete("/delete_model", policy=MANAGE, openapi_extra=request_body(Named), responses=describe(404))
async def delete_model(request: Request, engine: EngineDependency) -> IngrainMessage:
    """Takes a model out of memory and out of the repository."""
    name = (await read_body(request, Named)).name
    await models.delete_model(engine.manager, name)
    return IngrainMessage(message=f"Model {name} deleted successfully.")


@router.get("/loaded_models", policy=READ)
async def loaded_models(engine: EngineDependency) -> LoadedModels:
    """Lists the models in memory."""
    return LoadedModels(models=models.loaded_models(engine.manager))


@router.get("/repository_models", policy=READ)
async def repository_models(engine: EngineDependency) -> RepositoryModels:
    """Lists the models that the server knows by name, in memory or not."""
    return RepositoryModels(models=models.repository_models(engine.manager))


@router.get("/model_embedding_size", policy=INFER, responses=describe(404))
async def model_embedding_size(engine: EngineDependency, name: Name) -> EmbeddingSize:
    """Tells how many components a model's vectors have."""
    spec = _model(engine, name)
    sees = models.library_of(spec) == "timm"
    found = await embed(engine, spec, () if sees else (name,), (BLANK,) if sees else ())
    size = next(each.vectors.shape[1] for each in found if each is not None)
    return EmbeddingSize(embedding_size=size)


@router.get("/model_classification_labels", policy=INFER, responses=describe(404))
async def model_classification_labels(engine: EngineDependency, name: Name) -> ClassificationLabels:
    """Names the classes of a classifier."""
    spec = _model(engine, name)
    check_classifier(spec, name)
    answer = await engine.manager.run(spec.model_type, [ClassificationRequest(BLANK)])
    return ClassificationLabels(labels=list(answer.results[0].labels))


def _model(engine: Engine, name: str) -> ModelSpec:
    """Raises NotFound for a model that the repository has not, and InvalidInput for one that is not loaded."""
    models.known_model(engine.manager, name)
    return models.askable_model(engine.manager, name)
