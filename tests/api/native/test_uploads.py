"""The same requests as multipart forms, and pictures of the answers."""

from __future__ import annotations

import json
from typing import Any

import httpx
import numpy as np
import pytest

from tests.api.conftest import IMAGE, Serve, pixels_of, png
from tests.api.stand_ins import SEEN

FILE = ("images", ("a.png", png(), "image/png"))


async def upload(
    client: httpx.AsyncClient, model: str = "seg-menter", files: Any = None, **data: Any
) -> httpx.Response:
    return await client.post(f"/inference/{model}/upload", files=[FILE] if files is None else files, data=data)


async def test_an_upload_answers_as_the_json_route_does(client: httpx.AsyncClient) -> None:
    options = {"prompts": ["person", "car"], "threshold": 0.3, "output_format": "polygons"}
    uploaded = (await upload(client, **options)).json()
    answered = (await client.post("/inference/seg-menter", json={"images": [IMAGE], **options})).json()
    assert uploaded["results"] == answered["results"]


async def test_form_fields_become_numbers_booleans_and_lists(client: httpx.AsyncClient) -> None:
    await upload(client, prompts=["a", "b"], threshold="0.25", resolve_overlaps="true")
    assert (SEEN[0].threshold, SEEN[0].overlap_weights) == (0.25, (1.0, 1.0))
    assert [prompt.text for prompt in SEEN[0].prompts] == ["a", "b"]


async def test_one_prompt_is_a_list_of_one(client: httpx.AsyncClient) -> None:
    assert [prompt["prompt"] for prompt in (await upload(client, prompts="red cube")).json()["results"][0]] == [
        "red cube"
    ]


async def test_boxes_and_weights_are_json(client: httpx.AsyncClient) -> None:
    await upload(client, boxes="[[[1, 1, 5, 5]]]", box_labels="[[1]]", resolve_overlaps="[2.5]")
    assert (SEEN[0].prompts[0].boxes, SEEN[0].overlap_weights) == (((1.0, 1.0, 5.0, 5.0),), (2.5,))


async def test_several_files_are_several_images(client: httpx.AsyncClient) -> None:
    files = [FILE, ("images", ("b.png", png(8, 8), "image/png"))]
    prompts = [json.dumps(["a"]), json.dumps(["b", "c"])]
    results = (await upload(client, files=files, prompts=prompts)).json()["results"]
    assert [[prompt["prompt"] for prompt in image] for image in results] == [["a"], ["b", "c"]]


@pytest.mark.parametrize(("model", "key"), [("depth", "depth_data"), ("backbone", "features"), ("detector", "results")])
async def test_every_task_takes_files(client: httpx.AsyncClient, model: str, key: str) -> None:
    data = {"prompts": "a"} if model == "detector" else {}
    assert key in (await upload(client, model, **data)).json()


@pytest.mark.parametrize(
    ("files", "data", "status", "words"),
    [
        ([("images", ("a.png", b""))], {"prompts": "a"}, 400, ["images[0]", "empty"]),
        ([FILE, ("images", ("b.txt", b"hello"))], {"prompts": "a"}, 400, ["images[1]"]),
        ([("image", ("a.png", png()))], {"prompts": "a"}, 400, ["image"]),
        ([FILE], {"prompts": "a", "threshold": "much"}, 422, ["threshold"]),
        ([FILE], {"prompts": "a", "threshold": "nan"}, 422, ["threshold"]),
        ([FILE], {"promts": "a"}, 422, ["promts"]),
        ([FILE], {"boxes": "[[["}, 422, ["boxes"]),
        ([FILE], {"boxes": "[" * 5000}, 422, ["boxes"]),
        ([FILE], {"boxes": "[[[NaN, 0, 1, 1]]]"}, 422, ["boxes"]),
        ([FILE], {"prompts": "a", "images": "text"}, 400, ["images[", "file"]),
        ([FILE, ("prompts", ("p.txt", b"a"))], {}, 400, ["prompts", "file"]),
    ],
)
async def test_bad_forms_are_refused_by_field(
    client: httpx.AsyncClient, files: Any, data: dict[str, str], status: int, words: list[str]
) -> None:
    response = await upload(client, files=files, **data)
    assert response.status_code == status, response.text
    assert all(word in response.text for word in words), response.text


async def test_a_form_that_is_cut_off_is_refused(client: httpx.AsyncClient) -> None:
    headers = {"content-type": "multipart/form-data; boundary=x"}
    for body in (b"", b"--x\r\nContent-Dispo", b"garbage"):
        response = await client.post("/inference/depth/upload", content=body, headers=headers)
        assert response.status_code == 400, response.text
    no_boundary = {"content-type": "multipart/form-data"}
    assert (await client.post("/inference/depth/upload", content=b"", headers=no_boundary)).status_code == 400


async def test_a_prompt_may_begin_with_a_bracket(client: httpx.AsyncClient) -> None:
    assert (await upload(client, files=[FILE], prompts="[red] cube")).status_code == 200


async def test_too_many_files_are_refused(serve: Serve) -> None:
    async with serve(max_images=2) as client:
        assert (await upload(client, "depth", files=[FILE] * 3)).status_code == 413


async def test_routes_say_which_body_they_read(client: httpx.AsyncClient) -> None:
    answer = await client.post("/inference/depth", files=[FILE])
    assert (answer.status_code, "application/json" in answer.json()["detail"]) == (415, True)
    answer = await client.post("/inference/depth/upload", json={"images": [IMAGE]})
    assert (answer.status_code, "multipart/form-data" in answer.json()["detail"]) == (415, True)


@pytest.mark.parametrize("model", ["seg-menter", "detector", "depth", "camera", "backbone"])
async def test_an_overlay_is_a_picture_of_the_images_size(client: httpx.AsyncClient, model: str) -> None:
    body = {"images": [IMAGE]} | ({"prompts": ["a"]} if model in ("seg-menter", "detector") else {})
    response = await client.post(f"/inference/{model}/overlay", json=body)
    assert response.headers["content-type"] == "image/png"
    picture = pixels_of(response.content)
    assert picture.shape == (8, 16, 3)
    assert np.any(picture != pixels_of(png())), "something was drawn"
    assert response.headers["x-model-id"].endswith("-small")


async def test_an_overlay_shows_the_first_image_only(client: httpx.AsyncClient) -> None:
    body = {"images": [IMAGE, IMAGE], "prompts": [["nothing"], ["a"]]}
    response = await client.post("/inference/seg-menter/overlay", json=body)
    assert len(SEEN) == 1
    np.testing.assert_array_equal(pixels_of(response.content), pixels_of(png()))


async def test_an_overlay_takes_a_file_too(client: httpx.AsyncClient) -> None:
    response = await client.post("/inference/seg-menter/overlay", files=[FILE], data={"prompts": "a"})
    assert pixels_of(response.content).shape == (8, 16, 3)
