"""Image features of a self-supervised backbone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class FeatureRequest:
    """One image.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        normalize: scale every feature vector to unit length.
        digest: of the pixels, from `formats.images.pixel_digest`, where it is known already.
    """

    image: NDArray[np.uint8]
    normalize: bool = False
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class FeatureResult:
    """Features of one image.

    Attributes:
        last_hidden_state: (tokens, dim) float32; class token, register tokens, then the patches row by row (the
            ConvNeXt models have a pooled token and no registers).
        pooler_output: (dim,) float32, one vector for the whole image.
        grid: rows and columns of the patch tokens, which are the last rows * columns of `last_hidden_state`.
    """

    last_hidden_state: NDArray[np.float32]
    pooler_output: NDArray[np.float32]
    grid: tuple[int, int]
