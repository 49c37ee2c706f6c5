"""Models of Pixano's plugins and configuration files, in our engine.

Their package `pixano-inference` supplies base classes, schemas and the registry; of its server, and of Ray, nothing is
imported. A model finds its own weights, and its device, by its parameters.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import module_from_spec, spec_from_file_location
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pixano_inference import schemas
from pixano_inference.configs import ModelConfig
from pixano_inference.configs.deployment import ModelDeploymentConfig
from pixano_inference.models import DetectionModel, ModelClassRegistry
from pixano_inference.plugins import ensure_models_loaded

from vision_model_repo.errors import InvalidInput, NotFound
from vision_model_repo.formats.masks import from_coco_rle
from vision_model_repo.models.base import Checkpoint, Loader, Model
from vision_model_repo.models.catalog import ModelSpec, Task
from vision_model_repo.tasks.chat import ChatRequest, ChatResult, Part, TokenUsage
from vision_model_repo.tasks.detection import DetectionRequest, DetectionResult
from vision_model_repo.tasks.embedding import EmbeddingRequest, EmbeddingResult
from vision_model_repo.tasks.ner import Entity, NerRequest, NerResult
from vision_model_repo.tasks.segmentation import ObjectMasks, SegmentationRequest, SegmentationResult

USUAL_NEW_TOKENS = 256
"""Most tokens of an answer where the request does not say."""
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


@dataclass(frozen=True, slots=True)
class PixanoSpec(ModelSpec):
    """A deployment of a Pixano model class.

    Attributes:
        config: what the class is made with.
    """

    config: ModelDeploymentConfig | None = None

    def loader(self) -> Loader:
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
    return PixanoSpec(
        config.name,
        task,
        __name__,
        (),
        family=config.model_class,
        timeout_seconds=config.timeout_s,
        config=config,
    )


class Adapter(ABC):
    """Between our requests and results and the inputs and outputs of one capability."""

    @abstractmethod
    def ask(self, request: Any) -> Any:
        """The plugin's input. Raises InvalidInput for a request that it has no words for."""

    @abstractmethod
    def read(self, output: Any) -> Any:
        """Our result."""


class DetectionAdapter(Adapter):
    def ask(self, request: DetectionRequest) -> schemas.DetectionInput:
        return schemas.DetectionInput(
            image=_file(request.image),
            classes=list(request.phrases) or None,
            box_threshold=request.box_threshold,
            text_threshold=request.text_threshold,
        )

    def read(self, output: schemas.DetectionOutput) -> DetectionResult:
        boxes = np.array(output.boxes, np.float32).reshape(-1, 4)
        return DetectionResult(boxes, np.array(output.scores, np.float32), tuple(output.classes))


class SegmentationAdapter(Adapter):
    def ask(self, request: SegmentationRequest) -> schemas.SegmentationInput:
        objects = request.objects
        if request.prompts or not objects:
            raise InvalidInput("This model is asked by points and boxes, and not by phrases.")
        logits = [each.logits for each in objects if each.logits is not None]
        if len(logits) not in (0, len(objects)):
            raise InvalidInput("This model takes earlier masks for all objects of a request, or for none.")
        points = [[[round(x), round(y)] for x, y in each.points] for each in objects]
        boxes = [[round(side) for side in each.box] for each in objects if each.box]
        if len(boxes) not in (0, len(objects)):
            raise InvalidInput("This model takes boxes for all objects of a request, or for none.")
        return schemas.SegmentationInput(
            image=_file(request.image),
            mask_input=schemas.NDArrayFloat.from_numpy(np.stack(logits)[:, None]) if logits else None,
            points=points if any(points) else None,
            labels=[list(each.point_labels) for each in objects] if any(points) else None,
            boxes=boxes or None,
            multimask_output=request.multimask is not False,
            return_logits=True,
        )

    def read(self, output: schemas.SegmentationOutput) -> SegmentationResult:
        scores = output.scores.to_numpy().reshape(len(output.masks) or 1, -1)
        logits = None if output.mask_logits is None else output.mask_logits.to_numpy()
        return SegmentationResult(
            (), tuple(_object(masks, scores[i], logits, i) for i, masks in enumerate(output.masks))
        )


class EmbeddingAdapter(Adapter):
    def ask(self, request: EmbeddingRequest) -> schemas.EmbeddingInput:
        return schemas.EmbeddingInput(
            image=[_file(image) for image in request.images] or None,
            text=list(request.texts) or None,
            normalize=request.normalize,
        )

    def read(self, output: schemas.EmbeddingOutput) -> EmbeddingResult:
        return EmbeddingResult(output.embeddings.to_numpy())


class NerAdapter(Adapter):
    def ask(self, request: NerRequest) -> schemas.NERInput:
        return schemas.NERInput(text=request.text)

    def read(self, output: schemas.NEROutput) -> NerResult:
        return NerResult(tuple(Entity(**entity.model_dump()) for entity in output.entities))


class VlmAdapter(Adapter):
    def ask(self, request: ChatRequest) -> schemas.VLMInput:
        """A plain prompt as such; a conversation as chat templates read it, with its images beside it, in order."""
        prompt: str | list[dict[str, Any]] = [
            {"role": message.role, "content": [_spelled(part) for part in message.parts]}
            for message in request.messages
        ]
        if len(request.messages) == 1 and request.messages[0].role == "user":
            prompt = "\n".join(request.messages[0].texts)
        images = [_file(image) for message in request.messages for image in message.images]
        return schemas.VLMInput.model_validate(
            {
                "prompt": prompt,
                "images": images or None,
                "max_new_tokens": request.max_new_tokens or USUAL_NEW_TOKENS,
                "temperature": request.temperature,
            }
        )

    def read(self, output: schemas.VLMOutput) -> ChatResult:
        usage = TokenUsage(output.usage.prompt_tokens, output.usage.completion_tokens)
        return ChatResult(output.generated_text, "stop", usage)


TASKS: Mapping[str, Task] = {
    "detection": "detection",
    "segmentation": "segmentation",
    "embedding": "embedding",
    "ner": "ner",
    "vlm": "chat",
}
ADAPTERS: Mapping[str, Adapter] = {
    "detection": DetectionAdapter(),
    "segmentation": SegmentationAdapter(),
    "embedding": EmbeddingAdapter(),
    "ner": NerAdapter(),
    "vlm": VlmAdapter(),
}


class PixanoModel(Model[Any, Any, Any, Any]):
    """A plugin's model. Its `predict` runs on the device's thread, as a network of ours would."""

    def __init__(self, config: ModelDeploymentConfig, device: str, dtype: str) -> None:
        self.model_id = str(config.model_params.get("path") or config.name)
        self.device, self.dtype = device, dtype
        self.max_batch = config.max_batch_size
        self._adapter = ADAPTERS[config.capability]
        self._model: Any = ModelClassRegistry.get(config.model_class)(config)
        try:
            self._model.load_model()
        except WRONG_PARAMETERS as error:
            raise NotFound(
                f"{config.model_class} does not load with these parameters. {type(error).__name__}: {error}"
            ) from error
        interface = self._model.interface
        self.interface = None if interface is None else interface.model_dump(mode="json", by_alias=True)

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


def _file(image: NDArray[np.uint8]) -> bytes:
    """An image as plugins decode it: losslessly, and written and read at the speed of memory."""
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "BMP")
    return buffer.getvalue()


def _spelled(part: Part) -> dict[str, Any]:
    return {"type": "text", "text": part} if isinstance(part, str) else {"type": "image"}


def _object(masks: Sequence[Any], scores: NDArray[np.float32], logits: NDArray[np.float32] | None, index: int) -> Any:
    """The readings of one prompt, best first."""
    order = np.argsort(-scores[: len(masks)], kind="stable")
    runs = [from_coco_rle({"size": masks[place].size, "counts": masks[place].counts}) for place in order]
    coarse = np.zeros((len(runs), 1, 1), np.float32) if logits is None else logits[index][order]
    boxes = np.array([each.box or (0, 0, 0, 0) for each in runs], np.float32).reshape(-1, 4)
    return ObjectMasks(scores[order], boxes, tuple(runs), coarse)
