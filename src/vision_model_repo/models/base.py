"""What a model is to the engine: three steps, because they want different places.

`preprocess` and `postprocess` run in the pixel threads, for one request at a time and many at once; `forward` runs
on the one thread of the model's device, over whatever requests wait. This module imports no torch: the engine and
the catalog use it before any model is loaded.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

Request = TypeVar("Request")
Item = TypeVar("Item")
Raw = TypeVar("Raw")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Weights on disk.

    Attributes:
        model_id: the name they were asked for by: a hub id, a `demo/` id or a folder.
        folder: the folder that `from_pretrained` reads.
        fallback_reason: why the embedded checkpoint stands in for the default one, where it does.
    """

    model_id: str
    folder: Path
    fallback_reason: str | None = None

    @property
    def parameter_count(self) -> int:
        """Numbers in the weight files, from their headers alone."""
        return sum(_count_parameters(path) for path in self.folder.glob("*.safetensors"))


def _count_parameters(path: Path) -> int:
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")


class Model(ABC, Generic[Request, Item, Raw, Result]):
    """One loaded checkpoint on one device.

    Attributes:
        model_id: which checkpoint this is; every answer says it.
        device: such as "cpu" or "cuda:0".
        dtype: such as "float32" or "bfloat16".
        max_batch: most items that one forward pass takes.
    """

    model_id: str
    device: str
    dtype: str
    max_batch: int = 8

    @abstractmethod
    def preprocess(self, request: Request) -> Item:
        """Turns one request into one input of the network. Raises InvalidInput for what it cannot answer."""

    @abstractmethod
    def forward(self, items: Sequence[Item]) -> Sequence[Raw]:
        """Runs the network once over items of one `batch_key`; one output for each, in order."""

    @abstractmethod
    def postprocess(self, raw: Raw, item: Item) -> Result:
        """Turns one output of the network into the answer, in numpy."""

    def batch_key(self, item: Item) -> Hashable:
        """Items with equal keys may share a forward pass: no padding, so no answer depends on its company."""
        return None

    @abstractmethod
    def memory_bytes(self) -> int:
        """Memory held by the weights, in bytes."""

    @abstractmethod
    def unload(self) -> None:
        """Gives the memory back to the device. The model is not used afterwards."""

    def __call__(self, request: Request) -> Result:
        """All three steps in the calling thread, for scripts and tests."""
        item = self.preprocess(request)
        return self.postprocess(self.forward([item])[0], item)


class Loader(Protocol):
    """Reads a checkpoint onto a device; the function `load` of every family's module."""

    def __call__(self, checkpoint: Checkpoint, *, device: str, dtype: str) -> Model: ...
