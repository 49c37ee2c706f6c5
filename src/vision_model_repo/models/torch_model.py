"""What all torch models share: where their weights lie, and how pixels become tensors."""

from __future__ import annotations

import ctypes
import gc
import json
import sys
from collections.abc import Sequence
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as transforms
from transformers import BaseImageProcessor, PreTrainedModel, ProcessorMixin
from transformers.utils import logging

from vision_model_repo.errors import NotFound
from vision_model_repo.models.base import Checkpoint, Item, Model, Raw, Request, Result

# A server's log is no place for progress bars.
logging.disable_progress_bar()

Network = TypeVar("Network", bound=nn.Module)
Pretrained = TypeVar("Pretrained", bound=PreTrainedModel)
Processor = TypeVar("Processor", bound=BaseImageProcessor)
PromptProcessor = TypeVar("PromptProcessor", bound=ProcessorMixin)


class TorchModel(Model[Request, Item, Raw, Result]):
    """A model whose weights are torch modules on one device."""

    def __init__(self, checkpoint: Checkpoint, network: nn.Module, *, max_batch: int = 8) -> None:
        parameter = next(network.parameters())
        self.model_id = checkpoint.model_id
        self.device = str(parameter.device)
        self.dtype = str(parameter.dtype).removeprefix("torch.")
        self.max_batch = max_batch
        self._network: nn.Module | None = network

    @property
    def network(self) -> Any:
        """The network, typed as loosely as transformers types what its parts take and return."""
        return self._network

    def memory_bytes(self) -> int:
        if self._network is None:
            return 0
        tensors = [*self._network.parameters(), *self._network.buffers()]
        storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
        return sum(storages.values())

    def unload(self) -> None:
        if self._network is not None:
            # Caches inside transformers keep some modules for ever; like this they keep no weights.
            self._network.to("meta")
        self._network = None
        gc.collect()
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()
        elif sys.platform == "linux":
            _trim_heap()

    def to_device(self, tensors: Sequence[Tensor], dtype: torch.dtype | None = None) -> Tensor:
        """Stacks host tensors and copies them to the device, pinned and without waiting where that is possible."""
        batch = torch.stack(list(tensors))
        if self.device.startswith("cuda"):
            batch = batch.pin_memory()
        return batch.to(self.device, dtype=dtype, non_blocking=True)


def _trim_heap() -> None:
    """Hands freed host memory back to the system; glibc keeps it for itself otherwise, and musl has no such call."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def read_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """What the checkpoint's config.json says.

    Raises:
        NotFound: it is no JSON object.
    """
    try:
        config = json.loads((checkpoint.folder / "config.json").read_bytes())
    except ValueError:
        config = None
    if not isinstance(config, dict):
        raise NotFound(f"The config.json of {checkpoint.model_id} is damaged. Get it again.")
    return config


def check_architecture(checkpoint: Checkpoint, known: Sequence[str]) -> str:
    """The kind of network that a checkpoint is of, by transformers' name for it.

    Raises:
        NotFound: it is none of the known ones.
    """
    name = read_config(checkpoint).get("model_type")
    if name not in known:
        raise NotFound(f"{checkpoint.model_id} is a checkpoint of the kind {name!r}, not {' or '.join(known)}.")
    return str(name)


def read_processor(processor_class: type[Processor], checkpoint: Checkpoint) -> Processor:
    """Reads how a checkpoint wants its images.

    Raises:
        NotFound: it does not say so, or not as one height and width for all.
    """
    try:
        processor: Any = cast(Any, processor_class).from_pretrained(checkpoint.folder, local_files_only=True)
    except (OSError, ValueError):
        raise NotFound(
            f"{checkpoint.model_id} has no preprocessor_config.json that can be read, which says how to prepare images."
        ) from None
    if not (processor.size.height and processor.size.width):
        raise NotFound(f"The preprocessor_config.json of {checkpoint.model_id} gives no height and width of images.")
    return processor


def read_prompt_processor(processor_class: type[PromptProcessor], checkpoint: Checkpoint) -> PromptProcessor:
    """Reads how a checkpoint wants its images and its texts.

    Raises:
        NotFound: the files for either are missing or damaged.
    """
    try:
        return cast(Any, processor_class).from_pretrained(checkpoint.folder, local_files_only=True)
    except (OSError, ValueError):
        raise NotFound(
            f"{checkpoint.model_id} has no processor and tokenizer that can be read, which say how to prepare images "
            "and texts. Get its JSON files again."
        ) from None


def read(network_class: type[Pretrained], checkpoint: Checkpoint, **options: Any) -> Pretrained:
    """Reads a checkpoint's network in float32, for `place` to move.

    Raises:
        NotFound: the checkpoint is of another kind. Reading on would leave weights at random values.
    """
    network, report = cast(Any, network_class).from_pretrained(
        checkpoint.folder,
        dtype=torch.float32,
        use_safetensors=True,
        local_files_only=True,
        output_loading_info=True,
        **options,
    )
    if missing := report["missing_keys"]:
        raise NotFound(
            f"{checkpoint.model_id} is no checkpoint of {network_class.__name__}: {len(missing)} of its weights are "
            f"missing, such as {min(missing)}."
        )
    return network


def place(network: Network, *, device: str, dtype: str) -> Network:
    """Moves a network read in float32 to its device and dtype, ready for inference.

    Checkpoints are read in float32 on purpose: reading in another dtype sets torch's process-wide default for the
    time being, which a forward pass in another thread would see. Buffers that no checkpoint holds, such as rotary
    frequencies, stay as exact as they were computed.
    """
    saved = network.state_dict().keys()
    computed = {name: buffer for name, buffer in network.named_buffers() if name not in saved}
    network = cast(Network, network.eval().requires_grad_(False).to(device=device, dtype=getattr(torch, dtype)))
    for name, buffer in computed.items():
        module, _, attribute = name.rpartition(".")
        setattr(network.get_submodule(module), attribute, buffer.to(device))
    return network


def resize_and_normalize(
    image: NDArray[np.uint8], size: tuple[int, int], *, mean: Sequence[float], std: Sequence[float], resample: Any
) -> Tensor:
    """An (H, W, 3) uint8 image as a (3, height, width) float32 tensor, as the processors of transformers make it.

    The image is resized as uint8 on a channels-last view and normalised in one multiply-add, which is several times
    faster than the processors' own steps and within one grey level of them.

    Args:
        size: height and width in pixels.
        resample: torchvision interpolation mode or PIL resampling constant.
    """
    pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
    if pixels.shape[1:] != torch.Size(size):
        pixels = transforms.resize_image(pixels[None], list(size), interpolation=resample, antialias=True)[0]
    scale = 1.0 / (255.0 * torch.tensor(std, dtype=torch.float32)[:, None, None])
    shift = -torch.tensor(mean, dtype=torch.float32)[:, None, None] * 255.0 * scale
    return torch.addcmul(shift, pixels.to(torch.float32), scale).contiguous()
