"""Classes of images on the wire."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from vision_model_repo.api.native.images import Picture
from vision_model_repo.api.native.task import Answer, Arrays, Images, NativeTask, Options, Unit, rounded
from vision_model_repo.api.wire import write
from vision_model_repo.formats.drawing import draw_boxes
from vision_model_repo.settings import Settings
from vision_model_repo.tasks.classification import ClassificationRequest, ClassificationResult

DIGITS = 6


class ClassificationOptions(Options):
    """How many classes to give."""

    top_k: int = Field(5, ge=1, le=100_000, description="Most classes to give of an image.", examples=[5])
    threshold: Unit = Field(0.0, description="Least probability of a class that is given.", examples=[0.1])


class ClassificationBody(ClassificationOptions, Images):
    """Images, and how many of their classes to give."""


class ImageClass(BaseModel):
    """A class and how probable it is."""

    label: str = Field(description="Name of the class.", examples=["daisy"])
    probability: float = Field(description="0..1; those of all classes sum to 1.", examples=[0.93])


class ClassificationAnswer(Answer):
    """The most probable classes of every image, best first."""

    results: list[list[ImageClass]] = Field(description="For each image, its classes.")


class NativeClassification(
    NativeTask[ClassificationOptions, ClassificationRequest, ClassificationResult, list[dict[str, object]]]
):
    light = True
    options = ClassificationOptions
    body = ClassificationBody
    answer = ClassificationAnswer
    summary = "Image classification"

    def check(self, options: ClassificationOptions, images: int, limits: Settings) -> None:
        """Nothing can be wrong that the schema does not see."""

    def request(self, options: ClassificationOptions, index: int, picture: Picture) -> ClassificationRequest:
        return ClassificationRequest(picture.pixels, digest=picture.digest)

    def encode(
        self, options: ClassificationOptions, request: ClassificationRequest, result: ClassificationResult
    ) -> list[dict[str, object]]:
        best = result.top(options.top_k)
        values = rounded(np.array([probability for _, probability in best]), DIGITS)
        return [
            {"label": label, "probability": value}
            for (label, probability), value in zip(best, values, strict=True)
            if probability >= options.threshold
        ]

    def join(self, options: ClassificationOptions, parts: Sequence[list[dict[str, object]]]) -> bytes:
        return write({"results": parts})

    def arrays(
        self,
        options: ClassificationOptions,
        requests: Sequence[ClassificationRequest],
        results: Sequence[ClassificationResult],
        limits: Settings,
    ) -> Arrays:
        """`probabilities` of all classes, (images, classes), and their `labels`."""
        probabilities = np.stack([result.probabilities for result in results])
        return {"probabilities": probabilities, "labels": np.array(results[0].labels)}

    def draw(self, request: ClassificationRequest, result: ClassificationResult) -> NDArray[np.uint8]:
        """The image with its most probable class written on it."""
        ((label, probability),) = result.top(1)
        height, width = request.image.shape[:2]
        return draw_boxes(request.image, np.array([[0, 0, width, height]]), [label], [probability])
