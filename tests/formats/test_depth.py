from __future__ import annotations

import warnings
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vision_model_repo.demo.scenes import View, render, sample_scene
from vision_model_repo.formats.depth import (
    encode_depth_png,
    export_glb,
    export_npz,
    export_ply,
    intrinsics_from_fov,
    relative_to_distance,
    to_points,
)


@pytest.fixture(scope="module")
def view() -> View:
    return render(sample_scene(7, min_objects=4), 160, 120)


def opened(data: bytes, kind: str) -> Any:
    import trimesh

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return trimesh.load(BytesIO(data), file_type=kind)


def projected(points: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """Pixels (N, 2) at which points in glTF axes are seen."""
    camera = points * (1, -1, -1)
    return (camera / camera[:, 2:] @ intrinsics.T)[:, :2]


class TestPng:
    def test_values_times_scale_plus_offset_are_the_depth(self, view: View) -> None:
        png = encode_depth_png(view.depth.astype(np.float32))
        picture = Image.open(BytesIO(png.data))
        assert picture.mode == "I;16"
        values = np.asarray(picture)
        assert values.min() == 0 and values.max() == 65535
        span = view.depth.max() - view.depth.min()
        assert np.abs(values * png.scale + png.offset - view.depth).max() <= span / 65535

    def test_constant_depth(self) -> None:
        png = encode_depth_png(np.full((3, 4), 2.5, np.float32))
        assert np.allclose(np.asarray(Image.open(BytesIO(png.data))) * png.scale + png.offset, 2.5)

    def test_what_is_not_finite_is_far(self) -> None:
        png = encode_depth_png(np.array([[1, np.nan, np.inf, -np.inf, 3]], np.float32))
        assert np.asarray(Image.open(BytesIO(png.data))).tolist() == [[0, 65535, 65535, 0, 65535]]
        assert not np.asarray(Image.open(BytesIO(encode_depth_png(np.full((2, 2), np.nan, np.float32)).data))).any()


class TestGeometry:
    def test_points_are_seen_at_the_centres_of_their_pixels(self, view: View) -> None:
        points = to_points(view.depth, view.intrinsics)
        assert points.shape == (120, 160, 3) and points.dtype == np.float32
        pixels = projected(points.reshape(-1, 3) * (1, -1, -1), view.intrinsics).reshape(120, 160, 2)
        rows, columns = np.mgrid[:120, :160] + 0.5
        assert np.allclose(pixels[..., 0], columns, atol=1e-3) and np.allclose(pixels[..., 1], rows, atol=1e-3)

    def test_points_of_the_tabletop_lie_on_it(self, view: View) -> None:
        points = to_points(view.depth, view.intrinsics)[view.instances < 0]
        pose = view.extrinsics
        world = (points - pose[:3, 3]) @ pose[:3, :3]
        assert np.abs(world[:, 2]).max() < 1e-3

    def test_steps_leave_out_pixels_and_move_none(self, view: View) -> None:
        every = to_points(view.depth, view.intrinsics)
        assert np.array_equal(to_points(view.depth, view.intrinsics, step=3), every[::3, ::3])

    def test_field_of_view_spans_the_longer_side(self) -> None:
        for width, height in ((200, 100), (100, 200)):
            matrix = intrinsics_from_fov(width, height, 90)
            assert np.allclose(matrix, [[100, 0, width / 2], [0, 100, height / 2], [0, 0, 1]])
            assert matrix.dtype == np.float32

    def test_relative_depth_becomes_a_distance_from_one_to_ten(self) -> None:
        distance = relative_to_distance(np.array([[0, 5, 10, np.nan]], np.float32))
        assert np.allclose(distance, [[10, 1 / 0.55, 1, 1]])
        assert np.array_equal(relative_to_distance(np.array([[30, 20]], np.float32)) < 5, [[True, False]])
        assert np.isfinite(relative_to_distance(np.full((2, 2), 4, np.float32))).all()


class TestGlb:
    def test_mesh_is_seen_where_the_picture_has_it(self, view: View) -> None:
        (mesh,) = opened(export_glb(view.image, view.depth, view.intrinsics), "glb").geometry.values()
        pixels = projected(mesh.vertices, view.intrinsics)
        rows, columns = np.floor(pixels[:, 1]).astype(int), np.floor(pixels[:, 0]).astype(int)
        assert np.allclose(-mesh.vertices[:, 2], view.depth[rows, columns], rtol=1e-5)
        # Texture coordinates count from the bottom in trimesh.
        assert np.allclose(mesh.visual.uv * (160, 120), np.stack([pixels[:, 0], 120 - pixels[:, 1]], 1), atol=1e-2)
        texture = mesh.visual.material.baseColorTexture
        assert texture.format == "JPEG"
        assert np.abs(np.asarray(texture, int) - view.image).mean() < 4

    def test_faces_look_at_the_camera(self, view: View) -> None:
        (mesh,) = opened(export_glb(view.image, view.depth, view.intrinsics), "glb").geometry.values()
        towards = np.einsum("nk,nk->n", mesh.face_normals, -mesh.triangles_center)
        assert (towards > 0).mean() > 0.999

    def test_no_face_joins_a_near_and_a_far_surface(self) -> None:
        depth = np.full((20, 20), 5, np.float32)
        depth[:, 10:] = 1
        image = np.zeros((20, 20, 3), np.uint8)
        (mesh,) = opened(export_glb(image, depth, intrinsics_from_fov(20, 20, 60)), "glb").geometry.values()
        assert np.ptp(mesh.triangles[..., 2], axis=1).max() == 0
        assert len(mesh.faces) == 2 * 2 * 19 * 9

    def test_ground_seen_at_a_flat_angle_stays_whole(self, view: View) -> None:
        mesh = next(iter(opened(export_glb(view.image, view.depth, view.intrinsics), "glb").geometry.values()))
        assert len(mesh.faces) > 0.93 * 2 * 119 * 159

    def test_vertices_are_bounded(self, view: View) -> None:
        for limit in (100, 1000, 5000):
            data = export_glb(view.image, view.depth, view.intrinsics, max_points=limit)
            (mesh,) = opened(data, "glb").geometry.values()
            assert limit / 4 < len(mesh.vertices) <= limit

    def test_pixels_without_a_distance_are_left_out(self, view: View) -> None:
        depth = view.depth.copy()
        depth[:60] = np.nan
        depth[60:70] = -1
        depth[70:80] = np.inf
        (mesh,) = opened(export_glb(view.image, depth, view.intrinsics), "glb").geometry.values()
        assert np.isfinite(mesh.vertices).all()
        assert projected(mesh.vertices, view.intrinsics)[:, 1].min() > 80

    def test_a_map_without_any_surface_is_still_a_file(self, view: View) -> None:
        assert export_glb(view.image, np.full_like(view.depth, np.nan), view.intrinsics)[:4] == b"glTF"

    def test_large_pictures_become_small_textures(self) -> None:
        image = np.zeros((30, 5000, 3), np.uint8)
        depth = np.ones((30, 5000), np.float32)
        (mesh,) = opened(export_glb(image, depth, intrinsics_from_fov(5000, 30, 60)), "glb").geometry.values()
        assert mesh.visual.material.baseColorTexture.size == (2048, 12)


class TestOtherExports:
    def test_ply_is_a_coloured_point_for_each_pixel(self, view: View) -> None:
        depth = view.depth.copy()
        depth[0, 0] = np.nan
        cloud = opened(export_ply(view.image, depth, view.intrinsics), "ply")
        assert np.array_equal(cloud.colors[:, :3], view.image.reshape(-1, 3)[1:])
        expected = to_points(view.depth, view.intrinsics).reshape(-1, 3)[1:] * (1, -1, -1)
        assert np.allclose(cloud.vertices, expected)

    def test_ply_is_bounded(self, view: View) -> None:
        cloud = opened(export_ply(view.image, view.depth, view.intrinsics, max_points=1000), "ply")
        assert 250 < len(cloud.vertices) <= 1000

    def test_npz_holds_the_arrays_that_are_given(self, view: View) -> None:
        everything = np.load(
            BytesIO(export_npz(view.depth, view.intrinsics, extrinsics=view.extrinsics, image=view.image)),
            allow_pickle=False,
        )
        assert set(everything) == {"depth", "intrinsics", "extrinsics", "image"}
        assert np.array_equal(everything["depth"], view.depth)
        assert np.array_equal(everything["image"], view.image)
        assert set(np.load(BytesIO(export_npz(view.depth, view.intrinsics)))) == {"depth", "intrinsics"}
