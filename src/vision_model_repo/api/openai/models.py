"""Models that can be asked."""

from __future__ import annotations

import time
from collections.abc import Mapping

from vision_model_repo.api.dependencies import EngineDependency
from vision_model_repo.api.errors import describe
from vision_model_repo.api.openai.schemas import ListedModel, ModelList
from vision_model_repo.api.protocols import READ
from vision_model_repo.api.router import Router
from vision_model_repo.errors import InvalidInput, NotFound
from vision_model_repo.models.catalog import Catalog, ModelSpec, Task

STARTED = int(time.time())
OURS = "vision-model-repo"
TASKS: Mapping[Task, str] = {"chat": "chat", "embedding": "embeddings"}
"""What the protocol can ask for, and what it calls it."""

router = Router(prefix="/v1/models", tags=["openai"], responses=describe(401, 429))


@router.get("", policy=READ)
async def list_models(engine: EngineDependency) -> ModelList:
    """Lists the models that chat, and those that embed texts."""
    return ModelList(data=[_listed(spec) for task in TASKS for spec in _models(engine.manager.catalog, task)])


@router.get("/{model}", policy=READ, responses=describe(400, 404, 422))
async def get_model(engine: EngineDependency, model: str) -> ListedModel:
    """One model, by its name."""
    catalog = engine.manager.catalog
    if model in catalog and catalog[model].task in TASKS:
        return _listed(catalog[model])
    raise NotFound(f"There is no model {model[:100]!r} here. GET /v1/models lists those that there are.")


def find_model(catalog: Catalog, name: str, task: Task) -> tuple[ModelSpec, str | None]:
    """The model of that name, or the one that loads the checkpoint of that id, and the id.

    Raises:
        NotFound: there is no such model.
        InvalidInput: it is for another task.
    """
    known = ", ".join(spec.model_type for spec in _models(catalog, task)) or "none"
    if name in catalog:
        spec = catalog[name]
        if spec.task != task:
            raise InvalidInput(f"{spec.model_type} is for {spec.task}, not for {TASKS[task]}. Models for it: {known}.")
        return spec, None
    families = [spec for spec in _models(catalog, task) if spec.family is None]
    if "/" not in name or not families:
        raise NotFound(
            f"There is no model {name[:100]!r}. Models for {TASKS[task]}: {known}; or give the id of a checkpoint."
        )
    listing = (spec for spec in families if name in (*spec.variants, spec.demo))
    return next(listing, families[0]), name


def _models(catalog: Catalog, task: Task) -> list[ModelSpec]:
    """The models that can be asked for a task."""
    return [spec for spec in catalog.values() if spec.task == task]


def _listed(spec: ModelSpec) -> ListedModel:
    owner, slash, _ = next(iter(spec.variants), "").partition("/")
    return ListedModel(id=spec.model_type, created=STARTED, owned_by=owner if owner and slash else OURS)
