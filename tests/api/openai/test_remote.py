"""A model that another live server runs, behind the same interface."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from fastapi import FastAPI, Response
from starlette.responses import StreamingResponse

from tests.api import talking
from tests.api.conftest import IMAGE, LiveServer, settings_of
from tests.api.openai.test_client import GO_ON, HELLO, WHOLE, silence
from tests.api.stand_ins import SEEN
from vision_model_repo.api.server import create_app
from vision_model_repo.deployments import read_config
from vision_model_repo.models.catalog import Catalog

KEY_ENV = "FAR_KEY"
URI = f"data:image/png;base64,{IMAGE}"


def write_config(folder: Path, url: str, more: str = "") -> Path:
    path = folder / "models.toml"
    path.write_text(f'[[models]]\nname = "relay"\nurl = "{url}"\n{more}\n')
    return path


@pytest.fixture(scope="module")
def near(
    talking_app: Callable[..., FastAPI], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[LiveServer, LiveServer]]:
    """A server that relays to another one, which asks for a key, and that other one."""
    with pytest.MonkeyPatch.context() as environment, LiveServer(talking_app(api_keys="sesame")) as far:
        environment.setenv(KEY_ENV, "sesame")
        more = f'key_env = "{KEY_ENV}"\nmodel_id = "talker"'
        path = write_config(tmp_path_factory.mktemp("relay"), f"{far.url}/v1", more)
        with LiveServer(create_app(settings_of(config_file=path), catalog=Catalog((talking.spec("near"),)))) as near:
            yield near, far


@pytest.fixture
def client(near: tuple[LiveServer, LiveServer]) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{near[0].url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_it_is_listed_and_answers(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["near", "relay"]
    answer = client.chat.completions.create(model="relay", messages=HELLO)
    assert (answer.model, answer.system_fingerprint) == ("relay", "talker")
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == (WHOLE, "stop")
    assert answer.usage is not None and (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (2, 5)


def test_its_answer_is_handed_on_as_it_grows(client: openai.OpenAI) -> None:
    chunks = list(client.chat.completions.create(model="relay", messages=HELLO, stream=True, max_tokens=4))
    said = [chunk.choices[0].delta.content for chunk in chunks]
    assert said == ["", "one", " two", " three", " four", None]
    assert chunks[-1].choices[0].finish_reason == "length"


def test_images_and_options_arrive_as_they_were_sent(client: openai.OpenAI) -> None:
    SEEN.clear()
    parts = [{"type": "text", "text": "What?"}, {"type": "image_url", "image_url": {"url": URI}}]
    messages: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": parts}]
    client.chat.completions.create(
        model="relay", messages=messages, temperature=0.5, top_p=0.5, seed=3, stop=["three"], max_tokens=9
    )
    [request] = SEEN
    assert [message.role for message in request.messages] == ["system", "user"]
    text, image = request.messages[1].parts
    assert text == "What?" and image.shape == (8, 16, 3) and tuple(image[0, 0]) == (200, 30, 30)
    assert (request.temperature, request.top_p, request.seed, request.stop) == (0.5, 0.5, 3, ("three",))
    assert request.max_new_tokens == 9


def test_who_leaves_here_is_gone_there(client: openai.OpenAI) -> None:
    with client.chat.completions.create(model="relay", messages=GO_ON, stream=True, max_tokens=1000) as stream:
        next(iter(stream))
    assert asyncio.run(silence())


def test_a_refusal_there_is_told_here(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": talking.MUTE}]
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError, match="cannot be read"):
            client.chat.completions.create(model="relay", messages=messages, stream=stream)


def test_a_failure_there_is_a_bad_gateway_here(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": talking.BROKEN}]
    with pytest.raises(openai.InternalServerError, match="runs talker answers with status 500") as failure:
        client.chat.completions.create(model="relay", messages=messages)
    assert failure.value.status_code == 502


def test_another_checkpoint_cannot_be_asked_of_it(near: tuple[LiveServer, LiveServer]) -> None:
    answer = httpx.post(f"{near[0].url}/models/load", json={"model_type": "relay", "model_id": "a/b"})
    assert answer.status_code == 404 and "run by another server" in answer.json()["detail"]


def test_nothing_is_loaded_for_it(near: tuple[LiveServer, LiveServer], client: openai.OpenAI) -> None:
    client.chat.completions.create(model="relay", messages=HELLO)
    _, status = near[0].engine.manager.status()
    assert (status.device, status.model_id, status.memory_bytes) == ("remote", "talker", 0)


def strange_server(status: int, body: str) -> FastAPI:
    app = FastAPI()

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [{"id": "strange"}]}

    @app.post("/v1/chat/completions")
    async def complete() -> Response:
        async def lines() -> AsyncIterator[bytes]:
            yield body.encode()

        return StreamingResponse(lines(), status, media_type="text/event-stream")

    return app


@pytest.mark.parametrize(
    ("status", "body", "answered", "words"),
    [
        (200, "data: not json\n\n", 502, "no chunk"),
        (200, 'data: {"choices": [{"delta": {"content": "so"}}]}\n\n', 502, "broke off"),
        (200, 'data: {"error": {"message": "too long", "code": 400}}\n\n', 400, "too long"),
        (401, '{"error": {"message": "who are you?"}}', 502, "status 401"),
        (400, '{"object": "error", "message": "8 images are too many"}', 400, "8 images are too many"),
        (503, "", 503, "status 503"),
        (500, "<html>", 502, "status 500"),
    ],
)
def test_whatever_goes_wrong_there_has_a_sentence_here(
    tmp_path: Path, status: int, body: str, answered: int, words: str
) -> None:
    with LiveServer(strange_server(status, body)) as far:
        path = write_config(tmp_path, f"{far.url}/v1/")
        with LiveServer(create_app(settings_of(config_file=path), catalog=Catalog((talking.spec("near"),)))) as near:
            asked = {"model": "relay", "messages": HELLO}
            answer = httpx.post(f"{near.url}/v1/chat/completions", json=asked)
    assert answer.status_code == answered
    assert words in answer.json()["error"]["message"]


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    path = write_config(tmp_path, "http://127.0.0.1:9/v1")
    with LiveServer(create_app(settings_of(config_file=path), catalog=Catalog((talking.spec("near"),)))) as near:
        answer = httpx.post(f"{near.url}/v1/chat/completions", json={"model": "relay", "messages": HELLO})
    assert answer.status_code == 503 and answer.headers["retry-after"] == "10"
    assert "cannot be reached" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ('family = "vlm"', "either family or class or url"),
        ('device = "cpu"', "no device"),
        ('key_env = "NOBODY_HAS_SET_THIS"', "must be set"),
        ('task = "chat"', "none with family or url"),
    ],
)
def test_a_deployment_that_makes_no_sense(tmp_path: Path, more: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_config(write_config(tmp_path, "http://far/v1", more), Catalog(()))
