"""Requests of every task, for the first passes of a model that nobody has asked anything yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vision_model_repo.tasks.chat import ChatRequest
from vision_model_repo.tasks.classification import ClassificationRequest
from vision_model_repo.tasks.depth import DepthRequest
from vision_model_repo.tasks.detection import DetectionRequest
from vision_model_repo.tasks.embedding import EmbeddingRequest
from vision_model_repo.tasks.features import FeatureRequest
from vision_model_repo.tasks.segmentation import ObjectPrompt, SegmentationPrompt, SegmentationRequest
from vision_model_repo.tasks.tracking import TrackMemory, TrackPrompt, TrackRequest

HEIGHT, WIDTH = 480, 640
"""Of an ordinary picture, whose sides' ratio is that of most cameras."""

TEXTS = (("What is in this image?",), ("What is in this image?", "What is here?"))
"""One that is alone, and two of which one is filled up to the other's length: networks go another way with them."""

EXAMPLES: Mapping[str, Callable[[NDArray[np.uint8]], tuple[Any, ...]]] = {
    "segmentation": lambda image: (SegmentationRequest(image, (SegmentationPrompt("object"),)),),
    "detection": lambda image: (DetectionRequest(image, ("object",)),),
    "depth": lambda image: (DepthRequest(image),),
    "classification": lambda image: (ClassificationRequest(image),),
    "features": lambda image: (FeatureRequest(image),),
    "embedding": lambda image: (*(EmbeddingRequest(texts=texts) for texts in TEXTS), EmbeddingRequest((image,))),
    "chat": lambda image: (ChatRequest.ask("What is in this image?", [image], max_new_tokens=2),),
    "tracking": lambda image: (TrackRequest(image, 0, TrackMemory(), (TrackPrompt(0, 1, _middle_of(image)),)),),
}
"""Most tasks have one kind of request. Of several, a model may take some or all; what takes longest comes last."""


def examples(task: str, height: int = HEIGHT, width: int = WIDTH) -> tuple[Any, ...]:
    """A request of each kind that a task has, about a picture. Raises KeyError for a task that has none."""
    return EXAMPLES[task](_picture(height, width))


def _middle_of(image: NDArray[np.uint8]) -> ObjectPrompt:
    height, width = image.shape[:2]
    return ObjectPrompt(((width / 2, height / 2),), (1,))


def _picture(height: int, width: int) -> NDArray[np.uint8]:
    """(height, width, 3): grey from left to right, since some networks see nothing at all in one even colour."""
    row = np.linspace(0, 255, width).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(row[None, :, None], (height, width, 3)))
