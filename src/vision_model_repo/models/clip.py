"""Dual encoders: images and texts in one space, where a picture lies near what would be said of it.

CLIP (Radford et al., 2021; https://huggingface.co/openai/clip-vit-large-patch14) and SigLIP (Zhai et al., 2023),
through transformers, or through OpenCLIP where a checkpoint comes in its form alone.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoTokenizer, CLIPModel, PreTrainedModel, SiglipModel

from vision_model_repo.errors import InvalidInput, NotFound
from vision_model_repo.models import open_clip_config, open_clip_towers
from vision_model_repo.models.base import Checkpoint
from vision_model_repo.models.checkpoint_files import reads_checkpoint
from vision_model_repo.models.photo_input import PhotoInput, photo_input
from vision_model_repo.models.token_ids import check_ids
from vision_model_repo.models.torch_model import UNTRUSTED, TorchModel, check_architecture, place, read, read_config
from vision_model_repo.tasks.embedding import EmbeddingRequest, EmbeddingResult, unit_length

NETWORKS: dict[str, type[PreTrainedModel]] = {"clip": CLIPModel, "siglip": SiglipModel}
MAX_BATCH = 16


class Towers(Protocol):
    """A network for images and one for texts."""

    @property
    def parts(self) -> Sequence[nn.Module]:
        """The modules that take most of the time."""
        ...

    @property
    def vocabulary(self) -> int:
        """Tokens that the network for texts has."""
        ...

    def embed_images(self, pixels: Tensor) -> Tensor:
        """(N, D) of images (N, 3, H, W)."""
        ...

    def embed_texts(self, ids: Tensor) -> Tensor:
        """(N, D) of tokens (N, T); what comes after the one that ends a text does not count."""
        ...


class TextReader(Protocol):
    """Turns texts into tokens, each with the one that ends it.

    Attributes:
        padding: the token behind the end of a text that is shorter than others.
    """

    padding: int

    def __call__(self, texts: Sequence[str]) -> tuple[list[list[int]], tuple[int, ...]]:
        """Tokens of every text, and the places of those texts that were cut."""
        ...


class TransformersTowers(nn.Module):
    """The towers of one of transformers' networks."""

    def __init__(self, network: PreTrainedModel) -> None:
        super().__init__()
        self.network: Any = network

    @property
    def parts(self) -> Sequence[nn.Module]:
        return [self.network.vision_model, self.network.text_model]

    @property
    def vocabulary(self) -> int:
        return self.network.text_model.get_input_embeddings().weight.shape[0]

    def embed_images(self, pixels: Tensor) -> Tensor:
        return self.network.get_image_features(pixel_values=pixels).pooler_output

    def embed_texts(self, ids: Tensor) -> Tensor:
        return self.network.get_text_features(input_ids=ids).pooler_output


class TransformersReader:
    """Texts as a tokenizer of transformers reads them.

    Args:
        most: tokens that are read.
        filled: whether every text is as long as the longest that is read, which is how SigLIP was trained.
    """

    def __init__(self, tokenizer: Any, most: int, *, filled: bool) -> None:
        self.padding = int(tokenizer.pad_token_id or 0)
        self._tokenizer, self._most = tokenizer, most
        self._options = {"padding": "max_length", "max_length": most} if filled else {}
        # How it is to cut is a state of the tokenizer.
        self._lock = threading.Lock()

    def __call__(self, texts: Sequence[str]) -> tuple[list[list[int]], tuple[int, ...]]:
        with self._lock:
            found = self._tokenizer(list(texts), **self._options, verbose=False)["input_ids"]
            truncated = tuple(index for index, ids in enumerate(found) if len(ids) > self._most)
            for index in truncated:
                found[index] = self._tokenizer(texts[index], truncation=True, max_length=self._most)["input_ids"]
        return found, truncated


@dataclass(frozen=True, slots=True)
class Item:
    """Images, or texts in tokens, and the places of the texts that were cut."""

    images: tuple[Tensor, ...] = ()
    texts: tuple[Sequence[int], ...] = ()
    truncated: tuple[int, ...] = ()
    normalize: bool = True


class DualEncoder(TorchModel[EmbeddingRequest, Item, NDArray[np.float32], EmbeddingResult]):
    """A dual encoder on one device."""

    def __init__(self, checkpoint: Checkpoint, towers: Any, reader: TextReader, images: PhotoInput) -> None:
        super().__init__(checkpoint, towers, max_batch=MAX_BATCH)
        self._reader = reader
        self._rows = towers.vocabulary
        self._images = images

    @property
    def encoders(self) -> Sequence[nn.Module]:
        return self.network.parts

    def preprocess(self, request: EmbeddingRequest) -> Item:
        if bool(request.images) == bool(request.texts):
            raise InvalidInput("Give either images or texts, and at least one of them.")
        if request.prompt is not None:
            raise InvalidInput(f"{self.model_id} has no prompts.")
        if request.images:
            return Item(tuple(self._images.prepare(image) for image in request.images), normalize=request.normalize)
        ids, truncated = self._reader(request.texts)
        check_ids(self.model_id, ids, self._rows)
        return Item(texts=tuple(ids), truncated=truncated, normalize=request.normalize)

    def batch_key(self, item: Item) -> Hashable:
        return bool(item.images)

    def forward(self, items: Sequence[Item]) -> list[NDArray[np.float32]]:
        with torch.inference_mode():
            if items[0].images:
                pixels = [image for item in items for image in item.images]
                parts = [
                    self.network.embed_images(self._images.batch(pixels[start : start + MAX_BATCH], self._torch_dtype))
                    for start in range(0, len(pixels), MAX_BATCH)
                ]
                vectors = torch.cat(parts)
            else:
                vectors = self.network.embed_texts(self._padded([ids for item in items for ids in item.texts]))
            vectors = vectors.float().cpu().numpy()
        return np.split(vectors, np.cumsum([len(item.images) + len(item.texts) for item in items])[:-1])

    def postprocess(self, raw: NDArray[np.float32], item: Item) -> EmbeddingResult:
        return EmbeddingResult(unit_length(raw) if item.normalize else raw, item.truncated, sum(map(len, item.texts)))

    @property
    def _torch_dtype(self) -> torch.dtype:
        return getattr(torch, self.dtype)

    def _padded(self, texts: Sequence[Sequence[int]]) -> Tensor:
        """(N, T) on the device. No text attends to what comes after its end, so that padding changes nothing."""
        ids = np.full((len(texts), max(map(len, texts))), self._reader.padding)
        for padded, text in zip(ids, texts, strict=True):
            padded[: len(text)] = text
        return torch.from_numpy(ids).to(self.device, non_blocking=True)


@reads_checkpoint
def load(checkpoint: Checkpoint, *, device: str, dtype: str) -> DualEncoder:
    """Reads a checkpoint in the form of transformers, or of OpenCLIP where it comes in that form alone.

    Raises:
        NotFound: the checkpoint is of another model, or parts of it are missing.
    """
    if not _is_transformers(checkpoint):
        network, reader, images = open_clip_towers.read_towers(checkpoint, device)
        return DualEncoder(checkpoint, place(network, device=device, dtype=dtype), reader, images)
    kind = check_architecture(checkpoint, list(NETWORKS))
    network: Any = read(NETWORKS[kind], checkpoint)
    text = network.config.text_config
    reader = TransformersReader(
        _read_tokenizer(checkpoint), text.max_position_embeddings, filled=network.config.model_type == "siglip"
    )
    towers = place(TransformersTowers(network), device=device, dtype=dtype)
    return DualEncoder(checkpoint, towers, reader, photo_input(checkpoint, device))


def _is_transformers(checkpoint: Checkpoint) -> bool:
    if not (checkpoint.folder / open_clip_config.NAME).is_file():
        return True
    if not (checkpoint.folder / "config.json").is_file():
        return False
    return read_config(checkpoint).get("model_type") in NETWORKS


def _read_tokenizer(checkpoint: Checkpoint) -> Any:
    try:
        return AutoTokenizer.from_pretrained(checkpoint.folder, **UNTRUSTED)
    except ImportError as error:
        # Some kinds are read by packages of their own, which the message names in its first sentence.
        why = str(error).strip().partition(". ")[0]
        raise NotFound(f"The tokenizer of {checkpoint.model_id} cannot be read on this server: {why}") from None
    except (OSError, ValueError):
        raise NotFound(f"{checkpoint.model_id} has no tokenizer that can be read. Get its JSON files again.") from None
