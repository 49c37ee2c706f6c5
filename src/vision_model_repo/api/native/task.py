"""What the native protocol needs to know of a task: its bodies and answers, and the way between wire and task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from vision_model_repo.api.json_bounds import AtMost
from vision_model_repo.api.native.answer import Answer
from vision_model_repo.api.native.images import Picture, WireImage
from vision_model_repo.api.native.models import ModelId
from vision_model_repo.engine.images import MaskStore
from vision_model_repo.errors import TooLarge
from vision_model_repo.settings import Settings

Unit = Annotated[float, Field(ge=0, le=1)]
Arrays = dict[str, NDArray[Any]]


class Options(BaseModel):
    """All of a request but its images."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    # Fields that a form may repeat.
    repeated: ClassVar[frozenset[str]] = frozenset()

    model_id: ModelId | None = Field(
        None,
        description="Checkpoint: a Hugging Face id, an embedded `demo/` id, or the path of a folder on the server. "
        "The one in memory or the default if left out.",
        examples=["facebook/sam3"],
    )


class Images(BaseModel):
    """The images of a request."""

    images: Annotated[list[WireImage], AtMost(lambda limits: limits.max_images)] = Field(
        min_length=1,
        description="One or more images: base64 strings (with or without a `data:` prefix), `http(s)` URLs, or objects "
        "that say which of the two they are, or that name an image stored before by its id.",
        examples=[["iVBORw0KGgoAAAANSUhEUg..."], [{"data": "https://example.com/image.jpg", "format": "url"}]],
    )


OptionsT = TypeVar("OptionsT", bound=Options)
RequestT = TypeVar("RequestT")
ResultT = TypeVar("ResultT")
Part = TypeVar("Part")


class NativeTask(ABC, Generic[OptionsT, RequestT, ResultT, Part]):
    """One task, for every model that does it.

    Attributes:
        options: schema of a request without its images, which is what an upload's form fields fill.
        body: the same with images, which is the JSON body.
        answer: schema of what `join` writes, completed by what every answer has.
        summary: what it does, in a few words.
        light: whether results are written in less time than it takes to hand them to another thread.
    """

    light: ClassVar[bool] = False
    options: type[OptionsT]
    body: type[OptionsT]
    answer: type[Answer]
    summary: str

    @abstractmethod
    def check(self, options: OptionsT, images: int, limits: Settings) -> None:
        """Raises InvalidInput or TooLarge for what can be known without seeing the images."""

    def recall(self, options: OptionsT, masks: MaskStore) -> None:
        """Looks up the masks that options name, so that they cannot expire before they are needed.

        Raises InvalidInput for a mask that is not kept.
        """

    @abstractmethod
    def request(self, options: OptionsT, index: int, picture: Picture) -> RequestT:
        """The request for one image. Raises InvalidInput for options that do not fit the image."""

    def keep(self, results: Sequence[Any], masks: MaskStore) -> Sequence[ResultT]:
        """The results, with ids for what a later request may refer to."""
        return results

    def check_results(self, options: OptionsT, results: Sequence[ResultT], limits: Settings) -> None:
        """Raises InvalidInput or TooLarge for results that cannot be written as JSON in the way asked for."""

    @abstractmethod
    def encode(self, options: OptionsT, request: RequestT, result: ResultT) -> Part:
        """What is written of one image. Runs in a pixel thread, unless the task is light."""

    @abstractmethod
    def join(self, options: OptionsT, parts: Sequence[Part]) -> bytes:
        """The answer as a JSON object, without what every answer has. Runs where `encode` does."""

    @abstractmethod
    def arrays(
        self, options: OptionsT, requests: Sequence[RequestT], results: Sequence[ResultT], limits: Settings
    ) -> Arrays:
        """The answer as arrays by name. Runs in a pixel thread.

        Raises InvalidInput or TooLarge for results that make no arrays, or too large ones.
        """

    @abstractmethod
    def draw(self, request: RequestT, result: ResultT) -> NDArray[np.uint8]:
        """The result as a picture for people, (H, W, 3) RGB. Runs in a pixel thread."""


def check_count(images: int, limits: Settings) -> None:
    if images > limits.max_images:
        raise TooLarge(f"images has {images} entries; at most {limits.max_images} are accepted in one request.")


def check_listed(values: int, limits: Settings, advice: str) -> None:
    """Raises TooLarge if an answer would write more numbers as JSON lists than settings allow."""
    if values > limits.max_dense_values:
        raise TooLarge(f"The answer would list {values} numbers; at most {limits.max_dense_values} are. {advice}")


def rounded(values: NDArray[Any], digits: int) -> list[Any]:
    """Numbers with as many decimals as mean something, which writes float32 in a third of the characters."""
    return np.round(values.astype(np.float64), digits).tolist()
