"""What all torch models share: where their weights lie, and how pixels become tensors."""

from __future__ import annotations

import ctypes
import logging
import math
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import numpy as np
import torch
from huggingface_hub.errors import StrictDataclassError
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transforms
from transformers import AutoConfig, BaseImageProcessor, PreTrainedModel, ProcessorMixin
from transformers.image_utils import PILImageResampling
from transformers.utils.logging import disable_progress_bar

from vision_model_repo import garbage
from vision_model_repo.errors import NotFound
from vision_model_repo.models import plain_files
from vision_model_repo.models.base import Checkpoint, Item, Model, Raw, Request, Result
from vision_model_repo.models.confinement import released
from vision_model_repo.models.plain_files import tensor_shapes

logger = logging.getLogger(__name__)

# A server's log is no place for progress bars.
disable_progress_bar()

Network = TypeVar("Network", bound=nn.Module)
Pretrained = TypeVar("Pretrained", bound=PreTrainedModel)
Processor = TypeVar("Processor", bound=BaseImageProcessor)
PromptProcessor = TypeVar("PromptProcessor", bound=ProcessorMixin)

MAX_DEVICE_PIXELS = 16_000_000
"""Of an image that is handed to a GPU as it came; a few larger ones would fill the memory that is pinned for them."""
MAX_SHRINK = 16
"""Most by which a GPU shrinks a side: its kernels hold the rows behind one output pixel in a small shared memory."""
MAX_UNFILLED = 10
"""Weights that a network may have for each number in its files; parts that do the same share their weights."""
LEAST_PARTS = 10_000
MAX_PARTS_FOR_TENSOR = 20
"""Modules of a network, with and without weights, for each tensor in its files."""
UNTRUSTED: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
"""What libraries of Hugging Face are told that read a checkpoint: run none of its code, and fetch no other one."""
DEVICE_RESAMPLING = (
    InterpolationMode.BILINEAR,
    InterpolationMode.BICUBIC,
    PILImageResampling.BILINEAR,
    PILImageResampling.BICUBIC,
)
"""What a GPU has kernels for."""


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

    @property
    def encoders(self) -> Sequence[nn.Module]:
        """The modules that take most of the time, which are those worth compiling."""
        return [self.network]

    def tune(self, *, compiled: bool = False, channels_last: bool = False) -> None:
        if channels_last:
            self.network.to(memory_format=torch.channels_last)
        if compiled:
            for encoder in self.encoders:
                # In place: names of weights stay as they are, and whoever holds the module has the compiled one.
                encoder.compile()

    def trim(self) -> None:
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()
        elif sys.platform == "linux":
            _trim_heap()

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
        garbage.collect()
        self.trim()

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
    """What the checkpoint's config.json says. Raises NotFound where it is no JSON object."""
    return read_json(checkpoint, "config.json")


def read_json(checkpoint: Checkpoint, name: str) -> dict[str, Any]:
    """What one of the checkpoint's files says. Raises NotFound where it is not there, or no JSON object."""
    try:
        content = plain_files.read_json(checkpoint.folder / name)
    except plain_files.Unreadable:
        content = None
    if not isinstance(content, dict):
        raise NotFound(f"The {name} of {checkpoint.model_id} is missing or damaged. Get it again.")
    return content


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
        processor: Any = cast(Any, processor_class).from_pretrained(checkpoint.folder, **UNTRUSTED)
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
        processor: Any = cast(Any, processor_class).from_pretrained(checkpoint.folder, **UNTRUSTED)
    except (OSError, ValueError):
        processor = None
    # In place of a tokenizer whose files are missing, transformers makes one that knows no words.
    tokenizer = getattr(processor, "tokenizer", None)
    if processor is None or (tokenizer is not None and len(tokenizer) <= len(tokenizer.all_special_ids)):
        raise NotFound(
            f"{checkpoint.model_id} has no processor and tokenizer that can be read, which say how to prepare images "
            "and texts. Get its JSON files again."
        )
    return processor


def read(
    network_class: type[Pretrained], checkpoint: Checkpoint, *, needless: tuple[str, ...] = (), **options: Any
) -> Pretrained:
    """Reads a checkpoint's network in float32, for `place` to move.

    Args:
        needless: how the names of weights begin that may be missing, since nothing of ours looks at what they make.

    Raises:
        NotFound: the checkpoint is of another kind, or its config.json is of another network. Reading on would leave
            weights at random values.
    """
    try:
        _check_size(network_class, checkpoint)
        network, report = cast(Any, network_class).from_pretrained(
            checkpoint.folder,
            dtype=torch.float32,
            use_safetensors=True,
            **UNTRUSTED,
            output_loading_info=True,
            # They are told of below, in a sentence.
            ignore_mismatched_sizes=True,
            **options,
        )
    except (ValueError, TypeError, StrictDataclassError) as error:
        logger.info("%s cannot be read as %s: %s", checkpoint.model_id, network_class.__name__, error)
        raise NotFound(
            f"{checkpoint.model_id} is no checkpoint of {network_class.__name__}: its config.json describes another "
            "kind of network, or none."
        ) from None
    missing = {name for name in report["missing_keys"] if not name.startswith(needless)}
    for lacking, what in ((missing, "missing"), ({name for name, *_ in report["mismatched_keys"]}, "of another size")):
        if lacking:
            raise NotFound(
                f"{checkpoint.model_id} is no checkpoint of {network_class.__name__}: {len(lacking)} of its weights "
                f"are {what}, such as {min(lacking)}."
            )
    return network


def _check_size(network_class: Any, checkpoint: Checkpoint) -> None:
    """Raises NotFound for a network that its files cannot fill by far: to build it would fill the memory instead."""
    config = (getattr(network_class, "config_class", None) or AutoConfig).from_pretrained(
        checkpoint.folder, **UNTRUSTED
    )
    build = getattr(network_class, "from_config", network_class)
    with without_memory(checkpoint):
        build(config)


@contextmanager
def without_memory(checkpoint: Checkpoint) -> Iterator[None]:
    """Networks built in this block take no memory, and are given up as soon as they outgrow the checkpoint's files.

    Raises:
        NotFound: one describes many more weights than there are numbers in the files, or many more parts.
    """
    counts = [tensor_shapes(path) for path in checkpoint.folder.glob("*.safetensors")]
    tensors = sum(map(len, counts))
    numbers = sum(math.prod(shape) for shapes in counts for shape in shapes.values())
    here, described, parts = threading.get_ident(), 0, 0

    def refuse_beyond(what: str, count: int, most: int, held: int) -> None:
        if count > most:
            raise NotFound(
                f"{checkpoint.model_id} is no checkpoint of this kind: its config.json describes {count:,} {what} or "
                f"more, and its files hold {held:,}."
            )

    def count_weight(module: nn.Module, name: str, weight: nn.Parameter | None) -> None:
        nonlocal described
        if weight is not None and threading.get_ident() == here:
            described += weight.numel()
            refuse_beyond("weights", described, MAX_UNFILLED * numbers, numbers)

    def count_part(module: nn.Module, name: str, part: nn.Module | None) -> None:
        nonlocal parts
        if threading.get_ident() == here:
            parts += 1
            refuse_beyond("parts", parts, LEAST_PARTS + MAX_PARTS_FOR_TENSOR * tensors, tensors)

    hooks = [
        register_module_parameter_registration_hook(count_weight),
        register_module_module_registration_hook(count_part),
    ]
    try:
        with torch.device("meta"):
            yield
    finally:
        for hook in hooks:
            hook.remove()


def place(network: Network, *, device: str, dtype: str) -> Network:
    """Moves a network read in float32 to its device and dtype, ready for inference.

    Checkpoints are read in float32 on purpose: reading in another dtype sets torch's process-wide default for the
    time being, which a forward pass in another thread would see. Buffers that no checkpoint holds, such as rotary
    frequencies, stay as exact as they were computed.
    """
    saved = network.state_dict().keys()
    computed = {name: buffer for name, buffer in network.named_buffers() if name not in saved}
    # A GPU's libraries may open what they like; nothing of a checkpoint is read here.
    with released():
        network = cast(Network, network.eval().requires_grad_(False).to(device=device, dtype=getattr(torch, dtype)))
    for name, buffer in computed.items():
        module, _, attribute = name.rpartition(".")
        setattr(network.get_submodule(module), attribute, buffer.to(device))
    return network


class ImageInput:
    """How a network wants its images, and where they become what it wants.

    The CPU resizes well, but not while it also decodes for a GPU that is many times faster than it. So a GPU is handed
    the pixels as they came, a quarter of the bytes each, in memory that it can fetch without being waited for, and
    resizes and normalises them itself.

    Attributes:
        on_device: whether pixels are handed over as they came.

    Args:
        size_of: height and width that the network sees of an image of a height and a width.
        mean, std: of each channel, of values 0..1.
        resample: torchvision interpolation mode or PIL resampling constant.
    """

    def __init__(
        self,
        size_of: Callable[[int, int], tuple[int, int]],
        *,
        mean: Sequence[float],
        std: Sequence[float],
        resample: Any,
        device: str,
    ) -> None:
        self._size_of = size_of
        # One multiply-add for all of it.
        self._scale = 1.0 / (255.0 * torch.tensor(std, dtype=torch.float32)[:, None, None])
        self._shift = -torch.tensor(mean, dtype=torch.float32)[:, None, None] * 255.0 * self._scale
        self._resample = resample
        self._device = torch.device(device)
        self.on_device = self._device.type == "cuda" and resample in DEVICE_RESAMPLING

    def prepare(self, image: NDArray[np.uint8]) -> Tensor:
        """An (H, W, 3) uint8 image as it came, or as the (3, height, width) float32 tensor that the network wants.

        Either way the network sees what the processors of transformers make, within one grey level, and several times
        sooner.
        """
        height, width = image.shape[:2]
        size = self._size_of(height, width)
        pixels = torch.from_numpy(np.ascontiguousarray(image))
        if not self.on_device or not _suits_device((height, width), size):
            return self._normalize(_resize(pixels.permute(2, 0, 1), size, self._resample)).contiguous()
        return pixels.pin_memory() if self._device.type == "cuda" else pixels

    def size(self, pixels: Tensor) -> tuple[int, int]:
        """Height and width that the network will see of a prepared image."""
        if pixels.dtype == torch.uint8:
            return self._size_of(*pixels.shape[:2])
        return pixels.shape[1], pixels.shape[2]

    def batch(self, images: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
        """(B, 3, height, width) on the device, of prepared images of one size."""
        return torch.stack([self._fetch(pixels) for pixels in images]).to(dtype)

    def _fetch(self, pixels: Tensor) -> Tensor:
        there = pixels.to(self._device, non_blocking=True)
        if pixels.dtype != torch.uint8:
            return there
        return self._normalize(_resize(there.permute(2, 0, 1).float(), self.size(pixels), self._resample))

    def _normalize(self, pixels: Tensor) -> Tensor:
        scale, shift = (values.to(pixels.device) for values in (self._scale, self._shift))
        return torch.addcmul(shift, pixels.to(torch.float32), scale)


def _resize(pixels: Tensor, size: tuple[int, int], resample: Any) -> Tensor:
    """(3, H, W) at (height, width), of whole grey levels; fastest where the values of a pixel lie side by side.

    Floats, the way of a GPU, are rounded after each side, as PIL and torch's kernels for uint8 on the CPU have it: a
    cubic's swing beyond black and white would otherwise still count for the second side.
    """
    if not pixels.is_floating_point():
        return _interpolate(pixels, size, resample)
    for step in ((pixels.shape[1], size[1]), size):
        pixels = _interpolate(pixels, step, resample).round().clamp(0, 255)
    return pixels


def _interpolate(pixels: Tensor, size: tuple[int, int], resample: Any) -> Tensor:
    if pixels.shape[1:] == torch.Size(size):
        return pixels
    return transforms.resize_image(pixels[None], list(size), interpolation=resample, antialias=True)[0]


def _suits_device(given: tuple[int, int], wanted: tuple[int, int]) -> bool:
    """Whether an image is small enough to be handed over whole, and shrinks no further than a GPU's kernels can."""
    height, width = given
    return height * width <= MAX_DEVICE_PIXELS and height <= MAX_SHRINK * wanted[0] and width <= MAX_SHRINK * wanted[1]
