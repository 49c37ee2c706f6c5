"""Models as the protocol knows them: by name, each of a library, loaded before they are asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from vision_model_repo.api.ingrain.schemas import Library, LoadedModel, RepositoryModel
from vision_model_repo.engine.manager import ModelManager, ModelStatus
from vision_model_repo.errors import InvalidInput, NotFound
from vision_model_repo.models.catalog import ModelSpec, Task

MAX_NAME = 500
FAMILIES: Mapping[Library, tuple[str, ...]] = {
    "sentence_transformers": ("text_embedding",),
    "open_clip": ("clip",),
    "timm": ("image_classifier", "dinov3"),
}
"""Whose checkpoints a library's names mean: those that a family lists, and of all others the first family's."""
LIBRARIES: Mapping[str, Library] = {family: library for library, families in FAMILIES.items() for family in families}
TASKS: Mapping[Task, Library] = {"embedding": "sentence_transformers", "classification": "timm", "features": "timm"}
"""What the protocol can ask for, and what to call the library of a family that is not listed above."""


def family_of(spec: ModelSpec) -> str:
    return spec.family or spec.model_type


def library_of(spec: ModelSpec) -> Library:
    """What the protocol calls the kind of a model that it can ask."""
    return LIBRARIES.get(family_of(spec)) or TASKS[spec.task]


def find_model(manager: ModelManager, name: str) -> ModelSpec | None:
    """The model of that name, or the one that has the checkpoint of that name in memory."""
    if name in manager.catalog:
        return manager.catalog[name]
    return next((status.spec for status in manager.status() if status.model_id == name), None)


def known_model(manager: ModelManager, name: str) -> ModelSpec:
    """Raises NotFound where nobody has loaded a model of that name, and InvalidInput for one of another kind."""
    if (spec := find_model(manager, name)) is None:
        raise NotFound(f"Model {shown(name)} does not exist in the repository.")
    if spec.task not in TASKS:
        raise InvalidInput(f"Model {shown(name)} is for {spec.task}, neither for embeddings nor for classification.")
    return spec


def askable_model(manager: ModelManager, name: str) -> ModelSpec:
    """The model for a request. One that has left memory counts, where settings let it be loaded by the request.

    Raises:
        InvalidInput: it is not loaded, or of another kind.
    """
    try:
        spec = known_model(manager, name)
        manager.check_available(spec.model_type)
    except NotFound:
        raise InvalidInput(
            f"Model {shown(name)} is not loaded. Load the model first using /load_model on the model server."
        ) from None
    return spec


async def load_model(manager: ModelManager, name: str, library: Library) -> str:
    """Loads a model under its own name, and tells what happened. One that is known keeps its library.

    Raises:
        InvalidInput: there is no such checkpoint, or it is none of that library.
        What else `ModelManager.load` raises.
    """
    try:
        if find_model(manager, name) is None:
            await manager.deploy(_deployment(manager, name, library))
        else:
            spec = known_model(manager, name)
            if _is_loaded(manager, spec):
                return f"Model {shown(name)} is already loaded."
            await manager.load(spec.model_type)
    except NotFound as error:
        raise InvalidInput(f"Error in creating model client: {error.message}") from None
    return f"Model {shown(name)} loaded successfully."


async def unload_model(manager: ModelManager, name: str) -> None:
    """Raises NotFound for a model that is not in memory."""
    if not await manager.unload(known_model(manager, name).model_type):
        raise NotFound(f"Model {shown(name)} is not loaded.")


async def delete_model(manager: ModelManager, name: str) -> None:
    """Forgets a model that was loaded by name. Its files stay in the cache of the hub, which others may share.

    Raises:
        NotFound: there is no such model.
        InvalidInput: it is a family of the server.
    """
    spec = find_model(manager, name)
    if spec is None or spec.task not in TASKS:
        raise NotFound(f"Model {shown(name)} does not exist.")
    if spec.family is None:
        raise InvalidInput(f"{spec.model_type} is a family of this server and stays. Unload it to free its memory.")
    await manager.undeploy(spec.model_type)


def loaded_models(manager: ModelManager) -> list[LoadedModel]:
    return [
        LoadedModel(name=status.spec.model_type, library=library_of(status.spec))
        for status in _statuses(manager)
        if status.loaded
    ]


def repository_models(manager: ModelManager) -> list[RepositoryModel]:
    """All that have a name here: what was loaded by name, what the configuration names, and families."""
    return [
        RepositoryModel(
            name=status.spec.model_type,
            library=library_of(status.spec),
            state="READY" if status.loaded else "UNAVAILABLE" if status.spec.family else None,
        )
        for status in _statuses(manager)
    ]


def shown(name: str) -> str:
    """A name for a sentence."""
    return name if len(name) <= MAX_NAME else f"{name[:MAX_NAME]}..."


def _statuses(manager: ModelManager) -> list[ModelStatus]:
    return [status for status in manager.status() if status.spec.task in TASKS]


def _is_loaded(manager: ModelManager, spec: ModelSpec) -> bool:
    return spec.model_type in manager.loaded()


def _deployment(manager: ModelManager, name: str, library: Library) -> ModelSpec:
    if not name.strip() or len(name) > MAX_NAME or not name.isprintable():
        raise InvalidInput(f"name must be the name of a checkpoint, of 1 to {MAX_NAME} printable characters.")
    families = [manager.catalog[family] for family in FAMILIES[library] if family in manager.catalog]
    if not families:
        raise InvalidInput(f"This server has no models of {library}.")
    listing = (family for family in families if name in (*family.variants, family.demo))
    family = next(listing, families[0])
    return replace(family, model_type=name, family=family.model_type, variants=(name,), demo=None)
