from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image
from pycocotools import mask as coco

from vision_model_repo.errors import InvalidInput
from vision_model_repo.formats.masks import (
    RunLengths,
    coco_rle,
    encode_mask,
    encode_mask_png,
    from_coco_rle,
    polygons,
    resolve_overlaps,
)

# pycocotools 2.0 decodes through a numpy interface that numpy 2 calls outdated.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

ANY_MASK = arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=9))


def noise(seed: int, height: int, width: int, share: float) -> np.ndarray:
    return np.random.default_rng(seed).random((height, width)) < share


def shapes() -> dict[str, np.ndarray]:
    y, x = np.mgrid[:120, :90]
    ring = ((x - 45) ** 2 + (y - 60) ** 2 < 40**2) & ((x - 45) ** 2 + (y - 60) ** 2 > 20**2)
    dot = (x == 7) & (y == 9)
    return {
        "empty": np.zeros((120, 90), bool),
        "full": np.ones((120, 90), bool),
        "one pixel": dot,
        "first pixel": (x == 0) & (y == 0),
        "last pixel": (x == 89) & (y == 119),
        "row": y == 50,
        "column": x == 33,
        "columns side by side": (x > 30) & (x < 40),
        "diagonal": x == y,
        "stripes across": y % 2 == 0,
        "stripes along": x % 2 == 1,
        "checkerboard": (x + y) % 2 == 0,
        "ring": ring,
        "sparse noise": noise(0, 120, 90, 0.01),
        "half noise": noise(1, 120, 90, 0.5),
        "dense noise": noise(2, 120, 90, 0.99),
        "one row high": noise(3, 1, 50, 0.5),
        "one column wide": noise(4, 50, 1, 0.5),
    }


EVERY_SHAPE = pytest.mark.parametrize("mask", [pytest.param(mask, id=name) for name, mask in shapes().items()])


def signed_area(ring: list[list[float]]) -> float:
    x, y = np.array(ring).T
    return float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2)


def filled(rings: list[list[list[float]]], height: int, width: int) -> np.ndarray:
    """How often the rings wind around each pixel's centre."""
    winding = np.zeros((height, width), int)
    for ring in rings:
        for (x0, y0), (x1, y1) in zip(ring, ring[1:] + ring[:1], strict=True):
            assert (x0 == x1) != (y0 == y1)
            if x0 == x1:
                winding[int(min(y0, y1)) : int(max(y0, y1)), : int(x0)] += 1 if y1 > y0 else -1
    return winding


@EVERY_SHAPE
def test_runs_are_those_of_pycocotools(mask: np.ndarray) -> None:
    expected: Any = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert coco_rle(encode_mask(mask)) == {"size": list(mask.shape), "counts": expected["counts"].decode()}


@given(ANY_MASK)
def test_runs_are_those_of_pycocotools_for_any_mask(mask: np.ndarray) -> None:
    expected: Any = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert coco_rle(encode_mask(mask))["counts"].encode() == expected["counts"]


@EVERY_SHAPE
def test_runs_unpack_to_the_mask_and_know_its_area_and_box(mask: np.ndarray) -> None:
    runs = encode_mask(mask)
    assert np.array_equal(runs.to_dense(), mask)
    assert runs.counts.dtype == np.uint32 and runs.counts.sum() == mask.size
    assert runs.area == mask.sum()
    rows, columns = np.nonzero(mask)
    tight = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) if mask.any() else None
    assert runs.box == tight


@given(ANY_MASK)
def test_the_box_is_tight_for_any_mask(mask: np.ndarray) -> None:
    rows, columns = np.nonzero(mask)
    tight = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) if mask.any() else None
    assert encode_mask(mask).box == tight


def test_any_value_but_zero_is_set() -> None:
    assert encode_mask(np.array([[0, 7], [255, 0]], np.uint8)).counts.tolist() == [1, 2, 1]


def test_masks_that_are_views_are_read_in_their_own_order() -> None:
    mask = noise(5, 60, 40, 0.3)
    assert np.array_equal(encode_mask(mask.T).to_dense(), mask.T)
    assert np.array_equal(encode_mask(mask[::-2, ::3]).to_dense(), mask[::-2, ::3])


@EVERY_SHAPE
def test_cocos_string_reads_back(mask: np.ndarray) -> None:
    runs = encode_mask(mask)
    rle: Any = coco_rle(runs)
    assert np.array_equal(from_coco_rle(rle).counts, runs.counts)
    assert np.array_equal(coco.decode(rle), mask)


def test_a_run_of_many_million_pixels_reads_back() -> None:
    counts = np.array([3_999_000_000, 500_000, 200_000, 300_000], np.uint32)
    runs = RunLengths(50_000, 80_000, counts)
    assert np.array_equal(from_coco_rle(coco_rle(runs)).counts, counts)


@pytest.mark.parametrize(
    "rle",
    [
        {},
        {"size": [4, 4]},
        {"size": 4, "counts": "`0"},
        {"size": [4, 4], "counts": ""},
        {"size": [4, 4], "counts": "é"},
        {"size": [4, 4], "counts": "P"},
        {"size": [4, 4], "counts": "\x7f\x01"},
        {"size": [4, 4], "counts": "o" * 40 + "0"},
        {"size": [4, 4], "counts": "1"},
        {"size": [-4, -4], "counts": "`0"},
        {"size": [4, 4], "counts": [16]},
    ],
)
def test_malformed_strings_are_refused(rle: dict) -> None:
    with pytest.raises(InvalidInput):
        from_coco_rle(rle)


@given(st.text(st.characters(min_codepoint=40, max_codepoint=120), max_size=30))
def test_any_string_is_read_or_refused(text: str) -> None:
    try:
        runs = from_coco_rle({"size": [4, 4], "counts": text})
    except InvalidInput:
        return
    assert runs.to_dense().shape == (4, 4)


@EVERY_SHAPE
def test_filled_polygons_are_the_mask(mask: np.ndarray) -> None:
    rings = polygons(encode_mask(mask))
    assert np.array_equal(filled(rings, *mask.shape), mask)
    assert sum(signed_area(ring) for ring in rings) == mask.sum()


@given(ANY_MASK)
def test_no_ring_of_any_mask_touches_itself(mask: np.ndarray) -> None:
    rings = polygons(encode_mask(mask))
    assert np.array_equal(filled(rings, *mask.shape), mask)
    for ring in rings:
        assert len(ring) >= 4 and len({tuple(point) for point in ring}) == len(ring)


def test_a_pixel_is_a_square_and_a_line_a_thin_rectangle() -> None:
    mask = np.zeros((6, 9), bool)
    mask[2, 3] = True
    assert polygons(encode_mask(mask)) == [[[3, 2], [4, 2], [4, 3], [3, 3]]]
    mask[2, 3:8] = True
    assert polygons(encode_mask(mask)) == [[[3, 2], [8, 2], [8, 3], [3, 3]]]


def test_holes_are_kept_and_turn_the_other_way() -> None:
    mask = np.zeros((8, 8), bool)
    mask[1:7, 1:7] = True
    mask[3:5, 3:5] = False
    outer, hole = polygons(encode_mask(mask))
    assert (signed_area(outer), signed_area(hole)) == (36, -4)


def test_a_hole_that_touches_the_outside_at_a_corner_stays_a_ring_of_its_own() -> None:
    mask = np.array([[1, 1, 0], [1, 0, 1], [1, 1, 1]], bool)
    assert sorted(signed_area(ring) for ring in polygons(encode_mask(mask))) == [-1, 8]


def test_pixels_that_touch_at_a_corner_are_rings_of_their_own() -> None:
    for mask in (np.eye(2, dtype=bool), ~np.eye(2, dtype=bool)):
        assert [signed_area(ring) for ring in polygons(encode_mask(mask))] == [1, 1]


@EVERY_SHAPE
def test_png_is_one_bit_a_pixel_and_reads_back(mask: np.ndarray) -> None:
    picture = Image.open(BytesIO(encode_mask_png(encode_mask(mask))))
    assert picture.mode == "1"
    assert np.array_equal(np.asarray(picture), mask)


def winners(masks: np.ndarray, priorities: np.ndarray) -> np.ndarray:
    """Pixel by pixel, the mask with the highest priority."""
    strength = np.where(masks, priorities[:, None, None], -np.inf)
    return masks & (np.arange(len(masks))[:, None, None] == strength.argmax(0))


@given(st.integers(0, 10_000), st.integers(1, 6))
def test_each_pixel_goes_to_the_mask_of_highest_priority(seed: int, count: int) -> None:
    random = np.random.default_rng(seed)
    masks = random.random((count, *random.integers(1, 8, 2))) < random.uniform(0.1, 1)
    priorities = random.integers(0, 3, count).astype(float)
    resolved = resolve_overlaps([encode_mask(mask) for mask in masks], priorities.tolist())
    expected = winners(masks, priorities)
    for runs, mask in zip(resolved, expected, strict=True):
        assert np.array_equal(runs.counts, encode_mask(mask).counts)


def test_overlaps_of_nothing() -> None:
    assert resolve_overlaps([], []) == []
