"""A detector that looks at nothing: the middle half of the image is an instance of every phrase.

It has no weights, needs no torch and always answers the same, which is what benchmarks of the server and tests of
the engine want. It is not in the catalog; `SPEC` is what a plugin would register.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vision_model_repo.models.base import Checkpoint, Model
from vision_model_repo.models.catalog import ModelSpec
from vision_model_repo.tasks.detection import DetectionRequest, DetectionResult

SPEC = ModelSpec("dummy", "detection", "vision_model_repo.models.dummy", ("dummy/detector",))


class DummyDetector(Model[DetectionRequest, DetectionRequest, NDArray[np.float32], DetectionResult]):
    """Args: seconds: how long one forward pass keeps the device busy, whatever the batch."""

    def __init__(self, checkpoint: Checkpoint, *, device: str = "cpu", seconds: float = 0.0) -> None:
        self.model_id = checkpoint.model_id
        self.device = device
        self.dtype = "float32"
        self.seconds = seconds

    def preprocess(self, request: DetectionRequest) -> DetectionRequest:
        return request

    def forward(self, items: Sequence[DetectionRequest]) -> Sequence[NDArray[np.float32]]:
        if self.seconds:
            time.sleep(self.seconds)
        sizes = (item.image.shape[:2] for item in items)
        return [np.array([width, height, 3 * width, 3 * height], np.float32) / np.float32(4) for height, width in sizes]

    def postprocess(self, raw: NDArray[np.float32], item: DetectionRequest) -> DetectionResult:
        count = len(item.phrases)
        return DetectionResult(np.tile(raw, (count, 1)), np.ones(count, np.float32), item.phrases)

    def memory_bytes(self) -> int:
        return 0

    def unload(self) -> None:
        """Nothing to give back."""


def load(checkpoint: Checkpoint, *, device: str, dtype: str) -> DummyDetector:
    return DummyDetector(checkpoint, device=device)
