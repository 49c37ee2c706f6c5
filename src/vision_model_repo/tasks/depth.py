"""Monocular depth estimation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class DepthRequest:
    """One image.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        digest: of the pixels, from `formats.images.pixel_digest`, where it is known already.
    """

    image: NDArray[np.uint8]
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class DepthResult:
    """Depth of every pixel of the image.

    Attributes:
        depth: (H, W) float32. With unit "metre" the distance along the optical axis, with "relative" the model's
            inverse depth, where larger is nearer and neither scale nor offset means anything.
        unit: "metre" or "relative".
        intrinsics: (3, 3) float32 pinhole matrix in pixels, where the model estimates one.
        extrinsics: (4, 4) float32 world to camera, where the model estimates one.
    """

    depth: NDArray[np.float32]
    unit: Literal["metre", "relative"]
    intrinsics: NDArray[np.float32] | None = None
    extrinsics: NDArray[np.float32] | None = None
