"""POST /inference/{a detector}: boxes, scores and labels on the wire."""

from __future__ import annotations

import httpx

from tests.api.conftest import IMAGE, b64, png
from tests.api.stand_ins import SEEN
from vision_model_repo.api.native.detection import DetectionAnswer

URL = "/inference/detector"


async def test_the_guides_example(client: httpx.AsyncClient) -> None:
    body = {"images": [IMAGE], "prompts": ["person", "car"], "box_threshold": 0.4, "text_threshold": 0.3}
    answer = (await client.post(URL, json=body)).json()
    boxes = answer["results"][0]["boxes"]
    assert [(detection["label"], detection["score"]) for detection in boxes] == [("person", 1.0), ("car", 1.0)]
    assert boxes[0]["box"] == [4.0, 2.0, 12.0, 6.0]


async def test_the_same_as_arrays(client: httpx.AsyncClient) -> None:
    result = (await client.post(URL, json={"images": [IMAGE], "prompts": ["person"]})).json()["results"][0]
    assert result["xyxy"] == [[4.0, 2.0, 12.0, 6.0]]
    assert (result["scores"], result["labels"]) == ([1.0], ["person"])


async def test_answers_fit_their_schema(client: httpx.AsyncClient) -> None:
    response = await client.post(URL, json={"images": [IMAGE, IMAGE], "prompts": ["a"]})
    answer = DetectionAnswer.model_validate_json(response.content, strict=True, extra="forbid")
    assert len(answer.results) == 2
    assert answer.model_id.endswith("detector-small")
    assert 0 < answer.processing_time < 60
    assert response.headers["content-type"] == "application/json"


async def test_options_reach_the_model(client: httpx.AsyncClient) -> None:
    body = {"images": [IMAGE], "prompts": [" Red  Cube "], "box_threshold": 0.1, "text_threshold": 0}
    answer = (await client.post(URL, json=body)).json()
    assert (SEEN[0].phrases, SEEN[0].box_threshold, SEEN[0].text_threshold) == ((" Red  Cube ",), 0.1, 0.0)
    assert answer["results"][0]["labels"] == [" Red  Cube "], "a label is the prompt as written"


async def test_prompts_may_differ_from_image_to_image(client: httpx.AsyncClient) -> None:
    images = [IMAGE, b64(png(8, 8))]
    answer = (await client.post(URL, json={"images": images, "prompts": [["a"], ["b", "c"]]})).json()
    assert [result["labels"] for result in answer["results"]] == [["a"], ["b", "c"]]
    assert answer["results"][1]["xyxy"][0] == [2.0, 2.0, 6.0, 6.0], "answers come in the order of the images"


async def test_another_checkpoint_can_be_asked_for(client: httpx.AsyncClient) -> None:
    first = (await client.post(URL, json={"images": [IMAGE], "prompts": ["a"]})).json()["model_id"]
    other = first.replace("small", "large")
    body = {"images": [IMAGE], "prompts": ["a"], "model_id": other}
    assert (await client.post(URL, json=body)).json()["model_id"] == other


async def test_no_prompts_are_refused(client: httpx.AsyncClient) -> None:
    response = await client.post(URL, json={"images": [IMAGE], "prompts": []})
    assert (response.status_code, "prompt" in response.json()["detail"]) == (400, True)
