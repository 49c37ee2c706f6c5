"""How classifiers and dual encoders want their photos: scaled to a side, and often cropped to the middle of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoImageProcessor

from vision_model_repo.errors import NotFound
from vision_model_repo.models.base import Checkpoint
from vision_model_repo.models.checkpoint_config import MAX_SIDE
from vision_model_repo.models.torch_model import UNTRUSTED, ImageInput

Size = tuple[int, int]


class PhotoInput(ImageInput):
    """An `ImageInput` whose images are cropped to their middle after they are scaled.

    Args:
        crop: height and width that the network sees.
        odd_up: whether the larger half of an odd number of spare pixels is cut at the top and the left, as
            torchvision has it, and not at the bottom and the right, as transformers has it.
    """

    def __init__(
        self,
        size_of: Callable[[int, int], Size],
        crop: Size,
        *,
        mean: Any,
        std: Any,
        resample: Any,
        device: str,
        odd_up: bool = False,
    ) -> None:
        super().__init__(size_of, mean=mean, std=std, resample=resample, device=device)
        self._crop = crop
        self._start: Callable[[float], int] = round if odd_up else int

    def prepare(self, image: NDArray[np.uint8]) -> Tensor:
        pixels = super().prepare(image)
        return pixels if pixels.dtype == torch.uint8 else self._middle(pixels)

    def _fetch(self, pixels: Tensor) -> Tensor:
        there = super()._fetch(pixels)
        return self._middle(there) if pixels.dtype == torch.uint8 else there

    def _middle(self, pixels: Tensor) -> Tensor:
        (height, width), (rows, columns) = pixels.shape[-2:], self._crop
        top, left = self._start((height - rows) / 2), self._start((width - columns) / 2)
        return pixels[:, top : top + rows, left : left + columns].contiguous()


def shortest_side(side: int) -> Callable[[int, int], Size]:
    """The size that keeps an image's proportions and has this shortest side. Raises NotFound for an absurd one."""
    _check_side(side)

    def size_of(height: int, width: int) -> Size:
        if height <= width:
            return side, int(side * width / height)
        return int(side * height / width), side

    return size_of


def _check_side(*sides: int) -> None:
    if not all(0 < side <= MAX_SIDE for side in sides):
        raise NotFound(f"The checkpoint prepares images at {max(sides):,} pixels a side; it may be 1 to {MAX_SIDE:,}.")


def fixed(size: Size) -> Callable[[int, int], Size]:
    """One size for all, whatever becomes of their proportions. Raises NotFound for an absurd one."""
    _check_side(*size)
    return lambda height, width: size


def photo_input(checkpoint: Checkpoint, device: str) -> PhotoInput:
    """As the checkpoint's preprocessor_config.json, or processor_config.json, says.

    Raises:
        NotFound: there is none that can be read, or it asks for more than to scale, to crop and to normalise.
    """
    try:
        processor: Any = cast(Any, AutoImageProcessor).from_pretrained(checkpoint.folder, **UNTRUSTED)
    except (OSError, ValueError, json.JSONDecodeError):
        raise NotFound(
            f"{checkpoint.model_id} has no preprocessor_config.json that can be read, which says how to prepare images."
        ) from None
    size, crop = processor.size, getattr(processor, "crop_size", None)
    if not getattr(processor, "do_center_crop", None):
        crop = None
    share = getattr(processor, "crop_pct", None)
    if size.shortest_edge and share and size.shortest_edge < 384:
        # ConvNeXt's way of writing it.
        side = size.shortest_edge
        size_of, crop_to = shortest_side(int(side / share)), (side, side)
    elif size.shortest_edge and crop:
        size_of, crop_to = shortest_side(size.shortest_edge), (crop.height, crop.width)
    elif size.height and size.width and not getattr(processor, "do_pad", None):
        size_of = fixed((size.height, size.width))
        crop_to = (crop.height, crop.width) if crop else (size.height, size.width)
    else:
        raise NotFound(f"The way in which {checkpoint.model_id} prepares images is none that this server knows.")
    mean, std = (processor.image_mean, processor.image_std) if processor.do_normalize else ([0.0] * 3, [1.0] * 3)
    return PhotoInput(size_of, crop_to, mean=mean, std=std, resample=processor.resample, device=device)
