"""Models as the protocol sees them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vision_model_repo.api.pixano.schemas import PixanoModel, ServeStatus
from vision_model_repo.api.pixano.task import capability_of
from vision_model_repo.api.pixano.tracking import second_name
from vision_model_repo.engine.engine import Engine
from vision_model_repo.engine.manager import ModelStatus

CLICKS = ("points", "box", "mask")
INTERFACES: Mapping[str, dict[str, Any]] = {
    "sam3": {
        "capability": "segmentation",
        "prompts": CLICKS,
        "multimask": True,
        "embeddings": False,
        "outputs": ("mask", "score", "logits"),
    },
    "grounding_dino": {
        "capability": "detection",
        "classes": "open",
        "thresholds": ("box", "text"),
        "outputs": ("box", "score", "class"),
    },
    "sam2_video": {
        "capability": "tracking",
        "prompts": CLICKS,
        "promptFree": False,
        "classes": "none",
        "interval": True,
        "outputs": ("mask", "box", "score"),
    },
    "sam3_video": {
        "capability": "tracking",
        "prompts": CLICKS,
        "promptFree": True,
        "classes": "open",
        "interval": True,
        "outputs": ("mask", "box", "score", "class"),
    },
}
"""How the built-in families are called. One word that a client does not know, and it reads no model of the list."""


def deployed(engine: Engine) -> list[PixanoModel]:
    """The models whose capability the protocol knows."""
    return [model_of(engine, status) for status in engine.manager.status() if capability_of(status.spec)]


def listed(engine: Engine) -> list[PixanoModel]:
    """The models, and after them those again that can track what they find, under their second names."""
    models = deployed(engine)
    names = [second_name(engine.manager.catalog[model.name], engine.manager.catalog) for model in models]
    return models + [_tracker(model, name) for model, name in zip(models, names, strict=True) if name]


def _tracker(model: PixanoModel, name: str) -> PixanoModel:
    found = model.interface
    interface = found and {
        "capability": "tracking",
        "prompts": CLICKS,
        "promptFree": True,
        "classes": found.get("classes", "open"),
        "classNames": found.get("classNames"),
        "thresholds": ("box",),
        "interval": True,
        "outputs": ("box", "score", "class", *(("mask",) if model.capability == "segmentation" else ())),
    }
    return model.model_copy(update={"name": name, "capability": "tracking", "interface": interface})


def model_of(engine: Engine, status: ModelStatus) -> PixanoModel:
    spec = status.spec
    capability = capability_of(spec) or spec.task
    family = spec.family or spec.model_type
    return PixanoModel(
        name=spec.model_type,
        capability=capability,
        model_class=family,
        model_path=status.model_id or next(iter(spec.variants), None),
        status=status_of(engine, status),
        interface=dict(interface) if (interface := status.interface or INTERFACES.get(family)) else None,
    )


def status_of(engine: Engine, status: ModelStatus) -> ServeStatus:
    if status.loading:
        return "DEPLOYING"
    if status.loaded:
        return "RUNNING"
    if status.spec.model_type in engine.manager.preload.failures:
        return "DEPLOY_FAILED"
    return "RUNNING" if engine.settings.auto_load else "NOT_STARTED"
