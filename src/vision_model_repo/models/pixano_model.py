"""Models of Pixano's classes that answer at once, in our engine."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from pixano_inference.configs.deployment import ModelDeploymentConfig
from pixano_inference.models import ModelClassRegistry

from vision_model_repo.errors import NotFound
from vision_model_repo.models.base import Checkpoint, Model
from vision_model_repo.models.pixano_adapters import ADAPTERS

logger = logging.getLogger(__name__)

WRONG_PARAMETERS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    OSError,
    TypeError,
    ValueError,
)
"""What a class may raise whose parameters make no sense to it, or name what is not there."""


class PixanoModel(Model[Any, Any, Any, Any]):
    """A plugin's model. Its `predict` runs on the device's thread, as a network of ours would."""

    def __init__(self, config: ModelDeploymentConfig, device: str, dtype: str) -> None:
        self.model_id = id_of(config)
        self.device, self.dtype = device, dtype
        self.max_batch = config.max_batch_size
        self._adapter = ADAPTERS[config.capability]
        self._model = make(config)
        self.interface = interface_of(self._model)

    def preprocess(self, request: Any) -> Any:
        return self._adapter.ask(request)

    def forward(self, items: Sequence[Any]) -> Sequence[Any]:
        return [self._model.predict(items[0])] if len(items) == 1 else self._model.predict_batch(list(items))

    def postprocess(self, raw: Any, item: Any) -> Any:
        return self._adapter.read(raw)

    def memory_bytes(self) -> int:
        """0: what a plugin holds, only itself knows."""
        return 0

    def unload(self) -> None:
        self._model.unload()


def load(
    checkpoint: Checkpoint, *, device: str, dtype: str, config: ModelDeploymentConfig | None = None
) -> PixanoModel:
    assert config is not None, "a plugin's model is made from its configuration"
    return PixanoModel(config, device, dtype)


def make(config: ModelDeploymentConfig) -> Any:
    """A plugin's model with its weights. Raises NotFound for parameters with which it does not load."""
    model: Any = ModelClassRegistry.get(config.model_class)(config)
    try:
        model.load_model()
    except WRONG_PARAMETERS as error:
        # What it says may be about any file on this server.
        logger.warning("%s does not load", config.model_class, exc_info=True)
        raise NotFound(
            f"{config.model_class} does not load with these parameters: {type(error).__name__}. The log has more."
        ) from error
    return model


def id_of(config: ModelDeploymentConfig) -> str:
    """The checkpoint that a plugin is made with, or else its name."""
    return str(config.model_params.get("path") or config.name)


def interface_of(model: Any) -> Mapping[str, Any] | None:
    """How a plugin's model says that it is called."""
    return None if model.interface is None else model.interface.model_dump(mode="json", by_alias=True)
