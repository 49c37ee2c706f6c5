"""Embeddings of texts, asked for by the real client of OpenAI."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from fastapi import FastAPI

from tests.api import talking
from tests.api.conftest import LiveServer, settings_of
from tests.api.ingrain import stand_ins
from vision_model_repo.api.server import create_app
from vision_model_repo.models.catalog import Catalog


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the checkpoints."""
    return tmp_path_factory.mktemp("embeddings")


@pytest.fixture(scope="module")
def build(names: Path, catalog: Catalog) -> Callable[..., FastAPI]:
    def build(**changes: object) -> FastAPI:
        families = stand_ins.write_catalog(names, [talking.spec(), *catalog.values()])
        return create_app(settings_of(**changes), catalog=families)

    return build


@pytest.fixture(scope="module")
def server(build: Callable[..., FastAPI]) -> Iterator[LiveServer]:
    with LiveServer(build(max_texts=50, max_text_characters=1000)) as server:
        yield server


@pytest.fixture
def client(server: LiveServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def unit(text: str) -> Any:
    vector = np.array([len(text), 3, 0, 4], np.float32)
    return pytest.approx(vector / np.linalg.norm(vector))


def test_a_text(client: openai.OpenAI) -> None:
    answer = client.embeddings.create(model="text_embedding", input="abc", encoding_format="float")
    [entry] = answer.data
    assert (entry.object, entry.index, entry.embedding) == ("embedding", 0, unit("abc"))
    assert (answer.object, answer.model) == ("list", "text_embedding")
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (3, 3)


def test_many_texts_keep_their_order_and_are_base64_by_the_clients_own_choice(client: openai.OpenAI) -> None:
    texts = ["x" * count for count in range(1, 50)]
    answer = client.embeddings.create(model="text_embedding", input=texts)
    assert [entry.index for entry in answer.data] == list(range(49))
    assert [entry.embedding for entry in answer.data] == [unit(text) for text in texts]
    assert answer.usage.prompt_tokens == sum(map(len, texts))


async def test_the_asynchronous_client_gets_the_same(server: LiveServer) -> None:
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
        answer = await client.embeddings.create(model="text_embedding", input=["a"])
    assert answer.data[0].embedding == unit("a")


def test_base64_is_of_little_endian_float32(server: LiveServer) -> None:
    body = {"model": "text_embedding", "input": "abc", "encoding_format": "base64"}
    [entry] = httpx.post(f"{server.url}/openai/v1/embeddings", json=body).json()["data"]
    assert np.frombuffer(base64.b64decode(entry["embedding"]), "<f4") == unit("abc")


def test_shortened_vectors_have_unit_length(client: openai.OpenAI) -> None:
    answer = client.embeddings.create(model="text_embedding", input="abc", dimensions=2)
    assert answer.data[0].embedding == pytest.approx([0.5**0.5] * 2)


def test_vectors_are_those_of_the_ingrain_protocol(client: openai.OpenAI, server: LiveServer) -> None:
    given = {"name": "text_embedding", "text": ["a", "bcd"]}
    theirs = httpx.post(f"{server.url}/embed_text", json=given).json()["embeddings"]
    answer = client.embeddings.create(model="text_embedding", input=["a", "bcd"], encoding_format="float")
    assert [entry.embedding for entry in answer.data] == theirs


def test_a_model_of_texts_and_images_and_the_id_of_a_checkpoint(client: openai.OpenAI, names: Path) -> None:
    for model in ("clip", str(names / "clip"), str(names / "text_embedding"), "text-embedding"):
        answer = client.embeddings.create(model=model, input="a")
        assert (answer.model, answer.data[0].embedding) == (model, unit("a"))


def test_models_that_embed_are_listed_behind_those_that_chat(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["talker", "text_embedding", "clip"]
    assert client.models.retrieve("clip").id == "clip"
    with pytest.raises(openai.NotFoundError, match="no model 'detector' here"):
        client.models.retrieve("detector")


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"model": "nobody"}, openai.NotFoundError, "Models for embeddings: text_embedding, clip"),
        ({"model": "nobody/nothing"}, openai.NotFoundError, "nobody/nothing"),
        ({"model": "talker"}, openai.BadRequestError, "is for chat, not for embeddings"),
        ({"model": "image_classifier"}, openai.BadRequestError, "is for classification, not for embeddings"),
        ({"model": None}, openai.BadRequestError, "model"),
        ({"input": []}, openai.BadRequestError, "input is empty"),
        ({"input": ["x"] * 51}, openai.APIStatusError, "51 texts; at most 50"),
        ({"input": "x" * 1001}, openai.APIStatusError, "1001 characters; at most 1000"),
        ({"input": [1, 2, 3]}, openai.BadRequestError, "Lists of tokens are not read"),
        ({"input": [[1, 2], [3]]}, openai.BadRequestError, "Lists of tokens are not read"),
        ({"input": None}, openai.BadRequestError, "The input is a text or a list of texts"),
        ({"input": ["a", 5]}, openai.BadRequestError, "input"),
        ({"dimensions": 0}, openai.BadRequestError, "dimensions"),
        ({"dimensions": 5}, openai.BadRequestError, "have 4 dimensions; 5 cannot be had"),
        ({"encoding_format": "hex"}, openai.BadRequestError, "encoding_format"),
        ({"input": stand_ins.BROKEN}, openai.InternalServerError, "error id"),
    ],
)
def test_what_is_refused_says_why(
    client: openai.OpenAI, changes: Any, error: type[openai.APIStatusError], words: str
) -> None:
    body = {"model": "text_embedding", "input": "a", **changes}
    with pytest.raises(error, match=words) as refusal:
        client.post("/embeddings", body=body, cast_to=object)
    assert refusal.value.type == ("server_error" if error is openai.InternalServerError else "invalid_request_error")
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"model": "\\ud800", "input": "a"}', b"[" * 100_000])
def test_no_body_is_too_much(server: LiveServer, body: bytes) -> None:
    response = httpx.post(
        f"{server.url}/v1/embeddings", content=body, headers={"Content-Type": "application/json"}, timeout=30
    )
    assert response.status_code in (400, 413) and response.json()["error"]["type"] == "invalid_request_error"


def test_a_model_that_is_not_in_memory_is_not_loaded_where_settings_forbid_it(build: Callable[..., FastAPI]) -> None:
    with LiveServer(build(auto_load=False)) as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
        with client, pytest.raises(openai.NotFoundError, match="not loaded"):
            client.embeddings.create(model="text_embedding", input="a")
