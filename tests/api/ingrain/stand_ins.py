"""One model for each library of the protocol, whose answers can be worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.api.stand_ins import StandIn
from tests.engine.weighty import write_checkpoint
from vision_model_repo.errors import InvalidInput, NotFound
from vision_model_repo.models.base import Checkpoint
from vision_model_repo.models.catalog import Catalog, ModelSpec
from vision_model_repo.tasks.classification import ClassificationRequest, ClassificationResult, softmax
from vision_model_repo.tasks.embedding import EmbeddingRequest, EmbeddingResult, unit_length

LABELS = ("dark", "red", "green", "blue")
BROKEN = "broken"
"""A text on which a model fails in a way that nobody foresaw."""


class Texts(StandIn):
    """A text of n characters is (n, 3, 0, 4) before it is scaled, and n tokens."""

    max_batch = 4

    def preprocess(self, request: Any) -> Any:
        if request.images:
            raise InvalidInput("This model does not support image inference.")
        if BROKEN in request.texts:
            raise ZeroDivisionError("secret detail")
        return super().preprocess(request)

    def postprocess(self, raw: EmbeddingRequest, item: EmbeddingRequest) -> EmbeddingResult:
        rows = [(len(text), 3, 0, 4) for text in item.texts] + [_mean(image) for image in item.images]
        vectors = np.array(rows, np.float32)
        return EmbeddingResult(unit_length(vectors) if item.normalize else vectors, tokens=sum(map(len, item.texts)))


class Pairs(Texts):
    """An image is its mean colour and a fourth component of 1."""

    def preprocess(self, request: Any) -> Any:
        return StandIn.preprocess(self, request)


class Classes(Pairs):
    """The brighter a colour, the surer its class; so bright that powers of it overflow."""

    def postprocess(self, raw: Any, item: Any) -> Any:
        if isinstance(item, ClassificationRequest):
            red, green, blue, _ = _mean(item.image)
            return ClassificationResult(softmax(np.array([0, red, green, blue], np.float32)), LABELS)
        return super().postprocess(raw, item)


def _mean(image: Any) -> tuple[float, ...]:
    return (*image.mean(axis=(0, 1)), 1.0)


FAMILIES: dict[str, Any] = {
    "text_embedding": ("embedding", Texts),
    "clip": ("embedding", Pairs),
    "image_classifier": ("classification", Classes),
}


def write_catalog(folder: Path, others: Sequence[ModelSpec]) -> Catalog:
    """The families with no checkpoint of their own; `folder` gets one for each, called as the family."""
    specs = []
    for family, (task, _) in FAMILIES.items():
        if not (folder / family).exists():
            write_checkpoint(folder / family, 0.01)
        specs.append(ModelSpec(family, task, f"tests.api.ingrain.stand_ins:load_{family}", (str(folder / family),)))
    return Catalog((*specs, *others))


def _load(family: str, checkpoint: Checkpoint, device: str) -> StandIn:
    if not checkpoint.folder.name.startswith(family):
        raise NotFound(f"{checkpoint.model_id} is no checkpoint of {family}.")
    return FAMILIES[family][1](checkpoint, device)


def load_text_embedding(checkpoint: Checkpoint, *, device: str, dtype: str) -> StandIn:
    return _load("text_embedding", checkpoint, device)


def load_clip(checkpoint: Checkpoint, *, device: str, dtype: str) -> StandIn:
    return _load("clip", checkpoint, device)


def load_image_classifier(checkpoint: Checkpoint, *, device: str, dtype: str) -> StandIn:
    return _load("image_classifier", checkpoint, device)
