"""What a model is to the engine: three steps, because they want different places.

`preprocess` and `postprocess` run in the pixel threads, for one request at a time and many at once; `forward` runs
on the one thread of the model's device, over whatever requests wait. Most of the work of many models is about the
image alone, whatever is asked about it: they put it into a step of its own, `encode`, whose outcome is kept. This
module imports no torch: the engine and the catalog use it before any model is loaded.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Hashable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from vision_model_repo.models.plain_files import tensor_shapes

Request = TypeVar("Request")
Item = TypeVar("Item")
Raw = TypeVar("Raw")
Result = TypeVar("Result")
Pixels = TypeVar("Pixels")


class Encoding(Protocol):
    """What a model keeps of an image. A torch tensor is one."""

    @property
    def nbytes(self) -> int: ...

    @property
    def device(self) -> object:
        """Where it lies; its text is "cpu" or a device's name."""
        ...

    def to(self, device: str, /) -> Encoding: ...


class HostArrays:
    """An encoding in host memory: base of dataclasses of numpy arrays."""

    @property
    def device(self) -> str:
        return "cpu"

    @property
    def nbytes(self) -> int:
        values = (getattr(self, field.name) for field in fields(cast(Any, self)))
        return sum(value.nbytes for value in values if isinstance(value, np.ndarray))

    def to(self, device: str, /) -> Self:
        """Itself: host memory is where it belongs."""
        return self


EncodingT = TypeVar("EncodingT", bound=Encoding)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Weights on disk.

    Attributes:
        model_id: the name they were asked for by: a hub id, a `demo/` id or a folder.
        folder: the folder of its files.
        on_server: whether it was named by its folder, outside of what callers may know; why it cannot be loaded is
            for the log.
        fallback_reason: why the embedded checkpoint stands in for the default one, where it does.
    """

    model_id: str
    folder: Path
    fallback_reason: str | None = None
    on_server: bool = False

    @property
    def parameter_count(self) -> int:
        """Numbers in the weight files, from their headers alone. Raises Unreadable for a file that is damaged."""
        return sum(
            math.prod(shape) for path in self.folder.glob("*.safetensors") for shape in tensor_shapes(path).values()
        )


class Servable(ABC):
    """What can answer: a checkpoint on a device here, or a model on another server.

    Attributes:
        model_id: which checkpoint this is; every answer says it.
        device: such as "cpu" or "cuda:0".
        dtype: such as "float32" or "bfloat16".
        max_batch: most requests that are worked on at once.
        interface: how it is called, in the words of Pixano's `interface`; None where it does not say.
    """

    model_id: str
    device: str
    dtype: str
    max_batch: int = 8
    interface: Mapping[str, Any] | None = None

    @abstractmethod
    def memory_bytes(self) -> int:
        """Memory held by the weights, in bytes."""

    @abstractmethod
    def unload(self) -> None:
        """Gives the memory back to the device. The model is not used afterwards."""


class Model(Servable, Generic[Request, Item, Raw, Result]):
    """One loaded checkpoint on one device; a forward pass takes items of `max_batch` weight at most."""

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

    def weight(self, item: Item) -> int:
        """For how many an item counts in a forward pass."""
        return 1

    def tune(self, *, compiled: bool = False, channels_last: bool = False) -> None:
        """Prepares the network to run faster, before its first pass. Does nothing for a model that knows no way.

        Args:
            compiled: compile what takes most of the time; every new shape then costs seconds at its first pass.
            channels_last: lay out the weights of convolutions as most kernels for them like it.
        """

    def trim(self) -> None:
        """Gives back what the device keeps for a next pass beyond the weights. Does nothing where it keeps nothing."""

    def __call__(self, request: Request) -> Result:
        """All three steps in the calling thread, for scripts and tests."""
        item = self.preprocess(request)
        return self.postprocess(self.forward([item])[0], item)


class EncoderModel(Model[Request, Item, Raw, Result], Generic[Request, Item, Raw, Result, Pixels, EncodingT]):
    """A model that looks at an image once, and answers whatever is asked about it from what it saw.

    `preprocess` makes an item of the question alone; `attach` completes it by the image's encoding, for `forward`.

    Attributes:
        max_questions: most that the items of one `forward` weigh, as `max_batch` is of one `encode`.
        answers_alike: whether the encoding is the output already, whatever the question; `forward` only hands it on.
    """

    max_questions: int = 16
    answers_alike: ClassVar[bool] = False

    @abstractmethod
    def prepare(self, image: NDArray[np.uint8]) -> Pixels:
        """Turns an (H, W, 3) image into an input of the encoder. Raises InvalidInput for what it cannot take."""

    @abstractmethod
    def encode(self, images: Sequence[Pixels]) -> Sequence[EncodingT]:
        """Runs the encoder once over images of one `image_key`; one encoding for each, none a view of another."""

    def image_key(self, pixels: Pixels) -> Hashable:
        """Images with equal keys may share a pass of the encoder."""
        return None

    @abstractmethod
    def attach(self, item: Item, encoding: EncodingT) -> Item:
        """The item with the encoding of its image."""

    def __call__(self, request: Request) -> Result:
        """All steps in the calling thread, for scripts and tests."""
        encoding = self.encode([self.prepare(cast(Any, request).image)])[0]
        item = self.attach(self.preprocess(request), encoding)
        return self.postprocess(self.forward([item])[0], item)


class GenerativeModel(Model[Request, Item, Raw, Result]):
    """A model whose answer grows step by step.

    Each `forward` carries its one item on for a moment, so that others have the device in between; the item holds
    what has been reached. Where a pass fails, the next one begins the item anew. `max_batch` is the number of items
    that may be under way at once.
    """

    @abstractmethod
    def finished(self, raw: Raw) -> bool:
        """Whether there is nothing to carry on."""

    @abstractmethod
    def abandon(self, item: Item) -> None:
        """Frees what an item holds, and ends a pass over it at its next step. Any thread may call this."""

    def __call__(self, request: Request) -> Result:
        """All steps in the calling thread, for scripts and tests."""
        item = self.preprocess(request)
        while not self.finished(raw := self.forward([item])[0]):
            pass
        return self.postprocess(raw, item)


class RemoteModel(Servable, Generic[Request, Item, Result]):
    """A model that another server runs. It is asked from the event loop, and occupies no device of ours."""

    @abstractmethod
    def preprocess(self, request: Request) -> Item:
        """Turns a request into what is sent. Raises InvalidInput for what it cannot answer."""

    @abstractmethod
    def stream(self, item: Item) -> AsyncGenerator[Result]:
        """The answer as it grows; the last one is whole. Whoever closes the iterator ends the work there."""


class Loader(Protocol):
    """Reads a checkpoint onto a device; the function `load` of every family's module."""

    def __call__(self, checkpoint: Checkpoint, *, device: str, dtype: str) -> Servable: ...
