"""A page of another site cannot use the server, nor reach it under a name of its own; programs notice nothing."""

from __future__ import annotations

import socket
from typing import Any

import httpx
import pytest

from tests.api.conftest import IMAGE, Serve
from tests.api.stand_ins import SEEN

BODY = {"images": [IMAGE], "prompts": ["a"]}
EVIL = "https://evil.example"
ACTING = [
    ("POST", "/inference/detector"),
    ("POST", "/ingrain/load_model"),
    ("POST", "/models/load"),
    ("POST", "/models/unload-all"),
    ("DELETE", "/jobs/x"),
    ("DELETE", "/delete_model"),
    ("POST", "/v1/models"),
    ("POST", "/v1/chat/completions"),
    ("GET", "/tracking/x/frames"),
    ("GET", "/model_embedding_size"),
    ("POST", "/nowhere"),
]


@pytest.mark.parametrize(("method", "path"), ACTING)
@pytest.mark.parametrize(
    "headers",
    [
        {"origin": EVIL},
        {"origin": "null"},
        {"origin": "http://localhost.evil.example"},
        {"origin": "http://x.evil.example", "sec-fetch-site": "same-site"},
        {"origin": ""},
        {"sec-fetch-site": "cross-site"},
    ],
    ids=lambda headers: " ".join(headers.values()) or "empty",
)
async def test_a_page_of_another_site_is_refused(
    client: httpx.AsyncClient, method: str, path: str, headers: dict[str, str]
) -> None:
    form = {"content-type": "application/x-www-form-urlencoded"} if method == "POST" else {}
    refused = await client.request(method, path, content=b"{}" if form else None, headers={**headers, **form})
    assert (refused.status_code, "CORS_ORIGINS" in refused.text) == (403, True)
    assert SEEN == []


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "http://x"},
        {"origin": "https://x"},
        {"origin": "http://localhost:3000"},
        {"origin": "http://127.0.0.1:5173", "sec-fetch-site": "cross-site"},
        {"origin": "http://[::1]:80"},
        {"origin": "https://vision.example", "sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "none"},
        {"sec-fetch-site": "same-site"},
    ],
    ids=lambda headers: " ".join(headers.values()) or "a program",
)
async def test_programs_and_its_own_pages_pass(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    assert (await client.post("/inference/detector", json=BODY, headers=headers)).status_code == 200


async def test_what_only_looks_is_answered_but_not_to_be_read(client: httpx.AsyncClient) -> None:
    answer = await client.get("/models/status", headers={"origin": EVIL, "sec-fetch-site": "cross-site"})
    assert answer.status_code == 200
    assert "access-control-allow-origin" not in answer.headers


async def test_a_named_origin_may(serve: Serve) -> None:
    async with serve(cors_origins=("https://Annotate.example/",)) as client:
        headers = {"origin": "https://annotate.example", "sec-fetch-site": "cross-site"}
        assert (await client.post("/inference/detector", json=BODY, headers=headers)).status_code == 200
        refused = await client.post("/inference/detector", json=BODY, headers={"origin": "http://localhost:3000"})
        assert refused.status_code == 403, "localhost was not named"


async def test_a_star_lets_every_page(serve: Serve) -> None:
    async with serve(cors_origins=("*",)) as client:
        answer = await client.post("/inference/detector", json=BODY, headers={"origin": EVIL})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "*")


@pytest.mark.parametrize(
    ("origins", "origin", "allowed"),
    [
        (("localhost",), "http://localhost:3000", True),
        (("localhost",), EVIL, False),
        (("https://b.example",), "https://b.example", True),
        (("https://b.example",), "http://localhost:3000", False),
        (("*",), EVIL, True),
    ],
)
async def test_a_browser_that_asks_first_is_told_the_same(
    serve: Serve, origins: tuple[str, ...], origin: str, allowed: bool
) -> None:
    headers = {"origin": origin, "access-control-request-method": "POST"}
    async with serve(cors_origins=origins) as client:
        answer = await client.options("/inference/detector", headers=headers)
    assert (answer.status_code == 200, "access-control-allow-origin" in answer.headers) == (allowed, allowed)
    assert "access-control-allow-credentials" not in answer.headers


async def test_a_page_that_may_can_read_a_refusal(serve: Serve) -> None:
    async with serve(api_keys=("k",)) as client:
        answer = await client.get("/jobs", headers={"origin": "http://localhost:3000"})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (401, "http://localhost:3000")


HOSTS: list[Any] = [
    "localhost",
    "localhost:8000",
    "LOCALHOST.",
    "app.localhost",
    "127.0.0.1:8000",
    "192.168.1.7",
    "[::1]:8000",
]


@pytest.mark.parametrize("host", [*HOSTS, socket.gethostname(), "vision.example.com:443", "a.lab.example", ""])
async def test_it_answers_for_its_own_names(serve: Serve, host: str) -> None:
    async with serve(allowed_hosts=("vision.example.com", "*.lab.example")) as client:
        assert (await client.get("/health", headers={"host": host})).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "a@localhost", "[x"],
)
@pytest.mark.parametrize(("method", "path"), [("GET", "/health"), ("GET", "/openapi.json"), *ACTING[:3]])
async def test_it_answers_for_no_other_name(client: httpx.AsyncClient, host: str, method: str, path: str) -> None:
    refused = await client.request(method, path, headers={"host": host, "sec-fetch-site": "same-origin"})
    assert (refused.status_code, "ALLOWED_HOSTS" in refused.text) == (403, True)


async def test_it_answers_for_the_name_that_it_listens_on(serve: Serve) -> None:
    async with serve(api_host="vision.lan") as client:
        assert (await client.get("/health", headers={"host": "vision.lan:8000"})).status_code == 200


async def test_every_name_may_be_allowed(serve: Serve) -> None:
    async with serve(allowed_hosts=("*",)) as client:
        assert (await client.get("/health", headers={"host": "any.example"})).status_code == 200
