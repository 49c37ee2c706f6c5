"""Models of Pixano's plugins and configuration files, in our engine.

Their package `pixano-inference` supplies base classes, schemas and the registry; of its server, and of Ray, nothing is
imported. A model finds its own weights, and its device, by its parameters.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from pixano_inference.configs import ModelConfig
from pixano_inference.configs.deployment import ModelDeploymentConfig
from pixano_inference.models import DetectionModel, ModelClassRegistry
from pixano_inference.plugins import ensure_models_loaded

from vision_model_repo.errors import NotFound
from vision_model_repo.models.base import Loader
from vision_model_repo.models.catalog import ModelSpec, Task

TASKS: Mapping[str, Task] = {
    "detection": "detection",
    "segmentation": "segmentation",
    "tracking": "clip_tracking",
    "embedding": "embedding",
    "ner": "ner",
    "vlm": "chat",
}
"""The task for each capability that is served from plugins."""
CLIP_SECONDS = 600.0
"""Time for a whole video, where the deployment says nothing."""


@dataclass(frozen=True, slots=True)
class PixanoSpec(ModelSpec):
    """A deployment of a Pixano model class.

    Attributes:
        config: what the class is made with.
    """

    config: ModelDeploymentConfig | None = None

    @property
    def sees_frames(self) -> bool:
        """Not for segmentation: Pixano's segmenters know no phrases to find objects by."""
        return self.task == "detection"

    def loader(self) -> Loader:
        # Not super(): a class with slots is made anew, and the name would mean the old one.
        load: Any = ModelSpec.loader(self)
        return partial(load, config=self.config)


def read_config(path: Path, families: Mapping[str, str]) -> list[ModelDeploymentConfig]:
    """The deployments of a Pixano configuration file, which is a Python program and run as such.

    Args:
        families: names of model classes that families of ours stand in for, where no plugin brings them.

    Raises:
        ValueError: the file has no list of models, or one that Pixano would not accept.
    """
    ensure_models_loaded()
    for name in families:
        if not ModelClassRegistry.has(name):
            # Never made: the file is to be accepted, and the family answers.
            ModelClassRegistry.register(name)(type(name, (DetectionModel,), {"family": families[name]}))
    models = getattr(_run(path), "models", None)
    if not isinstance(models, list) or not all(isinstance(model, ModelConfig) for model in models):
        raise ValueError(f"{path} must define models, a list of ModelConfig.")
    return [model.to_deployment_config() for model in models]


def _run(path: Path) -> ModuleType:
    """Runs a Python file as a module, which stays where its classes can be looked up."""
    name = f"_pixano_config_{path.stem}"
    spec = spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None, "a Python file has a loader"
    module = sys.modules[name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def is_plugin_class(name: str) -> bool:
    """Whether a plugin has a model class of that name."""
    ensure_models_loaded()
    return ModelClassRegistry.has(name) and not hasattr(ModelClassRegistry.get(name), "family")


def config_of(
    name: str | None, model_class: str, params: Mapping[str, Any], resources: Mapping[str, Any]
) -> ModelDeploymentConfig:
    """What a plugin's class is made with. Raises ValidationError for what its parameters do not allow."""
    fields = {"name": name, "model_class": model_class, "model_params": dict(params), "deployment": dict(resources)}
    return ModelConfig.model_validate(fields).to_deployment_config()


def spec_of(config: ModelDeploymentConfig) -> PixanoSpec:
    """Raises NotFound for a capability that is not served from plugins."""
    task = TASKS.get(config.capability)
    if task is None:
        raise NotFound(
            f"{config.model_class} is for {config.capability}; plugins are served for {', '.join(TASKS)} alone."
        )
    tracks = task == "clip_tracking"
    return PixanoSpec(
        config.name,
        task,
        f"{__package__}.{'pixano_tracking' if tracks else 'pixano_model'}",
        (),
        family=config.model_class,
        timeout_seconds=config.timeout_s or (CLIP_SECONDS if tracks else None),
        config=config,
    )
