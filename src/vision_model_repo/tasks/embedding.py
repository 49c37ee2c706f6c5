"""Embedding: one vector for each image or text, in a space that they share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """Images or texts, one kind of them.

    Attributes:
        images: each (H, W, 3) uint8 RGB.
        normalize: scale every vector to unit length.
    """

    images: tuple[NDArray[np.uint8], ...] = ()
    texts: tuple[str, ...] = ()
    normalize: bool = True


@dataclass(frozen=True, slots=True)
class EmbeddingResult:
    """Vectors (N, D) float32, in the request's order."""

    vectors: NDArray[np.float32]
