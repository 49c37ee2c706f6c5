"""Classifiers in the form of timm: https://github.com/huggingface/pytorch-image-models."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import timm
import torch
from timm.data.config import resolve_model_data_config
from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset
from torch import Tensor, nn
from torchvision.transforms.v2 import InterpolationMode

from vision_model_repo.errors import NotFound
from vision_model_repo.models.base import Checkpoint
from vision_model_repo.models.photo_input import PhotoInput, fixed, shortest_side
from vision_model_repo.models.torch_model import without_memory

WEIGHTS = "model.safetensors"
LITE = "demo/efficientnet-lite0"
LITE_WEIGHTS = "efficientnet-lite0-*.pth"
LITE_NORMALIZATION = {"mean": (127 / 255,) * 3, "std": (128 / 255,) * 3}


def read_classifier(checkpoint: Checkpoint, device: str) -> tuple[nn.Module, PhotoInput, Sequence[str]]:
    """The network in float32, how it wants images, and its labels; none of a network that has no classes.

    Raises:
        NotFound: timm does not know such a network, the weights are not its, or the way in which it wants images is
            not known here.
    """
    if checkpoint.model_id == LITE:
        network = _read_lite(checkpoint)
        return network, _photo_input(checkpoint, network, device, LITE_NORMALIZATION), _labels(network)
    if not (checkpoint.folder / WEIGHTS).is_file():
        # timm would look for a pickle next.
        raise NotFound(f"{checkpoint.model_id} has no {WEIGHTS}, and pickles are not read.")
    # Checked files of a folder of our own are all that timm gets to see; see `checkpoint_files`.
    name = f"local-dir:{checkpoint.folder}"
    try:
        with without_memory(checkpoint):
            timm.create_model(name)
        network = timm.create_model(name, pretrained=True)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise NotFound(f"{checkpoint.model_id} cannot be read by timm: {str(error)[:200]}") from error
    return network, _photo_input(checkpoint, network, device, {}), _labels(network)


def _read_lite(checkpoint: Checkpoint) -> nn.Module:
    """The network of the package whose weights are a pickle: of numbers alone, and torch is told to read nothing else.

    Its layers have other names than timm's, in the same order.
    """
    weights: dict[str, Tensor] = torch.load(next(checkpoint.folder.glob(LITE_WEIGHTS)), weights_only=True)
    network = timm.create_model("tf_efficientnet_lite0")
    network.load_state_dict(dict(zip(network.state_dict(), weights.values(), strict=True)))
    return network


def _photo_input(
    checkpoint: Checkpoint, network: nn.Module, device: str, known: Mapping[str, Sequence[float]]
) -> PhotoInput:
    config: dict[str, Any] = {**resolve_model_data_config(network), **known}
    height, width = config["input_size"][1:]
    share, mode = max(float(config["crop_pct"]), 1e-3), config["crop_mode"]
    side = math.floor(height / share)
    if mode == "squash":
        size_of = fixed((side, math.floor(width / share)))
    elif mode == "center" and height == width:
        size_of = shortest_side(side)
    else:
        raise NotFound(f"{checkpoint.model_id} crops images by {mode!r}, which this server does not know.")
    return PhotoInput(
        size_of,
        (height, width),
        mean=config["mean"],
        std=config["std"],
        resample=InterpolationMode(config["interpolation"]),
        device=device,
        odd_up=True,
    )


def _labels(network: Any) -> list[str]:
    """Those of the checkpoint, or of the part of ImageNet that has as many; by number where neither is known."""
    count, config = network.num_classes, network.pretrained_cfg
    if names := config.get("label_names"):
        return [str(name) for name in names]
    if subset := infer_imagenet_subset(network):
        known = ImageNetInfo(subset)
        return [known.index_to_description(index) for index in range(count)]
    return [f"LABEL_{index}" for index in range(count)]
