"""Depth Anything 3, through the optional package `depth-anything-3`.

Its any-view checkpoints (https://huggingface.co/depth-anything/DA3-BASE) also estimate the camera, and its nested one
answers in metres. Only the package's network is used: its own interface wants many more packages, for video and 3D
files, and would write to disk.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_model
from torch import Tensor, nn
from torchvision.transforms.v2 import InterpolationMode

from vision_model_repo.errors import InvalidInput, NotFound
from vision_model_repo.models.base import Checkpoint, EncoderModel, HostArrays
from vision_model_repo.models.catalog import DEPTH_ANYTHING_3
from vision_model_repo.models.depth_anything import resize_depth
from vision_model_repo.models.torch_model import ImageInput, TorchModel, place, read_config
from vision_model_repo.tasks.depth import DepthRequest, DepthResult

LONGER_SIDE = 504
"""Pixels that the package scales an image's longer side to."""
PATCH_SIZE = 14
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
NEARLY_ZERO = 1e-6
ANSWERS = ("depth", "intrinsics", "extrinsics")
"""What is read of the network's output; each (B, 1, ...), the second axis counting the views of a scene."""


@dataclass(frozen=True, slots=True)
class Raw(HostArrays):
    """Depth (h, w), and where the checkpoint estimates the camera its intrinsics (3, 3) and extrinsics (3, 4)."""

    depth: NDArray[np.float32]
    intrinsics: NDArray[np.float32] | None = None
    extrinsics: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """The image's size in pixels, and what the network said of it."""

    height: int
    width: int
    raw: Raw | None = None


class DepthAnything3(
    TorchModel[DepthRequest, Item, Raw, DepthResult],
    EncoderModel[DepthRequest, Item, Raw, DepthResult, Tensor, Raw],
):
    """Depth Anything 3 on one device; each image is a scene of its own.

    The nested checkpoint answers in metres. The others give depth up to a scale (`da3metric-large` too: its metres
    are those of a focal length that it does not estimate), which is answered as inverse depth like any relative one.
    """

    answers_alike = True

    def __init__(self, checkpoint: Checkpoint, network: nn.Module, *, dtype: str) -> None:
        # What finds the sky takes statistics over the whole batch, and no answer shall depend on its company.
        finds_sky = any("sky" in name for name, _ in network.named_parameters())
        super().__init__(checkpoint, network, max_batch=1 if finds_sky else 8)
        self.dtype = dtype
        self._metric = hasattr(network, "da3_metric")
        self._images = ImageInput(
            resized_size, mean=MEAN, std=STD, resample=InterpolationMode.BICUBIC, device=self.device
        )

    def preprocess(self, request: DepthRequest) -> Item:
        return Item(*request.image.shape[:2])

    def prepare(self, image: NDArray[np.uint8]) -> Tensor:
        """On average within one grey level of the package's own two steps."""
        return self._images.prepare(image)

    def image_key(self, pixels: Tensor) -> tuple[int, int]:
        return self._images.size(pixels)

    @property
    def encoders(self) -> list[nn.Module]:
        """One, or two of the nested checkpoint."""
        return [module for name, module in self.network.named_modules() if name.split(".")[-1] == "backbone"]

    def encode(self, images: Sequence[Tensor]) -> list[Raw]:
        pixels = self._images.batch(images, torch.float32)[:, None]
        with torch.inference_mode(), _same_random_numbers(pixels.device), self._autocast(pixels.device):
            try:
                output = self.network(pixels)
            except AssertionError:
                # The nested network's own words, where there is nothing to measure, are an assertion.
                raise InvalidInput("There is nothing but sky in the image, so it has no depth to estimate.") from None
        answers = {name: values[:, 0].float().cpu().numpy() for name, values in output.items() if name in ANSWERS}
        return [Raw(**{name: rows[index].copy() for name, rows in answers.items()}) for index in range(len(images))]

    def attach(self, item: Item, encoding: Raw) -> Item:
        return replace(item, raw=encoding)

    def forward(self, items: Sequence[Item]) -> list[Raw]:
        return [item.raw for item in items if item.raw is not None]

    def postprocess(self, raw: Raw, item: Item) -> DepthResult:
        depth = raw.depth if self._metric else np.reciprocal(np.maximum(raw.depth, NEARLY_ZERO))
        intrinsics = extrinsics = None
        if raw.intrinsics is not None:
            height, width = raw.depth.shape
            scale = np.array([[item.width / width], [item.height / height], [1]], np.float32)
            intrinsics = raw.intrinsics * scale
        if raw.extrinsics is not None:
            extrinsics = np.eye(4, dtype=np.float32)
            extrinsics[:3] = raw.extrinsics[:3]
        unit = "metre" if self._metric else "relative"
        return DepthResult(resize_depth(depth, item.height, item.width), unit, intrinsics, extrinsics)

    def _autocast(self, device: torch.device) -> torch.autocast:
        """The weights stay in float32, as the package wants them; it keeps the heads out of this by itself."""
        return torch.autocast(device.type, getattr(torch, self.dtype), enabled=self.dtype != "float32")


def describes(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is one of Depth Anything 3, by what it says and not by the folder's name."""
    network = config.get("config")
    source = network.get("__object__") if isinstance(network, Mapping) else None
    made_by = source.get("path") if isinstance(source, Mapping) else None
    return str(config.get("model_name")).lower().startswith("da3") or str(made_by).startswith("depth_anything_3.")


def load(checkpoint: Checkpoint, *, device: str, dtype: str) -> DepthAnything3:
    """Reads a checkpoint in the format of `depth-anything/DA3-BASE`.

    Raises:
        NotFound: the package is not installed, or does not know such a checkpoint.
    """
    DEPTH_ANYTHING_3.require(checkpoint.model_id)
    network = _build(checkpoint)
    # The package's own interface wraps the network as its `model`, which the names in the file show.
    wrapped = nn.ModuleDict({"model": network})
    missing, _ = load_model(wrapped, checkpoint.folder / "model.safetensors", strict=False)
    if missing:
        raise NotFound(
            f"{checkpoint.model_id} is no checkpoint of this Depth Anything 3 network: {len(missing)} of its weights "
            f"are missing, such as {min(missing)}."
        )
    return DepthAnything3(checkpoint, place(network, device=device, dtype="float32"), dtype=dtype)


def resized_size(height: int, width: int) -> tuple[int, int]:
    """Height and width that the network sees: the longer side at 504 pixels, both the nearest multiples of 14."""
    scale = LONGER_SIDE / max(height, width)
    resized = (max(1, round(side * scale)) for side in (height, width))
    # A side that lies in the middle is rounded up.
    rows, columns = (max(1, (side + PATCH_SIZE // 2) // PATCH_SIZE) for side in resized)
    return rows * PATCH_SIZE, columns * PATCH_SIZE


def _build(checkpoint: Checkpoint) -> nn.Module:
    """The network with random weights.

    Only by a name that the package knows: its configurations say what to import and call, and those in a checkpoint
    are not ours to run.
    """
    from depth_anything_3.cfg import create_object, load_config  # pyright: ignore[reportMissingImports]
    from depth_anything_3.registry import MODEL_REGISTRY  # pyright: ignore[reportMissingImports]

    name = str(read_config(checkpoint).get("model_name")).lower()
    if name not in MODEL_REGISTRY:
        raise NotFound(
            f"{checkpoint.model_id} is of the kind {name[:80]!r}, which the installed depth-anything-3 does not know. "
            f"It knows {', '.join(MODEL_REGISTRY)}."
        )
    return create_object(load_config(MODEL_REGISTRY[name]))


@contextmanager
def _same_random_numbers(device: torch.device) -> Iterator[None]:
    """The far end of the scene is estimated from a random sample of pixels; equal images shall have equal answers."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        yield
