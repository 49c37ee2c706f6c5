"""DINOv3, image features without labels: one vector for the image and one for each patch.

DINOv3 (Siméoni et al., 2025; https://huggingface.co/facebook/dinov3-vitb16-pretrain-lvd1689m), as Vision Transformer
or ConvNeXt, through transformers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DINOv3ConvNextModel, DINOv3ViTImageProcessor, DINOv3ViTModel, PreTrainedModel

from vision_model_repo.models.base import Checkpoint, EncoderModel, HostArrays
from vision_model_repo.models.checkpoint_files import reads_checkpoint
from vision_model_repo.models.torch_model import (
    ImageInput,
    TorchModel,
    check_architecture,
    place,
    read,
    read_processor,
)
from vision_model_repo.tasks.embedding import EmbeddingRequest, EmbeddingResult, unit_length
from vision_model_repo.tasks.features import FeatureRequest, FeatureResult

NETWORKS: dict[str, type[PreTrainedModel]] = {"dinov3_vit": DINOv3ViTModel, "dinov3_convnext": DINOv3ConvNextModel}


@dataclass(frozen=True, slots=True)
class Features(HostArrays):
    """Tokens (T, D) and the pooled vector (D,)."""

    tokens: NDArray[np.float32]
    pooled: NDArray[np.float32]


Request = FeatureRequest | EmbeddingRequest
Result = FeatureResult | EmbeddingResult


@dataclass(frozen=True, slots=True)
class Item:
    """Whether the vectors shall have unit length, whether one for the image is enough, and the image's features."""

    normalize: bool
    embedding: bool = False
    features: Features | None = None


class Dinov3(
    TorchModel[Request, Item, Features, Result],
    EncoderModel[Request, Item, Features, Result, Tensor, Features],
):
    """DINOv3 on one device."""

    answers_alike = True

    def __init__(self, checkpoint: Checkpoint, network: PreTrainedModel, processor: Any) -> None:
        super().__init__(checkpoint, network)
        size, config = processor.size, self.network.config
        # A ConvNeXt halves its input twice in the stem and once before each later stage.
        patch = getattr(config, "patch_size", None) or 4 * 2 ** (len(config.hidden_sizes) - 1)
        self._images = ImageInput(
            lambda height, width: (size["height"], size["width"]),
            mean=processor.image_mean,
            std=processor.image_std,
            resample=processor.resample,
            device=self.device,
        )
        self._grid = (size["height"] // patch, size["width"] // patch)

    def preprocess(self, request: Request) -> Item:
        if isinstance(request, EmbeddingRequest):
            request.check_image()
            return Item(request.normalize, embedding=True)
        return Item(request.normalize)

    def prepare(self, image: NDArray[np.uint8]) -> Tensor:
        return self._images.prepare(image)

    def encode(self, images: Sequence[Tensor]) -> list[Features]:
        with torch.inference_mode():
            outputs = self.network(self._images.batch(images, getattr(torch, self.dtype)))
            tokens = outputs.last_hidden_state.float().cpu().numpy()
            pooled = outputs.pooler_output.float().cpu().numpy()
        return [Features(one.copy(), other.copy()) for one, other in zip(tokens, pooled, strict=True)]

    def attach(self, item: Item, encoding: Features) -> Item:
        return replace(item, features=encoding)

    def forward(self, items: Sequence[Item]) -> list[Features]:
        return [item.features for item in items if item.features is not None]

    def postprocess(self, raw: Features, item: Item) -> Result:
        tokens, pooled = raw.tokens, raw.pooled
        if item.normalize:
            tokens, pooled = unit_length(tokens), unit_length(pooled)
        if item.embedding:
            return EmbeddingResult(pooled[None])
        return FeatureResult(tokens, pooled, self._grid)


@reads_checkpoint
def load(checkpoint: Checkpoint, *, device: str, dtype: str) -> Dinov3:
    """Reads a checkpoint of either architecture.

    Raises:
        NotFound: the checkpoint is of another model.
    """
    network = NETWORKS[check_architecture(checkpoint, list(NETWORKS))]
    processor = read_processor(DINOv3ViTImageProcessor, checkpoint)
    return Dinov3(checkpoint, place(read(network, checkpoint), device=device, dtype=dtype), processor)
