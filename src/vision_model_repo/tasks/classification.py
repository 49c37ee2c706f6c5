"""Image classification: how probable each class of a fixed list is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class ClassificationRequest:
    """One image.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        digest: of the pixels, from `formats.images.pixel_digest`, where it is known already.
    """

    image: NDArray[np.uint8]
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class ClassificationResult:
    """The classes of one image, in the model's order.

    Attributes:
        probabilities: (C,) float32, which sum to 1.
        labels: C names of classes, the same for every image.
    """

    probabilities: NDArray[np.float32]
    labels: tuple[str, ...]

    def top(self, count: int) -> list[tuple[str, float]]:
        """The most probable classes with their probabilities, best first."""
        best = np.argsort(-self.probabilities, kind="stable")[:count]
        return [(self.labels[place], float(self.probabilities[place])) for place in best]


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities along the last axis, of logits of any size."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)
