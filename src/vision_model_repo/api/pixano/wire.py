"""What the contracts share on the wire, and in what they differ: names, arrays and masks.

The contract of the documentation writes names_like_this and arrays as lists of numbers; those of the packages write
namesLikeThis and arrays as base64. All read both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import pybase64
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from vision_model_repo.api.json_bounds import AtMost
from vision_model_repo.api.wire import write
from vision_model_repo.errors import InvalidInput
from vision_model_repo.formats.masks import RunLengths, coco_rle, from_coco_rle

MAX_AXES = 8
LISTED = AtMost(262_144, together=True)
"""Numbers of arrays and masks that are lists, such as the logits of four prompts, which take 25 ms to read.
As base64, which has no such limit, they take 1."""


class WireModel(BaseModel):
    """A schema whose fields are namesLikeThis and may be given as names_like_this; unknown ones are ignored."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, allow_inf_nan=False)


class WireArray(WireModel):
    """An array of float32, in the form of either contract."""

    shape: Annotated[list[Annotated[int, Field(ge=1)]], AtMost(MAX_AXES)] = Field(
        min_length=1, max_length=MAX_AXES, description="Its shape.", examples=[[1, 3]]
    )
    data: str | None = Field(
        None, description="Base64 of its numbers, little-endian float32, the last axis fastest.", examples=["ZmZmPw=="]
    )
    values: Annotated[list[float], LISTED] | None = Field(
        None, description="Its numbers as a list, where there is no data.", examples=[[0.9]]
    )

    def to_numpy(self, name: str) -> NDArray[np.float32]:
        """Raises InvalidInput for data that is no base64, or does not fit the shape."""
        if self.data is not None:
            try:
                raw = pybase64.b64decode(self.data, validate=True)
            except ValueError:
                raise InvalidInput(f"{name}: data is not base64.") from None
            if len(raw) % 4:
                raise InvalidInput(f"{name}: data has {len(raw)} bytes, which make no float32 numbers.")
            numbers = np.frombuffer(raw, "<f4").astype(np.float32)
        else:
            numbers = np.array(self.values or [], np.float32)
        if len(numbers) != math.prod(self.shape):
            raise InvalidInput(f"{name} has {len(numbers)} numbers, which do not fit its shape {self.shape}.")
        if not np.isfinite(numbers).all():
            raise InvalidInput(f"{name} has numbers that are not finite.")
        return numbers.reshape(self.shape)


class WireMask(WireModel):
    """A mask as COCO's run lengths."""

    size: tuple[int, int] = Field(description="Height and width in pixels.", examples=[[8, 16]])
    counts: str | Annotated[list[Annotated[int, Field(ge=0)]], LISTED] = Field(
        description="Run lengths in COCO's compressed form, or as numbers, zeros first.", examples=["04"]
    )

    def to_runs(self) -> RunLengths:
        """Raises InvalidInput for counts that do not fit the size."""
        if isinstance(self.counts, str):
            return from_coco_rle({"size": self.size, "counts": self.counts})
        height, width = self.size
        if min(self.size) < 0 or sum(self.counts) != height * width or height * width >= 2**32:
            raise InvalidInput("The counts of the mask do not add up to its size, or are more than an image has.")
        return RunLengths(height, width, np.array(self.counts, np.uint32))


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one contract writes.

    Attributes:
        name: of a field that is called so in Python.
        array: of numbers.
    """

    name: Callable[[str], str]
    array: Callable[[NDArray[np.floating]], dict[str, Any]]

    def write(self, value: Any) -> bytes:
        """JSON of dictionaries, lists, arrays, masks and plain values."""
        return write(self._plain(value))

    def _plain(self, value: Any) -> Any:
        if isinstance(value, RunLengths):
            return coco_rle(value)
        if isinstance(value, np.ndarray):
            return self.array(value)
        if isinstance(value, Mapping):
            return {self.name(name): self._plain(each) for name, each in value.items()}
        if isinstance(value, Sequence) and not isinstance(value, str | bytes):
            return [self._plain(each) for each in value]
        return value


def _base64_array(array: NDArray[np.floating]) -> dict[str, Any]:
    numbers = np.ascontiguousarray(array, "<f4")
    return {"shape": numbers.shape, "dtype": "float32", "data": pybase64.b64encode(numbers.tobytes()).decode()}


def _listed_array(array: NDArray[np.floating]) -> dict[str, Any]:
    return {"values": array.ravel().tolist(), "shape": array.shape}


V1 = Dialect(to_camel, _base64_array)
"""The packages' contracts, under /v1."""
DOCUMENTED = Dialect(lambda name: name, _listed_array)
"""The documentation's contract, under /inference and /app."""
