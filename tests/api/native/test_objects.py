"""POST /inference/{a segmenter} with clicks: points and boxes that mean one object, and masks to go on from."""

from __future__ import annotations

import json
from typing import Any

import httpx
import numpy as np
import pytest

from tests.api.conftest import IMAGE, Serve, engine_of, pixels_of, png
from tests.api.stand_ins import GATE, SEEN
from vision_model_repo.api.native.segmentation import SegmentationAnswer

URL = "/inference/seg-menter"
FILE = ("images", ("a.png", png(), "image/png"))


async def ask(client: httpx.AsyncClient, **body: Any) -> httpx.Response:
    return await client.post(URL, json={"images": [IMAGE], **body})


async def objects(client: httpx.AsyncClient, **body: Any) -> list[dict[str, Any]]:
    """The objects of the first image."""
    response = await ask(client, **body)
    assert response.status_code == 200, response.text
    SegmentationAnswer.model_validate_json(response.content, strict=True, extra="forbid")
    return response.json()["objects"][0]


async def refusal(client: httpx.AsyncClient, status: int = 400, **body: Any) -> str:
    response = await ask(client, **body)
    assert response.status_code == status, response.text
    return str(response.json()["detail"])


async def test_a_click_needs_no_prompt(client: httpx.AsyncClient) -> None:
    response = await ask(client, points=[[[[6, 4]]]], multimask=False)
    assert response.json()["results"] == [[]]
    [found] = response.json()["objects"][0]
    assert (found["object_index"], found["boxes"]) == (0, [[4.0, 2.0, 8.0, 6.0]])
    assert found["scores"] == [0.8]
    assert len(found["masks_rle"]) == len(found["mask_ids"]) == 1


async def test_a_single_click_has_several_readings(client: httpx.AsyncClient) -> None:
    [found] = await objects(client, points=[[[[6, 4]]]])
    assert len(found["scores"]) == len(found["boxes"]) == len(found["masks_rle"]) == len(set(found["mask_ids"])) == 3


async def test_what_is_asked_reaches_the_model(client: httpx.AsyncClient) -> None:
    await objects(
        client,
        points=[[[[6, 4], [1, 1]], []]],
        point_labels=[[[1, 0], []]],
        object_boxes=[[None, [1, 1, 5, 5]]],
        multimask=True,
    )
    first, second = SEEN[0].objects
    assert (first.points, first.point_labels, first.box) == (((6.0, 4.0), (1.0, 1.0)), (1, 0), None)
    assert (second.points, second.point_labels, second.box) == ((), (), (1.0, 1.0, 5.0, 5.0))
    assert SEEN[0].multimask is True


async def test_points_lie_on_the_object_unless_labels_say_otherwise(client: httpx.AsyncClient) -> None:
    await objects(client, points=[[[[6, 4], [1, 1]]]])
    assert SEEN[0].objects[0].point_labels == (1, 1)


async def test_every_image_has_objects_of_its_own(client: httpx.AsyncClient) -> None:
    response = await ask(client, images=[IMAGE] * 3, points=[[[[6, 4]]], [], [[[2, 2]], [[3, 3]]]], prompts=["a"])
    assert [[each["object_index"] for each in image] for image in response.json()["objects"]] == [[0], [], [0, 1]]


async def test_prompts_and_clicks_go_together(client: httpx.AsyncClient) -> None:
    response = await ask(client, prompts=["person"], boxes=[[[1, 1, 5, 5]]], points=[[[[6, 4]]]])
    assert len(response.json()["results"][0][0]["result"]["scores"]) == 2
    assert len(response.json()["objects"][0]) == 1


async def test_without_clicks_there_are_no_objects(client: httpx.AsyncClient) -> None:
    assert (await ask(client, prompts=["a"])).json()["objects"] == [[]]


@pytest.mark.parametrize(
    ("output_format", "field"),
    [("rle", "masks_rle"), ("polygons", "masks_polygon"), ("dense", "masks"), ("png", "masks_png")],
)
async def test_objects_are_written_in_the_form_of_instances(
    client: httpx.AsyncClient, output_format: str, field: str
) -> None:
    [found] = await objects(client, points=[[[[6, 4]]]], output_format=output_format)
    assert [name for name in found if name.startswith("masks")] == [field]


async def test_a_mask_id_stands_for_the_logits_of_its_mask(client: httpx.AsyncClient) -> None:
    [first] = await objects(client, points=[[[[6, 4]]]])
    [second] = await objects(client, points=[[[[6, 4], [2, 2]]]], mask_input=[[first["mask_ids"][1]]])
    np.testing.assert_array_equal(SEEN[1].objects[0].logits, np.full((2, 2), 1))
    await objects(client, points=[[[[6, 4]], [[2, 2]]]], mask_input=[[None, second["mask_ids"][0]]])
    assert SEEN[2].objects[0].logits is None
    np.testing.assert_array_equal(SEEN[2].objects[1].logits, np.full((2, 2), 2))


async def test_an_unknown_mask_is_refused_by_its_place(client: httpx.AsyncClient) -> None:
    detail = await refusal(client, points=[[[[6, 4]], [[1, 1]]]], mask_input=[[None, "0123-0"]])
    assert detail.startswith("mask_input[0][1]: No mask '0123-0' is kept")


async def test_a_job_refines_a_mask_that_has_expired_since(serve: Serve) -> None:
    async with serve(max_concurrent_jobs=1) as client:
        [found] = await objects(client, points=[[[[6, 4]]]])
        GATE.clear()
        detector = {"images": [IMAGE], "prompts": ["a"]}
        await client.post("/jobs/submit/detector", json=detector)
        body = {"images": [IMAGE], "points": [[[[6, 4]]]], "mask_input": [[found["mask_ids"][0]]]}
        job_id = (await client.post("/jobs/submit/seg-menter", json=body)).json()["job_id"]
        shelf = engine_of(client).masks._shelf
        shelf.remove(found["mask_ids"][0].partition("-")[0])
        assert "is kept, or no longer" in await refusal(client, **body)
        GATE.set()
        await client.get(f"/jobs/{job_id}/events")
        result = (await client.get(f"/jobs/{job_id}")).json()["result"]
        assert len(result["objects"][0][0]["mask_ids"]) == 3
        np.testing.assert_array_equal(SEEN[-1].objects[0].logits, np.full((2, 2), 1))


async def test_a_form_carries_clicks_as_json(client: httpx.AsyncClient) -> None:
    data = {
        "points": "[[[[6, 4]]]]",
        "point_labels": "[[[1]]]",
        "object_boxes": "[[[1, 1, 5, 5]]]",
        "multimask": "true",
    }
    [uploaded] = (await client.post(f"{URL}/upload", files=[FILE], data=data)).json()["objects"]
    answered = await objects(client, **{name: json.loads(value) for name, value in data.items()})
    for found in (*uploaded, *answered):
        found.pop("mask_ids")
    assert uploaded == answered


async def test_an_overlay_shows_the_best_reading_of_an_object(client: httpx.AsyncClient) -> None:
    body = {"images": [IMAGE], "points": [[[[12, 6]]]]}
    picture = pixels_of((await client.post(f"{URL}/overlay", json=body)).content)
    assert np.any(picture[6, 12] != pixels_of(png())[6, 12])


async def test_a_tolerable_point_is_moved_into_the_image(client: httpx.AsyncClient) -> None:
    await objects(client, points=[[[[16.5, -0.5]]]])
    assert SEEN[0].objects[0].points == ((16.0, 0.0),)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"points": [[[[20, 4]]]]}, "points[0][0][0] lies outside the image, which is 16 x 8"),
        ({"points": [[[[6, 4], [6, -3]]]]}, "points[0][0][1] lies outside"),
        ({"object_boxes": [[[8, 2, 4, 6]]]}, "object_boxes[0][0] has no area"),
        ({"points": [[]]}, "images[0] has nothing to look for"),
        ({"points": [[[]]]}, "Object 0 of images[0] has neither points nor a box"),
        ({"mask_input": [["x"]]}, "Object 0 of images[0] has neither points nor a box"),
        ({"points": [[[[6, 4]]], []]}, "points has 2 lists for 1 images"),
        ({"points": [[[[6, 4]]]], "mask_input": [[None, None]]}, "points[0] has 1 entries for 2 objects"),
        ({"points": [[[[6, 4]]]], "point_labels": [[[1, 0]]]}, "point_labels[0][0] has 2 labels for 1 points"),
        ({"object_boxes": [[[1, 1, 5, 5]]], "point_labels": [[[1]]]}, "point_labels[0][0] has 1 labels for 0 points"),
    ],
)
async def test_clicks_that_make_no_sense_are_refused_by_field(
    client: httpx.AsyncClient, body: dict[str, Any], reason: str
) -> None:
    assert reason in await refusal(client, **body)


@pytest.mark.parametrize(
    "body",
    [
        {"points": [[[6, 4]]]},
        {"points": [[[[6, 4, 1]]]]},
        {"points": [[[[6, "4"]]]]},
        {"points": [[[[6, 4]]]], "point_labels": [[[2]]]},
        {"points": [[[[6, 4]]]], "multimask": "yes"},
    ],
)
async def test_the_shape_of_clicks_is_checked(client: httpx.AsyncClient, body: dict[str, Any]) -> None:
    assert "body" in await refusal(client, 422, **body)


async def test_clicks_have_limits(serve: Serve) -> None:
    async with serve(max_objects=2, max_points=2) as client:
        assert "has 3 objects; at most 2" in await refusal(client, 413, points=[[[[6, 4]]] * 3])
        assert "points[0][0] has 3 points; at most 2" in await refusal(client, 413, points=[[[[6, 4]] * 3]])
