"""POST /inference/{a depth model}: depth maps, files and cameras on the wire."""

from __future__ import annotations

import base64
from io import BytesIO
from typing import Any

import httpx
import numpy as np
import pytest
import trimesh
from PIL import Image

from tests.api.conftest import IMAGE, b64, png
from vision_model_repo.api.native.depth import DepthAnswer

URL = "/inference/depth"
# One metre at the top row, eight at the bottom.
ROWS = np.arange(1, 9, dtype=np.float32)[:, None].repeat(16, axis=1)


async def estimate(client: httpx.AsyncClient, url: str = URL, **body: Any) -> DepthAnswer:
    response = await client.post(url, json={"images": [IMAGE], **body})
    assert response.status_code == 200, response.text
    return DepthAnswer.model_validate_json(response.content, strict=True, extra="forbid")


async def test_depth_data_opens_as_a_picture(client: httpx.AsyncClient) -> None:
    answer = await estimate(client, export_format="glb")
    picture = Image.open(BytesIO(base64.b64decode(answer.depth_data)))
    assert picture.size == (16, 8)
    assert answer.depth_data == answer.results[0].depth


async def test_the_pictures_values_are_metres_by_scale_and_offset(client: httpx.AsyncClient) -> None:
    result = (await estimate(client)).results[0]
    values = np.asarray(Image.open(BytesIO(base64.b64decode(result.depth))), np.float64)
    np.testing.assert_allclose(values * result.scale + result.offset, ROWS, atol=result.scale)


async def test_metadata_says_what_the_numbers_mean(client: httpx.AsyncClient) -> None:
    metadata = (await estimate(client, images=[IMAGE, IMAGE])).metadata
    assert (metadata.shape, metadata.unit) == ([2, 8, 16], "metre")
    assert (metadata.min_depth, metadata.max_depth) == ([1.0, 1.0], [8.0, 8.0])
    assert metadata.extrinsics is None


async def test_a_camera_is_assumed_where_the_model_has_none(client: httpx.AsyncClient) -> None:
    metadata = (await estimate(client)).metadata
    assert (metadata.intrinsics_source, metadata.field_of_view) == ("assumed", 60.0)
    focal = 8 / np.tan(np.radians(30))
    np.testing.assert_allclose(metadata.intrinsics, [[[focal, 0, 8], [0, focal, 4], [0, 0, 1]]], rtol=1e-5)


async def test_the_models_camera_is_given_where_it_has_one(client: httpx.AsyncClient) -> None:
    metadata = (await estimate(client, "/inference/camera")).metadata
    assert (metadata.intrinsics_source, metadata.field_of_view, metadata.unit) == ("model", None, "relative")
    assert metadata.intrinsics == [[[50, 0, 0], [0, 50, 0], [0, 0, 1]]]
    assert metadata.extrinsics == [np.eye(4).tolist()]


@pytest.mark.parametrize("url", [URL, "/inference/camera"])
async def test_a_glb_holds_a_surface(client: httpx.AsyncClient, url: str) -> None:
    export = (await estimate(client, url, export_format="glb", images=[b64(png(64, 48))])).results[0].export
    assert export.format == "glb"
    scene: Any = trimesh.load(BytesIO(base64.b64decode(export.data)), file_type="glb")
    assert len(scene.geometry) == 1


async def test_a_ply_holds_coloured_points_in_metres(client: httpx.AsyncClient) -> None:
    export = (await estimate(client, export_format="ply")).results[0].export
    cloud: Any = trimesh.load(BytesIO(base64.b64decode(export.data)), file_type="ply")
    assert len(cloud.vertices) == 8 * 16
    assert cloud.vertices[:, 2].min() == pytest.approx(-8)
    assert tuple(cloud.colors[0][:3]) == (200, 30, 30)


async def test_an_npz_holds_the_arrays(client: httpx.AsyncClient) -> None:
    export = (await estimate(client, export_format="npz")).results[0].export
    with np.load(BytesIO(base64.b64decode(export.data))) as arrays:
        np.testing.assert_array_equal(arrays["depth"], ROWS)
        assert arrays["intrinsics"].shape == (3, 3)


async def test_a_png_is_the_depth_again(client: httpx.AsyncClient) -> None:
    result = (await estimate(client, export_format="png")).results[0]
    assert (result.export.format, result.export.data) == ("png", result.depth)


@pytest.mark.parametrize("export_format", ["gs_ply", "gs_video"])
async def test_gaussians_are_refused_where_there_are_none(client: httpx.AsyncClient, export_format: str) -> None:
    response = await client.post(URL, json={"images": [IMAGE], "export_format": export_format})
    assert response.status_code == 400
    assert "Gaussians" in response.json()["detail"]


async def test_images_of_different_sizes_keep_theirs(client: httpx.AsyncClient) -> None:
    answer = await estimate(client, images=[IMAGE, b64(png(10, 20))])
    assert [result.shape for result in answer.results] == [[8, 16], [20, 10]]
    assert answer.metadata.shape == [2, 8, 16]
