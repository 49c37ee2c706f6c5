"""Depth Anything, which estimates from one picture how far away everything in it is.

Depth Anything V2 (Yang et al., 2024; https://huggingface.co/depth-anything/Depth-Anything-V2-Small-hf), through
transformers. Checkpoints of Depth Anything 3 are of the same family but another network, and go to
`depth_anything_3`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import DepthAnythingForDepthEstimation, DPTImageProcessor

from vision_model_repo.errors import InvalidInput
from vision_model_repo.models.base import Checkpoint, EncoderModel, HostArrays, Model
from vision_model_repo.models.checkpoint_files import reads_checkpoint
from vision_model_repo.models.torch_model import (
    ImageInput,
    TorchModel,
    check_architecture,
    place,
    read,
    read_config,
    read_processor,
)
from vision_model_repo.tasks.depth import DepthRequest, DepthResult

MAX_ENLARGEMENT = 8
"""Most pixels that the network sees, as a multiple of those of a square picture. Its shorter side is kept at one
length, so a long strip would take memory and time without bound."""
Unit = Literal["metre", "relative"]
UNITS: dict[str, Unit] = {"metric": "metre", "relative": "relative"}


@dataclass(frozen=True, slots=True)
class DepthMap(HostArrays):
    """Depth as coarse as the network gives it, (h, w)."""

    depth: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Item:
    """The image's size in pixels, and its depth."""

    height: int
    width: int
    coarse: DepthMap | None = None


class DepthAnything(
    TorchModel[DepthRequest, Item, DepthMap, DepthResult],
    EncoderModel[DepthRequest, Item, DepthMap, DepthResult, Tensor, DepthMap],
):
    """Depth Anything V2 on one device, relative or metric.

    The backbone, which is nearly all of the work, runs in the dtype that was asked for. The head always runs in
    float32: with the eight significant bits of bfloat16 a smooth wall would become a staircase.
    """

    answers_alike = True

    def __init__(self, checkpoint: Checkpoint, network: DepthAnythingForDepthEstimation, processor: Any) -> None:
        super().__init__(checkpoint, network)
        self._processor = processor
        self._images = ImageInput(
            self._input_size,
            mean=processor.image_mean,
            std=processor.image_std,
            resample=processor.resample,
            device=self.device,
        )
        self._patch_size = int(self.network.config.patch_size)
        self._unit: Unit = UNITS[self.network.config.depth_estimation_type]

    def preprocess(self, request: DepthRequest) -> Item:
        return Item(*request.image.shape[:2])

    def prepare(self, image: NDArray[np.uint8]) -> Tensor:
        """Raises InvalidInput for a large image that is far longer than wide."""
        return self._images.prepare(image)

    def image_key(self, pixels: Tensor) -> tuple[int, int]:
        return self._images.size(pixels)

    @property
    def encoders(self) -> list[nn.Module]:
        return [self.network.backbone]

    def encode(self, images: Sequence[Tensor]) -> list[DepthMap]:
        pixels = self._images.batch(images, getattr(torch, self.dtype))
        rows, columns = pixels.shape[2] // self._patch_size, pixels.shape[3] // self._patch_size
        with torch.inference_mode():
            features = [level.float() for level in self.network.backbone(pixels).feature_maps]
            depth = self.network.head(self.network.neck(features, rows, columns), rows, columns)
        return [DepthMap(each.copy()) for each in depth.cpu().numpy()]

    def attach(self, item: Item, encoding: DepthMap) -> Item:
        return replace(item, coarse=encoding)

    def forward(self, items: Sequence[Item]) -> list[DepthMap]:
        return [item.coarse for item in items if item.coarse is not None]

    def postprocess(self, raw: DepthMap, item: Item) -> DepthResult:
        return DepthResult(resize_depth(raw.depth, item.height, item.width), self._unit)

    def _input_size(self, height: int, width: int) -> tuple[int, int]:
        target = self._processor.size.height, self._processor.size.width
        rows, columns = resized_size(
            (height, width),
            target,
            keep_aspect_ratio=self._processor.keep_aspect_ratio,
            multiple=self._processor.ensure_multiple_of,
        )
        if rows * columns > MAX_ENLARGEMENT * target[0] * target[1]:
            raise InvalidInput(
                f"The image has {width} x {height} pixels; this model takes no large image that is more than about "
                f"{MAX_ENLARGEMENT} times as long as it is wide. Send it in parts."
            )
        return rows, columns


@reads_checkpoint
def load(checkpoint: Checkpoint, *, device: str, dtype: str) -> Model:
    """Reads a checkpoint in the `-hf` format of Depth Anything V2, or one of Depth Anything 3.

    Raises:
        NotFound: the checkpoint is of another kind, or needs a package that is not installed.
    """
    from vision_model_repo.models import depth_anything_3

    if depth_anything_3.describes(read_config(checkpoint)):
        return depth_anything_3.load(checkpoint, device=device, dtype=dtype)
    check_architecture(checkpoint, ("depth_anything",))
    processor = read_processor(DPTImageProcessor, checkpoint)
    network = place(read(DepthAnythingForDepthEstimation, checkpoint), device=device, dtype="float32")
    place(network.backbone, device=device, dtype=dtype)
    return DepthAnything(checkpoint, network, processor)


def resized_size(
    size: tuple[int, int], target: tuple[int, int], *, keep_aspect_ratio: bool, multiple: int
) -> tuple[int, int]:
    """Height and width that the network sees, by the rule of `DPTImageProcessor`.

    With the aspect ratio kept, the side whose scale is nearer to one gets its target length, and the other follows.
    Both are rounded to multiples of `multiple`, and neither vanishes, as a thin strip's shorter side would.
    """
    scales = [wanted / given for wanted, given in zip(target, size, strict=True)]
    if keep_aspect_ratio:
        scales = [min(scales, key=lambda scale: abs(1 - scale))] * 2
    height, width = (
        max(multiple, round(scale * given / multiple) * multiple) for scale, given in zip(scales, size, strict=True)
    )
    return height, width


def resize_depth(depth: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """A depth map (h, w) at the image's size, (height, width).

    Bicubic, as `DPTImageProcessor` does it, but kept within the map's own range: at an edge of an object the cubic
    swings over, even to distances below zero.
    """
    values = torch.from_numpy(depth)[None, None]
    resized = F.interpolate(values, (height, width), mode="bicubic", align_corners=False)
    return resized.clamp_(*values.aminmax()).numpy()[0, 0]
