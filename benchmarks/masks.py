"""Fifty full-HD masks to COCO's compressed run lengths: ours, pycocotools, and a loop over the pixels in Python.

python -m benchmarks.masks
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from benchmarks.report import median_ms, print_table
from vision_model_repo.formats.masks import coco_rle, encode_mask

WIDTH, HEIGHT = 1920, 1080
MASKS = 50
LOOP_MASKS = 2
"""The loop takes seconds a mask: it is measured on these, and its time scaled up."""


def main() -> None:
    masks = [ellipses(seed) for seed in range(MASKS)]
    for mask in masks[:3]:
        assert coco_rle(encode_mask(mask)) == with_pycocotools(mask) == with_a_loop(mask)
    rows = [
        ("this server", MASKS, median_ms(partial(encode_all, masks) for _ in range(5))),
        ("pycocotools.mask.encode", MASKS, median_ms(partial(pycocotools_all, masks) for _ in range(5))),
        ("a loop over the pixels", LOOP_MASKS, median_ms(partial(with_a_loop, mask) for mask in masks[:LOOP_MASKS])),
    ]
    per_mask = [rows[0][2] / MASKS, rows[1][2] / MASKS, rows[2][2]]
    print_table(
        f"{MASKS} masks of {WIDTH} x {HEIGHT} to COCO RLE, the same strings from each",
        ("way", "masks measured", f"ms for {MASKS}", "times ours"),
        (
            (name, str(count), f"{each * MASKS:.0f}", f"{each / per_mask[0]:.1f}")
            for (name, count, _), each in zip(rows, per_mask, strict=True)
        ),
    )


def ellipses(seed: int) -> NDArray[np.bool_]:
    """A mask as models give them: one blob of a few percent of the image, with a hole and a wavy edge."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    cx, cy = rng.uniform(0.2, 0.8, 2) * (WIDTH, HEIGHT)
    rx, ry = rng.uniform(0.08, 0.22, 2) * HEIGHT
    angle = np.arctan2(y - cy, x - cx)
    distance = np.hypot((x - cx) / rx, (y - cy) / ry)
    return (distance < 1 + 0.1 * np.sin(9 * angle)) & (distance > 0.15)


def encode_all(masks: list[NDArray[np.bool_]]) -> list[dict[str, Any]]:
    return [coco_rle(encode_mask(mask)) for mask in masks]


def pycocotools_all(masks: list[NDArray[np.bool_]]) -> list[dict[str, Any]]:
    return [with_pycocotools(mask) for mask in masks]


def with_pycocotools(mask: NDArray[np.bool_]) -> dict[str, Any]:
    rle: dict[str, Any] = coco.encode(np.asfortranarray(mask, np.uint8))  # type: ignore[assignment]
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}


def with_a_loop(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Pixel by pixel, down each column, as it is often written."""
    counts, previous, length = [], 0, 0
    height, width = mask.shape
    for x in range(width):
        for y in range(height):
            value = int(mask[y, x])
            if value != previous:
                counts.append(length)
                previous, length = value, 0
            length += 1
    counts.append(length)
    uncompressed: Any = {"size": [height, width], "counts": counts}
    rle = coco.frPyObjects(uncompressed, height, width)
    return {"size": [height, width], "counts": rle["counts"].decode()}


if __name__ == "__main__":
    main()
