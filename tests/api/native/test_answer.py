"""What every answer says besides its results, as JSON and as a file of arrays."""

from __future__ import annotations

import time
from io import BytesIO
from typing import Any

import httpx
import numpy as np
import pytest

from tests.api.conftest import IMAGE, Serve, b64, png
from vision_model_repo.api.native.segmentation import NativeSegmentation

NPZ = {"accept": "application/x-npz"}
PATHS = {
    "seg-menter": {"prompts": ["person", "nothing"]},
    "detector": {"prompts": ["a", "b"]},
    "depth": {},
    "camera": {},
    "backbone": {},
}


async def ask(client: httpx.AsyncClient, model: str, headers: Any = None, **body: Any) -> httpx.Response:
    body = {"images": [IMAGE], **PATHS[model], **body}
    response = await client.post(f"/inference/{model}", json=body, headers=headers)
    assert response.status_code == 200, response.text
    return response


async def arrays(client: httpx.AsyncClient, model: str, **body: Any) -> dict[str, np.ndarray]:
    response = await ask(client, model, NPZ, **body)
    assert response.headers["content-type"] == "application/x-npz"
    with np.load(BytesIO(response.content), allow_pickle=False) as file:
        return dict(file)


@pytest.mark.parametrize("model", PATHS)
async def test_every_answer_says_where_the_time_went(client: httpx.AsyncClient, model: str) -> None:
    answer = (await ask(client, model, images=[IMAGE, IMAGE])).json()
    timings = answer["timings"]
    assert list(timings) == ["decode", "queue", "encode", "prompt", "post", "total"]
    assert all(milliseconds >= 0 for milliseconds in timings.values())
    assert timings["decode"] > 0 and timings["post"] > 0
    assert timings["total"] == pytest.approx(answer["processing_time"] * 1000, abs=0.01)
    assert answer["cache_hits"] == [None, None], "the stand-ins keep nothing"


async def test_the_stages_of_one_image_fit_in_its_total(client: httpx.AsyncClient) -> None:
    *stages, total = (await ask(client, "seg-menter")).json()["timings"].values()
    assert 0 < sum(stages) <= total


async def test_writing_the_answer_counts_as_post(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    join = NativeSegmentation.join

    def slow_join(*args: Any) -> bytes:
        time.sleep(0.1)
        return join(*args)

    monkeypatch.setattr(NativeSegmentation, "join", slow_join)
    assert (await ask(client, "seg-menter")).json()["timings"]["post"] >= 100


async def test_files_say_it_in_headers(client: httpx.AsyncClient) -> None:
    body = {"images": [IMAGE], "prompts": ["a"]}
    for response in (
        await ask(client, "seg-menter", NPZ),
        await client.post("/inference/seg-menter/overlay", json=body),
    ):
        stages = [entry.partition(";")[0] for entry in response.headers["server-timing"].split(", ")]
        assert stages == ["decode", "queue", "encode", "prompt", "post", "total", "cache"]
        assert 'cache;desc="none"' in response.headers["server-timing"]
        assert response.headers["x-model-id"].endswith("-small")


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        ("application/x-npz", "application/x-npz"),
        ("Application/X-NPZ;q=0.9, application/json;q=0.5", "application/x-npz"),
        ("application/x-npz, */*;q=0.1", "application/x-npz"),
        ("*/*", "application/json"),
        ("application/json", "application/json"),
        ("application/json, application/x-npz;q=0.5", "application/json"),
        ("application/x-npz;q=0.1, */*;q=0.9", "application/json"),
        ("application/x-npz;q=0.1, application/*;q=0.9, */*;q=0.1", "application/json"),
        ("application/x-npz, */*", "application/x-npz"),
        ("application/x-npz;q=0", "application/json"),
        ("application/x-npz;q=lots", "application/json"),
        ("", "application/json"),
    ],
)
async def test_the_accept_header_chooses_the_form(client: httpx.AsyncClient, accept: str, media: str) -> None:
    response = await ask(client, "backbone", {"accept": accept})
    assert response.headers["content-type"] == media
    assert "Accept" in response.headers["vary"]


async def test_uploads_choose_too(client: httpx.AsyncClient) -> None:
    response = await client.post("/inference/depth/upload", files={"images": ("a.png", png())}, headers=NPZ)
    assert np.load(BytesIO(response.content))["depth_0"].shape == (8, 16)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
async def test_features_are_arrays_over_all_images(client: httpx.AsyncClient, dtype: str) -> None:
    found = await arrays(client, "backbone", images=[IMAGE, IMAGE], dtype=dtype)
    listed = (await ask(client, "backbone", images=[IMAGE, IMAGE])).json()
    assert set(found) == {"last_hidden_state", "pooler_output", "patch_grid"}
    for name in ("last_hidden_state", "pooler_output"):
        assert found[name].dtype == dtype
        np.testing.assert_array_equal(found[name], np.array(listed["features"][name], dtype))
    assert found["patch_grid"].tolist() == listed["patch_grid"]
    assert set(await arrays(client, "backbone", include=["pooler_output"])) == {"pooler_output", "patch_grid"}


async def test_arrays_of_features_have_no_limit_on_lists(serve: Serve) -> None:
    async with serve(max_dense_values=10) as client:
        assert (await arrays(client, "backbone"))["last_hidden_state"].shape == (1, 3, 3)


async def test_depth_is_an_array_for_each_image(client: httpx.AsyncClient) -> None:
    found = await arrays(client, "depth", images=[IMAGE, b64(png(10, 20))])
    assert (found["depth_0"].shape, found["depth_1"].shape, found["depth_0"].dtype) == ((8, 16), (20, 10), np.float32)
    assert (found["intrinsics"].shape, str(found["unit"])) == ((2, 3, 3), "metre")
    assert "extrinsics" not in found
    assert (await arrays(client, "camera"))["extrinsics"].shape == (1, 4, 4)


async def test_masks_are_booleans_by_image_and_prompt(client: httpx.AsyncClient) -> None:
    found = await arrays(client, "seg-menter", images=[IMAGE, IMAGE], points=[[], [[[6, 4]]]], multimask=False)
    assert (found["masks_1_0"].shape, found["masks_1_0"].dtype) == ((1, 8, 16), bool)
    np.testing.assert_array_equal(found["masks_0_0"][0], np.arange(16)[None].repeat(8, axis=0) < 8)
    assert found["masks_0_1"].shape == (0, 8, 16), "nothing is found, in an image of this size"
    assert (found["scores_0_1"].shape, found["boxes_0_1"].shape) == ((0,), (0, 4))
    assert found["presence_0_0"] == 0.75
    assert found["object_masks_1_0"].sum() == 16
    assert "object_masks_0_0" not in found


async def test_a_mask_id_from_a_file_can_be_refined(client: httpx.AsyncClient) -> None:
    found = await arrays(client, "seg-menter", points=[[[[6, 4]]]])
    mask_id = str(found["object_mask_ids_0_0"][0])
    assert len((await ask(client, "seg-menter", points=[[[[6, 4]]]], mask_input=[[mask_id]])).json()["objects"]) == 1


async def test_masks_in_a_file_are_bounded(serve: Serve) -> None:
    async with serve(max_dense_values=100) as client:
        body = {"images": [IMAGE], "prompts": ["a"]}
        response = await client.post("/inference/seg-menter", json=body, headers=NPZ)
        assert (response.status_code, "output_format rle" in response.json()["detail"]) == (413, True)


async def test_detections_are_arrays_for_each_image(client: httpx.AsyncClient) -> None:
    found = await arrays(client, "detector")
    assert found["boxes_0"].shape == (2, 4)
    assert found["labels_0"].tolist() == ["a", "b"]
    assert found["scores_0"].dtype == np.float32


async def test_the_description_offers_both_forms(client: httpx.AsyncClient) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    for path in ("/inference/seg-menter", "/inference/depth/upload"):
        response = paths[path]["post"]["responses"]["200"]
        assert set(response["content"]) == {"application/json", "application/x-npz"}
        assert {"X-Model-ID", "Server-Timing"} <= set(response["headers"])
    assert set(paths["/inference/depth/overlay"]["post"]["responses"]["200"]["content"]) == {"image/png"}
