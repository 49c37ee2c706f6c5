"""Open-vocabulary object detection: boxes for a list of phrases."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class DetectionRequest:
    """One image and the phrases to look for.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        phrases: what to find; each label of the answer is one of them, as written.
        box_threshold: least score of a box, 0..1.
        text_threshold: least score of the words that make up a box's label, 0..1.
        digest: of the pixels, from `formats.images.pixel_digest`, where it is known already.
    """

    image: NDArray[np.uint8]
    phrases: tuple[str, ...]
    box_threshold: float = 0.4
    text_threshold: float = 0.3
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class DetectionResult:
    """Detections, best first.

    Attributes:
        boxes: (N, 4) float32 xyxy pixels, inside the image.
        scores: (N,) float32, 0..1.
        labels: N phrases of the request.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: tuple[str, ...]
