"""Masks straight from coarse logits are those of an upsampling pixel by pixel."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from vision_model_repo.formats.logits import upsample_mask
from vision_model_repo.formats.masks import encode_mask

ROUNDING = 1e-4
"""Logits this near the threshold may fall to either side of it."""


def upsample(logits: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    return F.interpolate(torch.from_numpy(logits)[None, None], (height, width), mode="bilinear")[0, 0].numpy()


def disc(size: int, radius: float, centre: tuple[float, float]) -> NDArray[np.float32]:
    y, x = np.mgrid[:size, :size]
    return ((radius - np.hypot(y - centre[0], x - centre[1])) / 4).astype(np.float32)


@pytest.mark.parametrize("seed", range(60))
def test_every_pixel_is_that_of_bilinear_upsampling(seed: int) -> None:
    rng = np.random.default_rng(seed)
    coarse, (height, width) = rng.integers(1, 40, 2), rng.integers(1, 200, 2)
    logits = (3 * rng.normal(size=coarse) + 2 * rng.normal()).astype(np.float32)
    threshold = float(rng.uniform(0.1, 0.9))
    runs = upsample_mask(logits, height, width, threshold=threshold)
    distance = upsample(logits, height, width) - math.log(threshold / (1 - threshold))
    expected = distance > 0
    clear = np.abs(distance) > ROUNDING
    assert np.array_equal(runs.to_dense()[clear], expected[clear])
    if clear.all():
        assert runs.counts.tolist() == encode_mask(expected).counts.tolist()


@pytest.mark.parametrize("centre", [(0, 0), (20, 63), (63, 30), (31.5, 31.5)])
@pytest.mark.parametrize("size", [(480, 640), (64, 64), (37, 501)])
def test_masks_may_touch_every_edge(centre: tuple[float, float], size: tuple[int, int]) -> None:
    logits = disc(64, 15, centre)
    assert np.array_equal(upsample_mask(logits, *size).to_dense(), upsample(logits, *size) > 0)


def test_nothing_above_the_threshold_is_an_empty_mask() -> None:
    assert upsample_mask(np.full((8, 8), -1, np.float32), 30, 20).area == 0
    assert upsample_mask(np.full((8, 8), 20, np.float32), 30, 20, threshold=1).area == 0


def test_everything_above_the_threshold_is_a_full_mask() -> None:
    assert upsample_mask(np.full((8, 8), 1, np.float32), 30, 20).area == 600
    assert upsample_mask(np.full((8, 8), -20, np.float32), 30, 20, threshold=0).area == 600


def test_a_part_smaller_than_a_pixel_leaves_no_trace() -> None:
    logits = np.full((64, 64), -1, np.float32)
    logits[10, 10] = 1
    assert upsample_mask(logits, 4, 4).area == 0


def test_a_large_image_costs_no_memory() -> None:
    logits = disc(288, 130, (140, 150))
    tracemalloc.start()
    upsample_mask(logits, 6000, 8000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6000 * 8000 / 2
