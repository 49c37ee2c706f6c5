"""Dual encoders in the form of OpenCLIP (Ilharco et al., 2021; https://github.com/mlfoundations/open_clip)."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import open_clip
from open_clip.model import get_model_preprocess_cfg
from torch import Tensor, nn
from torchvision.transforms.v2 import InterpolationMode

from vision_model_repo.errors import NotFound
from vision_model_repo.models.base import Checkpoint
from vision_model_repo.models.photo_input import PhotoInput, fixed, shortest_side

CONFIG = "open_clip_config.json"


class OpenClipTowers(nn.Module):
    """The towers of one of OpenCLIP's networks."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network: Any = network

    @property
    def parts(self) -> Sequence[nn.Module]:
        return [self.network.visual]

    def embed_images(self, pixels: Tensor) -> Tensor:
        return self.network.encode_image(pixels)

    def embed_texts(self, ids: Tensor) -> Tensor:
        return self.network.encode_text(ids)


class OpenClipReader:
    """Texts as a tokenizer of OpenCLIP reads them: all of one length."""

    padding = 0

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        # How it is to cut is a state of the tokenizers that come from transformers.
        self._lock = threading.Lock()

    def __call__(self, texts: Sequence[str]) -> tuple[list[list[int]], tuple[int, ...]]:
        with self._lock:
            ids = self._tokenizer(list(texts)).tolist()
            most = len(ids[0])
            return ids, tuple(index for index, text in enumerate(texts) if self._length(text) > most)

    def _length(self, text: str) -> int:
        if hasattr(self._tokenizer, "encode"):
            # Of OpenCLIP's own; a token begins the text and one ends it.
            return len(self._tokenizer.encode(text)) + 2
        return len(self._tokenizer.tokenizer(self._tokenizer.clean_fn(text), verbose=False)["input_ids"])


def read_towers(checkpoint: Checkpoint, device: str) -> tuple[nn.Module, OpenClipReader, PhotoInput]:
    """The network in float32, and how it wants texts and images.

    Raises:
        NotFound: OpenCLIP does not know such a network, or the weights are not its.
    """
    name = f"local-dir:{checkpoint.folder}"
    try:
        network: Any = open_clip.create_model(name, load_weights=False, pretrained_text=False)
        open_clip.load_checkpoint(network, str(_weights(checkpoint)))
        reader = OpenClipReader(open_clip.get_tokenizer(name))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError) as error:
        raise NotFound(f"{checkpoint.model_id} cannot be read by OpenCLIP: {str(error)[:200]}") from error
    return OpenClipTowers(network), reader, _photo_input(checkpoint, get_model_preprocess_cfg(network), device)


def _weights(checkpoint: Checkpoint) -> Path:
    found = sorted(checkpoint.folder.glob("*.safetensors"), key=lambda path: not path.name.startswith("open_clip"))
    if not found:
        raise NotFound(f"{checkpoint.model_id} has no safetensors weights, and pickles are not read.")
    return found[0]


def _photo_input(checkpoint: Checkpoint, config: dict[str, Any], device: str) -> PhotoInput:
    given, mode = config["size"], config.get("resize_mode", "shortest")
    size = (given, given) if isinstance(given, int) else (int(given[0]), int(given[1]))
    if mode not in ("shortest", "squash") or (mode == "shortest" and size[0] != size[1]):
        raise NotFound(f"{checkpoint.model_id} prepares images by {mode!r}, which this server does not know.")
    return PhotoInput(
        shortest_side(size[0]) if mode == "shortest" else fixed(size),
        size,
        mean=config["mean"],
        std=config["std"],
        resample=InterpolationMode(config.get("interpolation", "bicubic")),
        device=device,
        odd_up=True,
    )
