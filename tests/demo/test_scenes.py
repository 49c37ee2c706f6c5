"""The world tells the truth about itself."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from vision_model_repo.demo.scenes import (
    COLORS,
    MIN_VISIBLE,
    SHAPES,
    Camera,
    Scene,
    Solid,
    View,
    describes,
    phrases,
    render,
    sample_clip,
    sample_scene,
)

Points = NDArray[np.float64]
SEEDS = range(12)
TOLERANCE = 2e-3
"""Metres; rays are traced in single precision."""


@pytest.fixture(scope="module")
def views() -> list[View]:
    return [render(sample_scene(seed), 160, 120) for seed in SEEDS]


def world_points(view: View) -> Points:
    """Where each pixel's centre lies in the world by its depth and camera alone, (H, W, 3)."""
    rows, columns = np.indices(view.depth.shape) + 0.5
    pixels = np.stack([columns, rows, np.ones_like(rows)], axis=-1)
    in_camera = pixels @ np.linalg.inv(view.intrinsics.astype(float)).T * view.depth[..., None]
    pose = np.linalg.inv(view.extrinsics.astype(float))
    return in_camera @ pose[:3, :3].T + pose[:3, 3]


def from_axis(solid: Solid, points: Points) -> Points:
    return np.hypot(points[:, 0] - solid.x, points[:, 1] - solid.y)


def off_surface(solid: Solid, points: Points) -> Points:
    """Distance of points from a solid's surface, at least for those near it, in metres, (N,)."""
    radius, height, z = solid.radius, solid.height, points[:, 2]
    if solid.shape == "sphere":
        return np.abs(np.linalg.norm(points - [solid.x, solid.y, radius], axis=1) - radius)
    if solid.shape == "cube":
        turned = (points[:, 0] - solid.x) + 1j * (points[:, 1] - solid.y)
        turned = turned * np.exp(-1j * solid.yaw)
        from_centre = np.stack([turned.real, turned.imag, z - solid.half_width], axis=1)
        return np.abs(np.abs(from_centre).max(axis=1) - solid.half_width)
    if solid.shape == "cylinder":
        return np.abs(np.maximum(from_axis(solid, points) - radius, z - height))
    return np.abs(from_axis(solid, points) - radius * (1 - z / height)) * np.cos(np.arctan2(radius, height))


def test_a_seed_is_one_picture() -> None:
    one, two, other = (render(sample_scene(seed), 64) for seed in (3, 3, 4))
    assert (one.image == two.image).all()
    assert (one.depth == two.depth).all()
    assert (one.instances == two.instances).all()
    assert (one.image != other.image).any()


def test_pictures_have_the_size_asked_for() -> None:
    view = render(sample_scene(0), 80, 60)
    assert view.image.shape == (60, 80, 3)
    assert view.image.dtype == np.uint8
    assert view.depth.shape == view.instances.shape == (60, 80)
    assert render(sample_scene(0), 64).image.shape == (64, 64, 3)


def test_masks_are_disjoint_and_say_what_instances_say(views: list[View]) -> None:
    for view in views:
        assert view.masks.shape == (len(view.solids), 120, 160)
        assert view.masks.sum(axis=0).max() <= 1
        assert (view.masks.any(axis=0) == (view.instances >= 0)).all()
        for index, mask in enumerate(view.masks):
            assert (view.instances[mask] == index).all()


def test_boxes_are_tight(views: list[View]) -> None:
    for view in views:
        for mask, (x0, y0, x1, y1) in zip(view.masks, view.boxes.astype(int), strict=True):
            inside = mask[y0:y1, x0:x1]
            assert inside.sum() == mask.sum()
            assert inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any()


def test_what_is_hidden_is_left_out() -> None:
    hidden, front = Solid("cube", "red", 0.0, 0.4, 0.12), Solid("cube", "blue", 0.0, 0.0, 0.27)
    view = render(Scene((hidden, front), LOW_CAMERA, LIGHT, GROUND), 96)
    assert view.names == ["blue cube"]
    assert set(np.unique(view.instances)) == {-1, 0}
    for index in SEEDS:
        assert (render(sample_scene(index), 96).masks.mean(axis=(1, 2)) >= MIN_VISIBLE).all()


def test_the_ground_lies_at_zero(views: list[View]) -> None:
    for view in views:
        ground = world_points(view)[view.instances < 0]
        assert np.abs(ground[:, 2]).max() < TOLERANCE


def test_points_of_an_object_lie_on_its_surface(views: list[View]) -> None:
    seen = set()
    for view in views:
        points = world_points(view)
        for solid, mask in zip(view.solids, view.masks, strict=True):
            assert off_surface(solid, points[mask]).max() < TOLERANCE, solid
            seen.add(solid.shape)
    assert seen == set(SHAPES)


def test_a_sphere_is_where_the_camera_projects_it() -> None:
    ball = Solid("sphere", "green", 0.3, -0.2, 0.2)
    view = render(Scene((ball,), LOW_CAMERA, LIGHT, GROUND), 256)
    centre = view.extrinsics @ [ball.x, ball.y, ball.radius, 1.0]
    x, y, z = view.intrinsics @ centre[:3]
    rows, columns = np.nonzero(view.masks[0])
    assert columns.mean() + 0.5 == pytest.approx(x / z, abs=1.5)
    assert rows.mean() + 0.5 == pytest.approx(y / z, abs=1.5)
    assert view.depth[view.masks[0]].min() == pytest.approx(z - ball.radius, abs=0.02)


def test_the_camera_is_rigid_and_above_the_table(views: list[View]) -> None:
    for view in views:
        rotation = view.extrinsics[:3, :3]
        assert rotation @ rotation.T == pytest.approx(np.eye(3), abs=1e-5)
        assert np.linalg.det(rotation) == pytest.approx(1, abs=1e-5)
        assert np.linalg.inv(view.extrinsics)[2, 3] > 0


@pytest.mark.parametrize("seed", SEEDS)
def test_the_truth_does_not_depend_on_the_size(seed: int) -> None:
    small, large = render(sample_scene(seed), 64, 48), render(sample_scene(seed), 192, 144)
    # A pixel of the small picture is three by three of the large one, with the same ray through its centre.
    same = large.instances[1::3, 1::3]
    assert small.names == large.names
    assert (small.instances == same).all()
    assert small.depth == pytest.approx(large.depth[1::3, 1::3], rel=1e-4)
    assert small.intrinsics[:2] * 3 == pytest.approx(large.intrinsics[:2])
    assert (small.extrinsics == large.extrinsics).all()
    assert small.boxes * 3 == pytest.approx(large.boxes, abs=3)


def test_a_band_of_the_square_is_the_wide_picture() -> None:
    square, wide = render(sample_scene(7), 128), render(sample_scene(7), 128, 96)
    assert wide.depth == pytest.approx(square.depth[16:-16], rel=1e-4)
    assert (wide.instances == square.instances[16:-16]).mean() > 0.999


def test_smooth_pictures_keep_the_truth() -> None:
    plain, smooth = render(sample_scene(2), 64), render(sample_scene(2), 64, samples=2)
    assert (plain.instances == smooth.instances).all()
    assert (plain.depth == smooth.depth).all()
    assert len(np.unique(smooth.image)) > len(np.unique(plain.image[:8]))


def test_colours_look_like_their_names(views: list[View]) -> None:
    for view in views:
        for solid, mask in zip(view.solids, view.masks, strict=True):
            pixel = np.median(view.image[mask], axis=0) / 255
            hues = {name: _chroma(np.array(color) ** (1 / 1.4)) @ _chroma(pixel) for name, color in COLORS.items()}
            assert max(hues, key=lambda name: hues[name]) == solid.color


def test_objects_stand_apart_and_in_view() -> None:
    for seed in range(50):
        scene = sample_scene(seed, min_objects=2)
        for index, one in enumerate(scene.solids):
            for other in scene.solids[:index]:
                assert np.hypot(one.x - other.x, one.y - other.y) > one.radius + other.radius
        assert 1 <= len(scene.solids) <= 5


def test_the_number_of_objects_is_bounded_as_asked() -> None:
    counts = [len(sample_scene(seed, min_objects=2, max_objects=3).solids) for seed in range(30)]
    assert max(counts) == 3
    assert np.mean([count >= 2 for count in counts]) > 0.9


def test_a_clip_moves_one_object_there_and_back() -> None:
    frames = list(sample_clip(5, 9))
    start = frames[0]
    for frame in frames:
        assert [solid.name for solid in frame.solids] == [solid.name for solid in start.solids]
        assert frame.solids[1:] == start.solids[1:]
        assert frame.camera == start.camera
    path = np.array([(frame.solids[0].x, frame.solids[0].y) for frame in frames])
    assert np.linalg.norm(path - path[0], axis=1).max() > 0.5
    assert path[-1] == pytest.approx(path[0])


def test_a_clip_swings_the_camera_around_a_still_table() -> None:
    frames = list(sample_clip(5, 9, moving="camera"))
    assert len(frames) == 9
    assert all(frame.solids == frames[0].solids for frame in frames)
    azimuths = [frame.camera.azimuth for frame in frames]
    assert max(azimuths) - min(azimuths) > 0.9


def test_a_clip_of_one_frame_is_the_scene_itself() -> None:
    assert list(sample_clip(5, 1)) == [sample_scene(5, min_objects=3)]


@pytest.mark.parametrize(
    ("phrase", "true"),
    [
        ("red cube", True),
        ("cube", True),
        ("red object", True),
        ("object", True),
        ("red", True),
        ("blue cube", False),
        ("red sphere", False),
        ("sphere", False),
        ("big red cube", False),
    ],
)
def test_a_phrase_is_true_if_every_word_is(phrase: str, *, true: bool) -> None:
    assert describes(phrase, Solid("cube", "red", 0, 0, 0.2)) is true


def test_phrases_name_all_kinds_once() -> None:
    assert len(set(phrases())) == len(phrases()) == (len(COLORS) + 1) * (len(SHAPES) + 1)
    assert {"object", "cone", "cyan object", "purple cylinder"} <= set(phrases())


def test_matching_gives_the_objects_that_a_phrase_names(views: list[View]) -> None:
    for view in views:
        assert view.matching("object") == list(range(len(view.solids)))
        for phrase in phrases():
            assert view.matching(phrase) == [
                i for i, name in enumerate(view.names) if describes(phrase, view.solids[i])
            ]


def _chroma(color: NDArray[np.floating]) -> NDArray[np.floating]:
    """Direction of a colour away from grey."""
    offset = color - color.mean()
    return offset / np.linalg.norm(offset)


LOW_CAMERA = Camera(distance=2.2, pitch=0.6, azimuth=0.0, fov=0.85)
LIGHT = (0.0, -0.6, 0.8)
GROUND = ((0.6, 0.6, 0.6), (0.4, 0.4, 0.4))
