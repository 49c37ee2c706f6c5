"""Detection on the wire."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from vision_model_repo.api.native.images import Picture
from vision_model_repo.api.native.prompts import PROMPT_EXAMPLES, PROMPTS, Prompts, check_prompts, prompts_of
from vision_model_repo.api.native.task import Answer, Arrays, Images, NativeTask, Options, Unit, rounded
from vision_model_repo.api.wire import write, write_list, write_object
from vision_model_repo.errors import InvalidInput
from vision_model_repo.formats.drawing import draw_boxes
from vision_model_repo.settings import Settings
from vision_model_repo.tasks.detection import DetectionRequest, DetectionResult


class DetectionOptions(Options):
    """What to detect."""

    repeated: ClassVar[frozenset[str]] = frozenset({"prompts"})

    prompts: Prompts = Field(description=PROMPTS, examples=PROMPT_EXAMPLES)
    box_threshold: Unit = Field(0.4, description="Least score of a box, 0..1.", examples=[0.4])
    text_threshold: Unit = Field(
        0.3, description="Least score of the words that make up a box's label, 0..1.", examples=[0.3]
    )


class DetectionBody(DetectionOptions, Images):
    """Images, and what to detect in them."""


class Detection(BaseModel):
    """One object."""

    box: list[float] = Field(description="Box `[x0, y0, x1, y1]` in pixels.", examples=[[40.0, 30.0, 120.0, 110.0]])
    score: float = Field(description="Score, 0..1.", examples=[0.87])
    label: str = Field(description="The request's prompt that it answers, as written.", examples=["traffic light"])


class ImageDetections(BaseModel):
    """The objects of one image, best first: one by one, and the same as arrays."""

    boxes: list[Detection] = Field(description="The objects.")
    xyxy: list[list[float]] = Field(
        description="Their boxes, `[x0, y0, x1, y1]` in pixels.", examples=[[[40.0, 30.0, 120.0, 110.0]]]
    )
    scores: list[float] = Field(description="Their scores, 0..1.", examples=[[0.87]])
    labels: list[str] = Field(description="Their prompts.", examples=[["traffic light"]])


class DetectionAnswer(Answer):
    """Objects by image."""

    results: list[ImageDetections] = Field(description="For each image, its objects.")


class NativeDetection(NativeTask[DetectionOptions, DetectionRequest, DetectionResult, bytes]):
    light = True
    options = DetectionOptions
    body = DetectionBody
    answer = DetectionAnswer
    summary = "Object detection"

    def check(self, options: DetectionOptions, images: int, limits: Settings) -> None:
        check_prompts(options.prompts, images, limits)
        for index in range(images):
            if not prompts_of(options.prompts, index):
                raise InvalidInput(f"prompts names nothing to look for in images[{index}].")

    def request(self, options: DetectionOptions, index: int, picture: Picture) -> DetectionRequest:
        phrases = prompts_of(options.prompts, index)
        return DetectionRequest(
            picture.pixels, phrases, options.box_threshold, options.text_threshold, digest=picture.digest
        )

    def encode(self, options: DetectionOptions, request: DetectionRequest, result: DetectionResult) -> bytes:
        boxes, scores, labels = rounded(result.boxes, 2), rounded(result.scores, 6), list(result.labels)
        detections = [
            {"box": box, "score": score, "label": label}
            for box, score, label in zip(boxes, scores, labels, strict=True)
        ]
        return write({"boxes": detections, "xyxy": boxes, "scores": scores, "labels": labels})

    def join(self, options: DetectionOptions, parts: Sequence[bytes]) -> bytes:
        return write_object(results=write_list(parts))

    def arrays(
        self,
        options: DetectionOptions,
        requests: Sequence[DetectionRequest],
        results: Sequence[DetectionResult],
        limits: Settings,
    ) -> Arrays:
        """`boxes_0`, `scores_0` and `labels_0` are of image 0."""
        arrays: Arrays = {}
        for index, result in enumerate(results):
            labels = np.array(result.labels, np.str_)
            arrays |= {f"boxes_{index}": result.boxes, f"scores_{index}": result.scores, f"labels_{index}": labels}
        return arrays

    def draw(self, request: DetectionRequest, result: DetectionResult) -> NDArray[np.uint8]:
        return draw_boxes(request.image, result.boxes, result.labels, result.scores.tolist())
