"""From the coarse logits of a mask to its run lengths at the image's size, without the pixels in between."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from vision_model_repo.formats.masks import RunLengths

Floats = NDArray[np.float32]


def upsample_mask(logits: Floats, height: int, width: int, *, threshold: float = 0.5) -> RunLengths:
    """The mask of the pixels whose bilinearly upsampled logit is above a probability.

    Down a column of the image an upsampled mask can only begin or end where two neighbouring rows of logits lie on
    both sides of the threshold, and linear interpolation says where. So the runs follow from the rows of logits, and
    the rows of the image, a dozen times as many, are never computed.

    Args:
        logits: (h, w) float32, finite, covering the whole image.
        height, width: of the image in pixels.
        threshold: least probability, 0..1.

    Returns:
        The runs of `F.interpolate(logits, (height, width), mode="bilinear") > logit(threshold)`.
    """
    level = _logit(threshold)
    size = height * width
    support = logits > level
    rows, columns = np.flatnonzero(support.any(axis=1)), np.flatnonzero(support.any(axis=0))
    if not len(rows):
        return RunLengths(height, width, np.array([size], np.uint32))

    # No pixel beyond the neighbours of the support can be set.
    top, bottom = max(rows[0] - 1, 0), min(rows[-1] + 2, len(logits))
    low, high, weight, _ = _samples(logits.shape[1], width)
    left, right = np.searchsorted(high, columns[0]), np.searchsorted(low, columns[-1], side="right")
    # Transposed, since runs go down the columns.
    turned = np.ascontiguousarray(logits[top:bottom].T)
    values = turned[low[left:right]]
    values += (turned[high[left:right]] - values) * weight[left:right, None]

    above = np.zeros((right - left, bottom - top + 2), bool)
    above[:, 1:-1] = values > level
    x, k = np.nonzero(above[:, 1:] != above[:, :-1])
    y = _crossings(values, level, x, k, top, _samples(len(logits), height)[3])
    edges, times = np.unique((x + left) * height + y, return_counts=True)
    # Edges at one place cancel out in pairs: runs between two pixels, or going on at the head of the next column.
    edges = edges[times % 2 == 1]
    return RunLengths(height, width, np.diff(edges[edges < size], prepend=0, append=size).astype(np.uint32))


def _logit(probability: float) -> float:
    if probability <= 0:
        return -math.inf
    return math.log(probability / (1 - probability)) if probability < 1 else math.inf


def _samples(coarse: int, fine: int) -> tuple[NDArray[np.intp], NDArray[np.intp], Floats, Floats]:
    """Where the fine pixels lie among the coarse ones: neighbours, weight of the second, and position, each (fine,)."""
    position = (np.arange(fine, dtype=np.float32) + 0.5) * np.float32(coarse / fine) - 0.5
    position = np.clip(position, 0, coarse - 1)
    low = position.astype(np.intp)
    return low, np.minimum(low + 1, coarse - 1), position - low.astype(np.float32), position


def _crossings(
    values: Floats, level: float, x: NDArray[np.intp], k: NDArray[np.intp], top: int, positions: Floats
) -> NDArray[np.intp]:
    """First row of the image below each place where column x of `values` crosses the level just before its row k.

    Args:
        values: (W, h) logits of some columns of the image, in coarse rows from `top`.
        positions: (H,) coarse row at which each row of the image lies.
    """
    before, after = values[x, np.maximum(k - 1, 0)], values[x, np.minimum(k, values.shape[1] - 1)]
    with np.errstate(divide="ignore", invalid="ignore"):
        crossing = (top + k - 1 + (level - before) / (after - before)).astype(np.float32)
    # A pixel just at the level is not set: it comes before a rise and after a fall.
    y = np.where(
        after > before,
        np.searchsorted(positions, crossing, side="right"),
        np.searchsorted(positions, crossing, side="left"),
    )
    # A mask that touches the image's edge ends there without crossing.
    y[k == 0] = 0
    y[k == values.shape[1]] = len(positions)
    return y
