"""POST /inference/{a segmenter}: prompts, boxes and masks on the wire."""

from __future__ import annotations

import base64
from io import BytesIO
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from tests.api.conftest import IMAGE, Serve, b64, png
from tests.api.stand_ins import SEEN
from vision_model_repo.api.native.segmentation import SegmentationAnswer
from vision_model_repo.tasks.segmentation import SegmentationPrompt

URL = "/inference/seg-menter"
LEFT_HALF = np.arange(16)[None, :].repeat(8, axis=0) < 8


async def segment(client: httpx.AsyncClient, **body: Any) -> httpx.Response:
    return await client.post(URL, json={"images": [IMAGE], **body})


async def found(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    """The instances of the first prompt on the first image."""
    response = await segment(client, **body)
    assert response.status_code == 200, response.text
    return response.json()["results"][0][0]["result"]


async def refusal(client: httpx.AsyncClient, status: int = 400, **body: Any) -> str:
    response = await segment(client, **body)
    assert response.status_code == status, response.text
    return str(response.json()["detail"])


async def test_results_are_by_image_and_prompt(client: httpx.AsyncClient) -> None:
    response = await segment(client, images=[IMAGE, IMAGE], prompts=["person", "nothing"])
    answer = SegmentationAnswer.model_validate_json(response.content, strict=True, extra="forbid")
    assert len(answer.results) == 2
    first, second = answer.results[1]
    assert (first.prompt_index, first.prompt, second.prompt_index, second.prompt) == (0, "person", 1, "nothing")
    assert (second.result.scores, second.result.boxes, second.result.masks_rle) == ([], [], [])


async def test_scores_boxes_and_presence_come_with_every_prompt(client: httpx.AsyncClient) -> None:
    result = await found(client, prompts=["person"])
    assert (result["scores"], result["boxes"], result["presence"]) == ([0.9], [[0.0, 0.0, 8.0, 8.0]], 0.75)


# pycocotools 2.0 meets numpy 2.
@pytest.mark.filterwarnings("ignore:__array__ implementation")
async def test_rle_is_read_by_pycocotools(client: httpx.AsyncClient) -> None:
    result = await found(client, prompts=["person"])
    assert result["masks_rle"][0]["size"] == [8, 16]
    np.testing.assert_array_equal(coco.decode(result["masks_rle"][0]), LEFT_HALF)


async def test_polygons_are_rings(client: httpx.AsyncClient) -> None:
    result = await found(client, prompts=["person"], output_format="polygons")
    [[ring]] = result["masks_polygon"]
    assert sorted(ring) == [[0, 0], [0, 8], [8, 0], [8, 8]]


async def test_dense_is_rows_of_zero_and_one(client: httpx.AsyncClient) -> None:
    result = await found(client, prompts=["person"], output_format="dense")
    np.testing.assert_array_equal(result["masks"], [LEFT_HALF])


async def test_png_opens_as_a_mask(client: httpx.AsyncClient) -> None:
    result = await found(client, prompts=["person"], output_format="png")
    mask = Image.open(BytesIO(base64.b64decode(result["masks_png"][0])))
    np.testing.assert_array_equal(np.asarray(mask), LEFT_HALF)


@pytest.mark.parametrize("output_format", ["rle", "polygons", "dense", "png"])
async def test_every_format_fits_the_schema_and_brings_only_its_own_masks(
    client: httpx.AsyncClient, output_format: str
) -> None:
    response = await segment(client, prompts=["person", "nothing"], output_format=output_format)
    answer = SegmentationAnswer.model_validate_json(response.content, strict=True, extra="forbid")
    assert len(answer.results[0][0].result.scores) == 1
    masks = [name for name in response.json()["results"][0][0]["result"] if name.startswith("masks")]
    assert len(masks) == 1


async def test_boxes_alone_are_one_visual_prompt(client: httpx.AsyncClient) -> None:
    response = await segment(client, boxes=[[[1, 1, 5, 5], [8, 2, 12, 6]]], box_labels=[[1, 0]])
    [prompt] = response.json()["results"][0]
    assert (prompt["prompt"], prompt["result"]["boxes"]) == ("visual", [[1.0, 1.0, 5.0, 5.0]])


async def test_boxes_accompany_every_prompt(client: httpx.AsyncClient) -> None:
    await segment(client, prompts=["a", "b"], boxes=[[[1, 1, 5, 5]]])
    box = (1.0, 1.0, 5.0, 5.0)
    assert SEEN[0].prompts == (SegmentationPrompt("a", (box,), (1,)), SegmentationPrompt("b", (box,), (1,)))


async def test_an_image_may_have_no_boxes_beside_one_that_has(client: httpx.AsyncClient) -> None:
    response = await segment(client, images=[IMAGE, IMAGE], prompts=["a"], boxes=[[], [[1, 1, 5, 5]]])
    assert [len(image[0]["result"]["boxes"]) for image in response.json()["results"]] == [1, 2]


async def test_a_box_over_the_edge_by_rounding_is_clipped(client: httpx.AsyncClient) -> None:
    await segment(client, boxes=[[[-0.4, 0, 16.5, 8]]])
    assert SEEN[0].prompts[0].boxes == ((0.0, 0.0, 16.0, 8.0),)


async def test_thresholds_and_overlaps_reach_the_model(client: httpx.AsyncClient) -> None:
    await segment(client, prompts=["a", "b"], threshold=0.3, mask_threshold=0.6, resolve_overlaps=[2, 0.5])
    await segment(client, prompts=["a", "b"], resolve_overlaps=True)
    await segment(client, prompts=["a", "b"])
    assert (SEEN[0].threshold, SEEN[0].mask_threshold) == (0.3, 0.6)
    assert [request.overlap_weights for request in SEEN] == [(2.0, 0.5), (1.0, 1.0), None]


async def test_nothing_to_look_for_is_refused(client: httpx.AsyncClient) -> None:
    assert "images[0] has nothing to look for" in await refusal(client)
    assert "images[0] has nothing to look for" in await refusal(client, prompts=[], boxes=[[]])
    assert "images[1]" in await refusal(client, images=[IMAGE, IMAGE], boxes=[[[1, 1, 5, 5]], []])


async def test_lists_of_the_wrong_length_are_refused(client: httpx.AsyncClient) -> None:
    assert "prompts has 1 lists for 2 images" in await refusal(client, images=[IMAGE, IMAGE], prompts=[["a"]])
    assert "boxes has 2 lists for 1 images" in await refusal(client, boxes=[[], [[1, 1, 5, 5]]])
    assert "box_labels" in await refusal(client, boxes=[[[1, 1, 5, 5]]], box_labels=[[1, 0]])
    assert "resolve_overlaps has 3 weights" in await refusal(client, prompts=["a"], resolve_overlaps=[1, 1, 1])


async def test_lists_may_not_be_mixed(client: httpx.AsyncClient) -> None:
    response = await segment(client, prompts=["a", ["b"]])
    assert (response.status_code, response.json()["detail"][0]["loc"][:2]) == (422, ["body", "prompts"])


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ([4, 4, 4, 8], "no area"),
        ([8, 2, 4, 6], "no area"),
        ([20, 20, 30, 30], "outside"),
        ([-9, 0, 4, 4], "outside"),
        ([0, 0, 1600, 800], "outside"),
        ([16, 0, 17, 8], "outside"),
    ],
)
async def test_boxes_that_make_no_sense_are_refused(client: httpx.AsyncClient, box: list[float], reason: str) -> None:
    detail = await refusal(client, prompts=["a"], boxes=[[[1, 1, 5, 5], box]])
    assert "boxes[0][1]" in detail and reason in detail


async def test_dense_answers_are_bounded(serve: Serve) -> None:
    async with serve(max_dense_values=100) as client:
        assert "output_format rle" in await refusal(client, 413, prompts=["a"], output_format="dense")
        assert (await segment(client, prompts=["a"])).status_code == 200


async def test_limits_on_prompts_and_boxes_name_the_field(serve: Serve) -> None:
    async with serve(max_prompts=2, max_prompt_characters=10, max_boxes=1) as client:
        assert "prompts has 3 prompts; at most 2" in await refusal(client, 413, prompts=["a"] * 3)
        assert "prompts[0][1] has 11 characters" in await refusal(client, 413, prompts=[["a", "b" * 11]])
        assert "boxes[0] has 2 boxes" in await refusal(client, 413, boxes=[[[1, 1, 5, 5]] * 2])


async def test_a_fault_of_ours_says_nothing_but_an_id(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    response = await segment(client, prompts=["broken"])
    assert response.status_code == 500
    assert "secret" not in response.text and "ZeroDivision" not in response.text
    error_id = response.json()["detail"].rstrip(".").split()[-1]
    assert error_id in caplog.text and "secret detail" in caplog.text


async def test_masks_of_a_large_image_keep_their_size(client: httpx.AsyncClient) -> None:
    response = await segment(client, images=[b64(png(300, 200))], prompts=["a"], output_format="dense")
    assert np.array(response.json()["results"][0][0]["result"]["masks"]).shape == (1, 200, 300)
