"""The real client of OpenAI against a live server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import openai
import pytest
from fastapi import FastAPI

from tests.api import talking
from tests.api.conftest import IMAGE, LiveServer
from tests.api.stand_ins import SEEN

URI = f"data:image/png;base64,{IMAGE}"
HELLO: Any = [{"role": "user", "content": "Hello there!"}]
GO_ON: Any = [{"role": "user", "content": "on"}]
WHOLE = "one two three four five"


@pytest.fixture
def client(server: LiveServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
async def async_client(server: LiveServer) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


async def silence() -> bool:
    """Whether the model has stopped talking, but for the word under way."""
    await asyncio.sleep(5 * talking.WORD_SECONDS)
    said = len(talking.SPOKEN)
    await asyncio.sleep(20 * talking.WORD_SECONDS)
    return len(talking.SPOKEN) == said


def test_models_that_chat_are_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["talker"]
    assert client.models.retrieve("talker").object == "model"


def test_an_answer_with_its_usage(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="talker", messages=HELLO)
    assert answer.object == "chat.completion" and answer.id.startswith("chatcmpl-") and answer.model == "talker"
    [choice] = answer.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", WHOLE, "stop")
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (2, 5, 7)
    assert abs(answer.created - time.time()) < 60


async def test_the_asynchronous_client_gets_the_same(async_client: openai.AsyncOpenAI) -> None:
    answer = await async_client.chat.completions.create(model="talker", messages=HELLO, max_tokens=2)
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("one two", "length")


def test_the_answer_as_it_grows(client: openai.OpenAI) -> None:
    options: Any = {"include_usage": True}
    chunks = list(client.chat.completions.create(model="talker", messages=HELLO, stream=True, stream_options=options))
    *grown, counted = chunks
    assert grown[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].delta.content for chunk in grown] == ["", "one", " two", " three", " four", " five", None]
    assert [chunk.choices[0].finish_reason for chunk in grown] == [None] * 6 + ["stop"]
    assert counted.choices == [] and counted.usage is not None and counted.usage.total_tokens == 7
    assert len({chunk.id for chunk in chunks}) == 1


async def test_the_answer_as_it_grows_asynchronously(async_client: openai.AsyncOpenAI) -> None:
    stream = await async_client.chat.completions.create(model="talker", messages=HELLO, stream=True)
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == WHOLE
    assert all(chunk.usage is None for chunk in chunks)


def test_a_conversation_with_images_reaches_the_model_in_its_order(client: openai.OpenAI) -> None:
    messages: Any = [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Compare"},
                {"type": "image_url", "image_url": {"url": URI, "detail": "low"}},
                {"type": "text", "text": "with"},
                {"type": "image_url", "image_url": {"url": URI}},
            ],
        },
        {"role": "assistant", "content": "They are equal."},
        {"role": "user", "content": "Sure?"},
    ]
    options: Any = {"temperature": 0.5, "top_p": 0.9, "seed": 7, "stop": ["four", "x"], "max_completion_tokens": 9}
    answer = client.chat.completions.create(model="talker", messages=messages, user="me", **options)
    assert answer.choices[0].message.content == "one two three"
    [request] = SEEN
    assert [message.role for message in request.messages] == ["system", "user", "assistant", "user"]
    compared = request.messages[1].parts
    assert [part if isinstance(part, str) else part.shape for part in compared] == [
        "Compare",
        (8, 16, 3),
        "with",
        (8, 16, 3),
    ]
    assert (request.temperature, request.top_p, request.seed, request.max_new_tokens) == (0.5, 0.9, 7, 9)


def test_a_client_that_leaves_a_stream_ends_the_work(client: openai.OpenAI) -> None:
    with client.chat.completions.create(model="talker", messages=GO_ON, stream=True) as stream:
        next(iter(stream))
    assert asyncio.run(silence())


async def test_a_client_that_gives_up_ends_the_work(async_client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.APITimeoutError):
        await async_client.chat.completions.create(model="talker", messages=GO_ON, timeout=0.3)
    assert talking.SPOKEN and await silence()


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"model": "nobody"}, openai.NotFoundError, "Models for chat: talker"),
        ({"model": "detector"}, openai.BadRequestError, "is for detection"),
        ({"n": 2}, openai.BadRequestError, "n is 2"),
        ({"messages": []}, openai.BadRequestError, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, openai.BadRequestError, "messages.0.role"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, openai.BadRequestError, "image_url"),
        ({"temperature": 3}, openai.BadRequestError, "temperature"),
        ({"logprobs": True}, openai.BadRequestError, "logprobs is not supported"),
        ({"response_format": {"type": "json_object"}}, openai.BadRequestError, "response_format is not supported"),
        ({"stop": ["a"] * 5}, openai.BadRequestError, "at most 4"),
        ({"max_tokens": 1_000_000}, openai.BadRequestError, "at most 4096"),
        ({"messages": [{"role": "user", "content": talking.MUTE}]}, openai.BadRequestError, "cannot be read"),
        ({"messages": [{"role": "user", "content": talking.BROKEN}]}, openai.InternalServerError, "error id"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_refused_says_why(
    client: openai.OpenAI, changes: Any, error: type[openai.APIStatusError], words: str, stream: bool
) -> None:
    late = stream and error is openai.InternalServerError
    with pytest.raises(openai.APIError if late else error, match=words) as refusal:
        for _ in client.chat.completions.create(**{"model": "talker", "messages": HELLO, "stream": stream, **changes}):
            pass
    assert refusal.value.type == ("server_error" if error is openai.InternalServerError else "invalid_request_error")
    assert "secret" not in str(refusal.value)


def test_an_image_that_cannot_be_had_is_named(client: openai.OpenAI) -> None:
    part = {"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/x.png"}}
    messages: Any = [{"role": "user", "content": [{"type": "text", "text": "?"}, part]}]
    with pytest.raises(openai.BadRequestError, match=r"messages\[0\]\.content\[1\]\.image_url: "):
        client.chat.completions.create(model="talker", messages=messages)


def test_limits_of_settings(talking_app: Callable[..., FastAPI]) -> None:
    app = talking_app(max_messages=2, max_chat_characters=20, max_images=1, request_timeout_seconds=0.2)
    with LiveServer(app) as server, openai.OpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0) as client:

        def ask(messages: Any) -> Any:
            return client.chat.completions.create(model="talker", messages=messages)

        image = {"type": "image_url", "image_url": {"url": URI}}
        for messages, words in (
            (HELLO * 3, "at most 2"),
            ([{"role": "user", "content": "x" * 21}], "21 characters"),
            ([{"role": "user", "content": [image, image]}], "2 images"),
        ):
            with pytest.raises(openai.APIStatusError, match=words) as refusal:
                ask(messages)
            assert refusal.value.status_code == 413
        with pytest.raises(openai.InternalServerError) as late:
            ask(GO_ON)
        assert (late.value.status_code, late.value.code) == (504, "timeout")


def test_a_key_is_asked_for(talking_app: Callable[..., FastAPI]) -> None:
    with LiveServer(talking_app(api_keys="sesame")) as server:
        stranger = openai.OpenAI(base_url=f"{server.url}/v1", api_key="wrong")
        with stranger, pytest.raises(openai.AuthenticationError, match="valid API key"):
            stranger.chat.completions.create(model="talker", messages=HELLO)
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="sesame") as friend:
            assert friend.chat.completions.create(model="talker", messages=HELLO).choices[0].message.content == WHOLE


def test_places(talking_app: Callable[..., FastAPI]) -> None:
    """The list of models is OpenAI's, unless Pixano has the root; everything is under the prefix anyway."""
    with LiveServer(talking_app(root_protocol="pixano")) as server:
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="x") as client:
            assert client.chat.completions.create(model="talker", messages=HELLO).choices[0].message.content == WHOLE
            listed = client.get("/models", cast_to=object)
            assert isinstance(listed, list), "Pixano's"
        with openai.OpenAI(base_url=f"{server.url}/openai/v1", api_key="x") as client:
            assert [model.id for model in client.models.list()] == ["talker"]
            assert client.chat.completions.create(model="talker", messages=HELLO).choices[0].message.content == WHOLE
