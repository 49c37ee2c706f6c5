from __future__ import annotations

import numpy as np
import pytest

from vision_model_repo.demo.scenes import View, render, sample_scene
from vision_model_repo.formats.drawing import PALETTE, draw_boxes, draw_depth, draw_masks, draw_similarity, draw_tracks
from vision_model_repo.formats.masks import encode_mask


@pytest.fixture(scope="module")
def view() -> View:
    return render(sample_scene(3, min_objects=4), 320, 240)


def near(picture: np.ndarray, color: tuple[int, int, int], tolerance: int = 8) -> np.ndarray:
    return np.asarray((np.abs(picture.astype(int) - color) <= tolerance).all(axis=-1))


def test_masks_are_painted_in_one_colour_a_label() -> None:
    image = np.full((200, 300, 3), 128, np.uint8)
    masks = np.zeros((3, 200, 300), bool)
    masks[0, 50:100, 20:70], masks[1, 50:100, 120:170], masks[2, 50:100, 220:270] = True, True, True
    picture = draw_masks(image, [encode_mask(mask) for mask in masks], ["cup", "plate", "cup"], [0.9, 0.8, 0.7])
    inside = picture[75, [45, 145, 245]]
    assert np.array_equal(inside[0], inside[2]) and not np.array_equal(inside[0], inside[1])
    for column, color in ((20, PALETTE[0]), (120, PALETTE[1]), (220, PALETTE[0])):
        assert near(picture[75], color, 40)[column : column + 2].any()


def test_paint_stays_on_the_mask() -> None:
    image = np.random.default_rng(0).integers(0, 255, (200, 300, 3), dtype=np.uint8)
    mask = np.zeros((200, 300), bool)
    mask[100:150, 100:200] = True
    picture = draw_masks(image, [encode_mask(mask)], ["x"], [1.0])
    changed = (picture != image).any(axis=-1)
    assert not changed[153:].any() and not changed[:, :97].any() and not changed[:, 203:].any()
    assert changed[100:150, 100:200].mean() > 0.99


def test_the_image_itself_is_left_alone(view: View) -> None:
    before = view.image.copy()
    draw_masks(view.image, [encode_mask(mask) for mask in view.masks], view.names, [0.5] * len(view.masks))
    draw_boxes(view.image, view.boxes, view.names, [0.5] * len(view.boxes))
    assert np.array_equal(view.image, before)


def test_boxes_are_drawn_on_their_border_pixels() -> None:
    image = np.zeros((200, 300, 3), np.uint8)
    picture = draw_boxes(image, np.array([[40, 60, 140, 160]], np.float32), ["cup"], [0.9])
    color = near(picture, PALETTE[0], 0)
    assert color[60:160, 40].all() and color[60:160, 139].all() and color[159, 40:140].all()
    assert not color[60:, 140:].any() and not color[160:].any() and not color[100, 50:130].any()


def test_tags_do_not_cover_each_other() -> None:
    image = np.zeros((400, 400, 3), np.uint8)
    box = np.array([[50, 200, 350, 390]] * 3, np.float32)
    picture = draw_boxes(image, box, ["first", "second", "third"], [0.9, 0.8, 0.7])
    areas = [near(picture[:, 52:90], color, 0).sum() for color in PALETTE[:3]]
    assert min(areas) > 0.7 * max(areas) > 0


@pytest.mark.parametrize("label", ["", "two\nlines", "猫", "x" * 10_000, "a\x00b", "\ud800"])
@pytest.mark.parametrize("side", [1, 7, 64])
def test_any_label_can_be_drawn_on_any_image(label: str, side: int) -> None:
    image = np.zeros((side, side, 3), np.uint8)
    masks = [encode_mask(np.ones((side, side), bool)), encode_mask(np.zeros((side, side), bool))]
    assert draw_masks(image, masks, [label, label], [0.5, 0.4]).shape == image.shape
    boxes = np.array([[0, 0, side, side], [side, side, side, side]], np.float32)
    assert draw_boxes(image, boxes, [label, label], [0.5, float("nan")]).shape == image.shape


def test_an_object_keeps_its_colour_over_the_frames() -> None:
    image = np.full((200, 300, 3), 128, np.uint8)
    mask = np.zeros((200, 300), bool)
    mask[60:160, 40:140] = True
    box = (40.0, 60.0, 140.0, 160.0)
    alone = draw_tracks(image, [13], [box], [encode_mask(mask)], [""])
    beside = draw_tracks(image, [2, 13], [(200, 60, 280, 160), box], [None, encode_mask(mask)], ["cup", ""])
    assert np.array_equal(alone[120, 50:130], beside[120, 50:130])
    assert near(beside[100:150, 200], PALETTE[2], 0).all() and near(alone[120], PALETTE[3], 40).any()
    assert (image == 128).all()


def test_nothing_found_leaves_the_picture_as_it_is(view: View) -> None:
    assert np.array_equal(draw_masks(view.image, [], [], []), view.image)
    assert np.array_equal(draw_boxes(view.image, np.zeros((0, 4), np.float32), [], []), view.image)


def test_near_is_warm_and_far_is_cold(view: View) -> None:
    picture = draw_depth(view.depth).astype(int)
    warmth = picture[..., 0] - picture[..., 2]
    nearest, farthest = view.depth < np.quantile(view.depth, 0.1), view.depth > np.quantile(view.depth, 0.9)
    assert picture.shape == (240, 320, 3)
    assert warmth[nearest].mean() > 100 > -50 > warmth[farthest].mean()


def test_what_has_no_distance_is_black() -> None:
    picture = draw_depth(np.array([[1, 2, np.nan, np.inf, 0, -1]], np.float32))
    assert picture[0, :2].any(axis=-1).all() and not picture[0, 2:].any()
    assert not draw_depth(np.full((2, 2), np.nan, np.float32)).any()
    assert draw_depth(np.full((2, 2), 3, np.float32)).shape == (2, 2, 3)


def test_similar_places_are_warm(view: View) -> None:
    grid = np.zeros((6, 8), np.float32)
    grid[4, 6] = 1
    picture = draw_similarity(view.image, grid).astype(int)
    warmth = picture[..., 0] - picture[..., 2]
    y, x = np.unravel_index(warmth.argmax(), warmth.shape)
    assert (y // 40, x // 40) == (4, 6)
    assert draw_similarity(view.image, np.ones((6, 8), np.float32)).shape == view.image.shape
