"""Boxes as xyxy pixels: `[x0, y0, x1, y1]`, origin at the image's top left, x1 and y1 exclusive."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.float32]


def clip_boxes(boxes: Boxes, width: int, height: int) -> Boxes:
    """Boxes cut to the image, (N, 4); one that lies outside has no area afterwards."""
    return np.clip(boxes, 0, np.array([width, height, width, height], np.float32)).astype(np.float32)


def box_area(boxes: Boxes) -> NDArray[np.float32]:
    """Areas in square pixels, (N,); 0 where x1 < x0 or y1 < y0."""
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], np.float32(0))
    return sides[:, 0] * sides[:, 1]


def pairwise_iou(first: Boxes, second: Boxes) -> NDArray[np.float32]:
    """Intersection over union of every box of `first` (N, 4) with every one of `second` (M, 4), as (N, M)."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    overlap = np.maximum(high - low, np.float32(0)).prod(axis=2)
    union = box_area(first)[:, None] + box_area(second)[None, :] - overlap
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)


def non_maximum_suppression(
    boxes: Boxes,
    scores: NDArray[np.float32],
    *,
    iou_threshold: float,
    classes: NDArray[np.integer] | None = None,
) -> NDArray[np.intp]:
    """Greedy non-maximum suppression.

    Args:
        boxes: (N, 4).
        scores: (N,); of two boxes that overlap, the one with the higher score stays, the earlier one when equal.
        iou_threshold: overlap above which two boxes count as one.
        classes: (N,) class of each box; boxes of different classes never suppress each other. All one class when
            left out.

    Returns:
        Indices of the boxes that stay, best first.
    """
    order = np.argsort(-scores, kind="stable")
    boxes = boxes[order]
    rivals = pairwise_iou(boxes, boxes) > iou_threshold
    if classes is not None:
        kinds = classes[order]
        rivals &= kinds[:, None] == kinds[None, :]
    keep = np.ones(len(boxes), bool)
    for index in range(len(boxes)):
        if keep[index]:
            keep[index + 1 :] &= ~rivals[index, index + 1 :]
    return order[keep]
