"""Vision-language models on the wire: prompts and conversations, with images in every place that clients put them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.api.conftest import LiveServer, b64, png

SMALL, LARGE = (f"data:image/png;base64,{b64(png(*size))}" for size in ((4, 2), (8, 6)))


@pytest.fixture
def client(colors: LiveServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=colors.url) as client:
        yield client


def ask(client: httpx.Client, path: str = "/v1/inference/vlm", **body: Any) -> dict[str, Any]:
    answer = client.post(path, json={"model": "parrot", "maxNewTokens": 5, **body})
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


def test_a_plain_prompt_with_images(client: httpx.Client) -> None:
    data = ask(client, prompt="Hi", images=[SMALL, LARGE], temperature=0.5)
    assert data == {
        "generatedText": "Hi [(4, 2), (8, 6)]",
        "usage": {"promptTokens": 2, "completionTokens": 3, "totalTokens": 5},
        "generationConfig": {"maxNewTokens": 5, "temperature": 0.5},
    }
    assert ask(client, "/inference/vlm/", prompt="Hi")["generated_text"] == "Hi []"


@pytest.mark.parametrize(
    ("part", "images"),
    [
        ({"type": "image", "image": LARGE}, None),
        ({"type": "image", "url": LARGE}, []),
        ({"type": "image_url", "image_url": {"url": LARGE}}, None),
        ({"type": "image"}, [LARGE]),
        ({"type": "image", "image": LARGE}, [SMALL]),
        ({"type": "image"}, [SMALL, LARGE]),
    ],
)
def test_messages_hold_images_or_places_for_them(
    client: httpx.Client, part: dict[str, Any], images: list[str] | None
) -> None:
    content = [part, {"type": "text", "text": "What?"}]
    prompt = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": content}]
    text = ask(client, prompt=prompt, images=images)["generatedText"]
    assert text.endswith("[(4, 2), (8, 6)]" if SMALL in (images or []) else " [(8, 6)]")
    kinds = ["image"] * (2 if SMALL in (images or []) else 1) + ["text"]
    system, user = eval(text.partition("] [")[0] + "]")
    assert system["role"] == "system" and [each["type"] for each in user["content"]] == kinds


def test_images_as_files(client: httpx.Client) -> None:
    metadata = json.dumps({"model": "parrot", "prompt": "Hi", "max_new_tokens": 5})
    files = [("images", ("a.png", png(4, 2))), ("images", ("b.png", png(8, 6)))]
    answer = client.post("/v1/inference/vlm/binary", data={"metadata": metadata}, files=files)
    assert answer.json()["data"]["generatedText"] == "Hi [(4, 2), (8, 6)]"


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"model": "segmenter"}, 400, "is for segmentation, not for vlm"),
        ({"prompt": [{"role": "user", "content": [{"type": "image"}]}]}, 400, "places for 1 images"),
        ({"prompt": [{"role": "system", "content": "x"}], "images": [SMALL]}, 400, "no message of the user"),
        ({"images": ["data:image/png;base64,AAAA"]}, 400, r"images\[0\]: The data is no image"),
        ({"images": [SMALL] * 65}, 413, "65 images"),
        ({"maxNewTokens": 0}, 422, "maxNewTokens"),
        ({"temperature": -1}, 422, "temperature"),
    ],
)
def test_a_clients_mistake_is_told_in_a_sentence(
    client: httpx.Client, body: dict[str, Any], status: int, words: str
) -> None:
    request = {"model": "parrot", "maxNewTokens": 5, "prompt": "Hi", **body}
    answer = client.post("/v1/inference/vlm", json=request)
    assert answer.status_code == status
    assert words.replace("\\", "") in answer.text
