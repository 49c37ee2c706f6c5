"""Dual encoders in the form of OpenCLIP (Ilharco et al., 2021; https://github.com/mlfoundations/open_clip)."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import open_clip
from open_clip.coca_model import CoCa
from open_clip.model import CLIP, CustomTextCLIP
from open_clip.tokenizer import DEFAULT_CONTEXT_LENGTH, HFTokenizer, SimpleTokenizer
from open_clip.transform import PreprocessCfg, merge_preprocess_dict
from torch import Tensor, nn
from torchvision.transforms.v2 import InterpolationMode

from vision_model_repo.errors import NotFound
from vision_model_repo.models import open_clip_config
from vision_model_repo.models.base import Checkpoint
from vision_model_repo.models.photo_input import PhotoInput, fixed, shortest_side
from vision_model_repo.models.torch_model import UNTRUSTED, read_json, without_memory

logger = logging.getLogger(__name__)


class OpenClipTowers(nn.Module):
    """The towers of one of OpenCLIP's networks."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network: Any = network

    @property
    def parts(self) -> Sequence[nn.Module]:
        return [self.network.visual]

    @property
    def vocabulary(self) -> int:
        table = getattr(self.network, "token_embedding", None)
        return (self.network.text.token_embedding if table is None else table).weight.shape[0]

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
    config, weights = read_json(checkpoint, open_clip_config.NAME), _weights(checkpoint)
    try:
        with without_memory(checkpoint):
            _build(config["model_cfg"])
        network: Any = _build(config["model_cfg"])
        open_clip.load_checkpoint(network, str(weights))
        reader = OpenClipReader(_read_tokenizer(checkpoint, config["model_cfg"]["text_cfg"]))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError) as error:
        logger.info("%s cannot be read by OpenCLIP", checkpoint.model_id, exc_info=True)
        raise NotFound(
            f"{checkpoint.model_id} cannot be read by OpenCLIP: its files contradict each other, or are of a kind that "
            "is not known."
        ) from error
    prepares = merge_preprocess_dict(asdict(PreprocessCfg()), config["preprocess_cfg"])
    prepares["size"] = getattr(network.visual, "image_size", prepares["size"])
    return OpenClipTowers(network), reader, _photo_input(checkpoint, prepares, device)


def _build(config: dict[str, Any]) -> nn.Module:
    """A network with random weights, by a configuration that `open_clip_config` has checked.

    As `open_clip.create_model` does it, which would read the file again.
    """
    parts = deepcopy(config)
    custom = parts.pop("custom_text", False)
    kind = CoCa if custom and "multimodal_cfg" in parts else CustomTextCLIP if custom else CLIP
    return kind(**parts)


def _read_tokenizer(checkpoint: Checkpoint, text: dict[str, Any]) -> Any:
    """OpenCLIP's own tokenizer, or one of transformers' from the checkpoint's folder."""
    length, options = text.get("context_length", DEFAULT_CONTEXT_LENGTH), text.get("tokenizer_kwargs") or {}
    if not text.get("hf_tokenizer_name"):
        return SimpleTokenizer(context_length=length, **options)
    mode: Any = text.get("tokenizer_mode")
    return HFTokenizer(str(checkpoint.folder), context_length=length, tokenizer_mode=mode, **options, **UNTRUSTED)


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
