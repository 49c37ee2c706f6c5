"""Bodies are counted before they are parsed: the largest valid ones pass, and hostile ones cost next to nothing."""

from __future__ import annotations

import json
import random
import time
from collections.abc import AsyncIterator, Iterator
from functools import cache
from typing import Annotated, Any, get_args, get_origin

import httpx
import pytest
from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData

from tests.hostile.bodies import json_bodies
from vision_model_repo.api.ingrain.schemas import (
    IngrainClassification,
    IngrainImages,
    IngrainLoad,
    IngrainPairs,
    IngrainTexts,
    Named,
)
from vision_model_repo.api.json_bounds import AtMost, JsonSize, validator_of
from vision_model_repo.api.json_counter import PIECE_BYTES, JsonCounter
from vision_model_repo.api.native.body import read_fields
from vision_model_repo.api.native.chat import ChatOptions
from vision_model_repo.api.native.detection import DetectionBody
from vision_model_repo.api.native.image_routes import ImageBody
from vision_model_repo.api.native.inference import TASKS
from vision_model_repo.api.native.models import LoadBody, UnloadBody
from vision_model_repo.api.native.segmentation import SegmentationBody
from vision_model_repo.api.native.tracking import Prompted, TrackingBody
from vision_model_repo.api.native.tracking_jobs import TrackingJobBody
from vision_model_repo.api.openai.schemas import CompletionBody, EmbeddingBody
from vision_model_repo.api.pixano.inference_routes import SPOKEN
from vision_model_repo.api.pixano.schemas import PixanoDeployment
from vision_model_repo.api.pixano.segmentation import PixanoSegmentationRequest
from vision_model_repo.api.pixano.tracking_body import PixanoTrackingRequest
from vision_model_repo.api.server import create_app
from vision_model_repo.errors import TooLarge
from vision_model_repo.settings import Settings


def limits(**changes: Any) -> Settings:
    return Settings(**changes)


LIMITS = limits()
BODIES: tuple[type[BaseModel], ...] = (
    *(task.body for task in TASKS.values()),
    *(TrackingBody, TrackingJobBody, Prompted, ImageBody, LoadBody, UnloadBody),
    *(capability.body for capability in SPOKEN),
    PixanoDeployment,
    *(IngrainTexts, IngrainImages, IngrainPairs, IngrainClassification, IngrainLoad, Named),
    *(CompletionBody, EmbeddingBody),
)


def lists_without_a_limit(kind: Any, place: str, metadata: tuple[Any, ...] = ()) -> Iterator[str]:
    if get_origin(kind) is Annotated:
        yield from lists_without_a_limit(get_args(kind)[0], place, kind.__metadata__)
        return
    if get_origin(kind) is list and not any(isinstance(each, AtMost) for each in metadata):
        yield place
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        for name, field in kind.model_fields.items():
            yield from lists_without_a_limit(field.annotation, f"{place}.{name}", tuple(field.metadata))
    for argument in get_args(kind):
        yield from lists_without_a_limit(argument, place)


@pytest.mark.parametrize("model", BODIES)
def test_every_list_of_a_body_has_a_limit(model: type[BaseModel]) -> None:
    assert list(lists_without_a_limit(model, model.__name__)) == []


# What is counted


def counted(data: bytes, model: type[BaseModel] = SegmentationBody, pieces: int = PIECE_BYTES) -> JsonSize:
    counter = JsonCounter(model, LIMITS)
    for start in range(0, len(data), pieces):
        counter.add(data[start : start + pieces])
    return counter.size


def parsed(value: Any) -> JsonSize:
    """The same, from what a parser makes of it."""
    size = JsonSize()
    if isinstance(value, list | dict):
        size.commas += max(0, len(value) - 1)
        size.lists += isinstance(value, list)
        size.objects += isinstance(value, dict)
        size.members += len(value) if isinstance(value, dict) else 0
        for each in value.values() if isinstance(value, dict) else value:
            inner = parsed(each)
            for name in ("lists", "objects", "members", "commas"):
                setattr(size, name, getattr(size, name) + getattr(inner, name))
    return size


def invented(chance: random.Random, depth: int = 0) -> Any:
    """A document with all that may confuse who counts: quotes, backslashes and signs in strings and names."""
    text = "".join(chance.choice(['"', "\\", "[", "{", ",", ":", "é", "\n", "a", "\\\\", '\\"']) for _ in range(6))
    kinds = ["text", "number", *(["list", "object"] * 2 if depth < 5 else [])]
    match chance.choice(kinds):
        case "text":
            return text[: chance.randrange(7)]
        case "number":
            return chance.choice([0, -1.5e300, True, None])
        case "list":
            return [invented(chance, depth + 1) for _ in range(chance.randrange(4))]
        case _:
            return {f"{text}{each}": invented(chance, depth + 1) for each in range(chance.randrange(4))}


@pytest.mark.parametrize("seed", range(40))
def test_the_count_is_that_of_a_parser_wherever_the_pieces_end(seed: int) -> None:
    chance = random.Random(seed)
    value = [invented(chance) for _ in range(8)]
    data = json.dumps(value, ensure_ascii=chance.random() < 0.5, indent=chance.choice([None, 2])).encode()
    assert {str(counted(data, pieces=pieces)) for pieces in (1, 2, 3, 7, 1000)} == {str(parsed(value))}


# What is valid passes


@cache
def largest() -> dict[str, tuple[type[BaseModel], dict[str, Any]]]:
    """Valid bodies at the limits that settings have by default."""
    point, box = [1234.0625, 987.125], [1.5, 2.5, 1234.5, 2345.5]
    images = [{"data": "https://example.com/a.jpg", "format": "url"}] * LIMITS.max_images
    keyframe = {"frameIndex": 1, "points": [{"x": 1.5, "y": 2.5, "label": 1}] * 64, "box": None, "mask": None}
    part = [{"type": "text", "text": "[,]"}, {"type": "image_url", "image_url": {"url": "a", "detail": "low"}}]
    clicks = LIMITS.max_request_points // (64 * 64)
    return {
        "clicks": (
            SegmentationBody,
            {
                "images": images,
                "prompts": [["a, b"] * 64] * 64,
                "boxes": [[box] * 64] * 64,
                "box_labels": [[1] * 64] * 64,
                "points": [[[point] * clicks] * 64] * 64,
                "point_labels": [[[1] * clicks] * 64] * 64,
                "object_boxes": [[box] * 64] * 64,
                "mask_input": [["5f6b0f3a9c3e4d0db1c9a87e3f0a2b11-0"] * 64] * 64,
            },
        ),
        "frames": (
            TrackingBody,
            {
                "video": [{"data": "a", "format": "base64"}] * LIMITS.max_video_frames,
                "prompts": [{"object_id": 1, "points": [point] * 64, "point_labels": [1] * 64}] * 256,
                "phrases": ["a"] * 64,
            },
        ),
        "keyframes": (
            PixanoTrackingRequest,
            {
                "model": "a",
                "video": ["a"] * LIMITS.max_video_frames,
                "objectsIds": list(range(256)),
                "keyframes": [keyframe] * 256,
                "classes": ["a"] * 64,
            },
        ),
        "an array": (
            PixanoSegmentationRequest,
            {"model": "a", "image": "a", "maskInput": {"shape": [4, 256, 256], "values": [-12.34567] * 4 * 256 * 256}},
        ),
        "texts": (IngrainTexts, {"name": "a", "text": ['[{"a": 1, "b": [2, 3]}],\\\n' * 40] * LIMITS.max_texts}),
        "input": (EmbeddingBody, {"model": "a", "input": ["äöü, {[]}: " * 60] * LIMITS.max_texts}),
        "messages": (
            CompletionBody,
            {"model": "a", "messages": [{"role": "user", "content": part * 2}] * LIMITS.max_messages},
        ),
    }


@pytest.mark.parametrize("indent", [None, 4])
@pytest.mark.parametrize("name", list(largest()))
def test_the_largest_valid_bodies_pass(name: str, indent: int | None) -> None:
    model, body = largest()[name]
    data = json.dumps(body, indent=indent).encode()
    counted(data, model)
    validator_of(model, LIMITS).validate_json(data)


def test_settings_move_the_limits() -> None:
    body = json.dumps({"images": ["a"] * 9000}).encode()
    with pytest.raises(TooLarge, match=r"commas.*images, prompts"):
        counted(body, DetectionBody)
    more = limits(max_images=9000)
    JsonCounter(SegmentationBody, more).add(body)
    validator_of(SegmentationBody, more).validate_json(body)
    with pytest.raises(ValidationError, match="too_long"):
        validator_of(SegmentationBody, LIMITS).validate_json(body)


async def test_what_begins_with_a_bracket_is_a_list_only_where_one_may_be() -> None:
    form = FormData([("prompt", "[1, 2] sums up to?"), ("stop", '["a", "b"]')])
    options = await read_fields(form, ChatOptions, LIMITS, files=())
    assert (options.prompt, options.stop) == ("[1, 2] sums up to?", ["a", "b"])
    form = FormData([("prompt", "[1, 2]")])
    assert (await read_fields(form, ChatOptions, LIMITS, files=())).prompt == "[1, 2]"


# What is not, is refused


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(limits(hf_hub_offline=True))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost", timeout=60) as client,
    ):
        yield client


async def test_hostile_bodies_are_refused_in_a_moment(client: httpx.AsyncClient) -> None:
    wrong = []
    for body in json_bodies(1, 150, largest=200_000):
        started = time.thread_time()
        answer = await client.request(
            body.method, body.path, content=body.content, headers={"Content-Type": body.content_type}
        )
        seconds = time.thread_time() - started
        if not 400 <= answer.status_code < 500 or len(answer.content) > 10_000 or seconds > 1:
            wrong.append((body.path, body.name, answer.status_code, seconds, answer.text[:200]))
    assert not wrong


async def test_a_body_is_refused_while_it_arrives(client: httpx.AsyncClient) -> None:
    sent = 0

    async def arriving() -> AsyncIterator[bytes]:
        nonlocal sent
        yield b'{"images": ["a"], "prompts": ['
        for _ in range(2000):
            sent += 1
            yield b"[]," * 20_000

    answer = await client.post(
        "/native/inference/sam3", content=arriving(), headers={"Content-Type": "application/json"}
    )
    assert (answer.status_code, "lists" in answer.json()["detail"]) == (413, True)
    assert sent < 10


TOO_MUCH: dict[str, dict[str, Any]] = {
    "A list in points has 500 entries": {"points": [[]] * 500},
    "A list in points[0] has 500 entries": {"points": [[[]] * 500]},
    "A list in prompts has 500 entries": {"prompts": ["a"] * 500},
    "images[0] has 65 objects; at most 64": {"object_boxes": [[[0, 0, 1, 1]] * 65]},
    "prompts has 65 prompts; at most 64": {"prompts": ["a"] * 65},
    "There are 20480 points; at most 16384": {"points": [[[[1, 1]] * 64] * 64] * 5},
    "not plain ASCII": {"prompts": ["é" * 5_000_000]},
}


async def test_what_is_too_much_is_named(client: httpx.AsyncClient) -> None:
    for words, body in TOO_MUCH.items():
        content = json.dumps({"images": ["a"] * min(64, len(body.get("points", "1"))), **body}, ensure_ascii=False)
        answer = await client.post(
            "/native/inference/sam3", content=content.encode(), headers={"Content-Type": "application/json"}
        )
        assert (answer.status_code, words in answer.text) == (413, True), answer.text
