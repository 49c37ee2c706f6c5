"""A detector without a network: boxes around what stands out from the colour of the image's border."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from vision_model_repo.models.base import Model
from vision_model_repo.tasks.detection import DetectionRequest, DetectionResult


class Outstanding(Model[DetectionRequest, DetectionRequest, Any, DetectionResult]):
    def __init__(self, checkpoint: Any, *, device: str, dtype: str) -> None:
        self.model_id, self.device, self.dtype = checkpoint.model_id, "cpu", "float32"

    def preprocess(self, request: DetectionRequest) -> DetectionRequest:
        return request

    def forward(self, items: Sequence[DetectionRequest]) -> list[Any]:
        labelled: Any = [ndimage.label(self._stands_out(item.image)) for item in items]
        return [ndimage.find_objects(labels) for labels, _ in labelled]

    def _stands_out(self, image: np.ndarray) -> np.ndarray:
        border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
        return np.abs(image.astype(int) - np.median(border, axis=0)).sum(axis=2) > 60

    def postprocess(self, raw: Any, item: DetectionRequest) -> DetectionResult:
        boxes = np.array([(x.start, y.start, x.stop, y.stop) for y, x in raw], np.float32).reshape(-1, 4)
        label = item.phrases[0] if item.phrases else "thing"
        return DetectionResult(boxes, np.ones(len(boxes), np.float32), (label,) * len(boxes))

    def memory_bytes(self) -> int:
        return 0

    def unload(self) -> None: ...
