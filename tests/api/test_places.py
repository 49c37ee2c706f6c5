"""Every route is let in, refused and answered by its policy and its protocol, whichever protocol has the root."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.routing import Route

from tests.api.conftest import Serve, engine_of
from vision_model_repo.api.protocols import Policy, Protocol
from vision_model_repo.api.router import policy_of
from vision_model_repo.api.routing import RouteTable
from vision_model_repo.api.server import PROTOCOLS
from vision_model_repo.engine.admission import Admission
from vision_model_repo.models.catalog import BUILT_IN, Catalog

ROOTS = [protocol.name for protocol in PROTOCOLS]
WRITERS = {"native": "detail", "ingrain": "detail", "openai": "openai", "pixano": "pixano"}


def declared(protocol: Protocol, catalog: Catalog) -> Iterator[tuple[str, str, Policy]]:
    """Method, path with a value in place of each parameter, and policy of every route of a protocol."""
    for route in protocol.router(catalog).routes:
        assert isinstance(route, Route)
        for method in sorted(route.methods or ()):
            yield method, re.sub("{.*?}", "x", route.path), policy_of(route)


def everywhere(root: str, catalog: Catalog) -> list[tuple[str, str, Protocol, Policy]]:
    """Every route at the root and under its prefix."""
    places: dict[tuple[str, str], tuple[Protocol, Policy]] = {}
    for protocol in sorted(PROTOCOLS, key=lambda protocol: protocol.name != root):
        for method, path, policy in declared(protocol, catalog):
            places.setdefault((method, path), (protocol, policy))
            places.setdefault((method, protocol.prefix + path), (protocol, policy))
    return [(method, path, protocol, policy) for (method, path), (protocol, policy) in places.items()]


def told_by(body: dict[str, Any]) -> str:
    """The form in which a refusal is told."""
    return "detail" if "detail" in body else "pixano" if "requestId" in body["error"] else "openai"


def assert_told_by(answer: httpx.Response, protocol: Protocol, path: str) -> None:
    if answer.request.method == "HEAD":
        return
    # The contract of Pixano's documentation tells it as FastAPI does.
    documented = path.removeprefix(protocol.prefix).startswith(("/inference/", "/app/"))
    expected = "detail" if protocol.name == "pixano" and documented else WRITERS[protocol.name]
    assert told_by(answer.json()) == expected, f"{answer.request.method} {path}"


@pytest.mark.parametrize("root", ROOTS)
async def test_work_is_admitted_as_work_and_a_refusal_is_told_by_whom_was_spoken_to(
    serve: Serve, catalog: Catalog, root: str
) -> None:
    async with serve(root_protocol=root) as client:
        engine_of(client).admission = Admission(0)
        for method, path, protocol, policy in everywhere(root, catalog):
            answer = await client.request(method, path)
            assert (answer.status_code == 503 and "busy" in answer.text) == policy.work, f"{method} {path}"
            if policy.work:
                assert_told_by(answer, protocol, path)


@pytest.mark.parametrize("root", ROOTS)
async def test_only_what_a_protocol_leaves_open_needs_no_key(serve: Serve, catalog: Catalog, root: str) -> None:
    async with serve(root_protocol=root, api_keys=("key",)) as client:
        for method, path, protocol, policy in everywhere(root, catalog):
            answer = await client.request(method, path)
            assert (answer.status_code == 401) == (not policy.open), f"{method} {path}"
            if answer.status_code == 401:
                assert_told_by(answer, protocol, path)


@pytest.mark.parametrize(
    "request_line",
    [
        *("POST /inference/detector", "POST /jobs/submit/detector", "POST /images", "POST /tracking"),
        *("GET /tracking/x/frames", "GET /tracking/x/clip", "POST /tracking/x/prompts", "POST /embed_image"),
        *("GET /model_embedding_size", "GET /model_classification_labels", "POST /v1/chat/completions"),
        *("POST /v1/embeddings", "POST /v1/inference/tracking/jobs", "POST /inference/vlm/"),
    ],
)
async def test_what_runs_a_model_or_brings_pictures_takes_a_place(client: httpx.AsyncClient, request_line: str) -> None:
    engine_of(client).admission = Admission(0)
    method, _, path = request_line.partition(" ")
    assert (await client.request(method, path)).status_code == 503


@pytest.mark.parametrize("path", ["/", "/health", "/ready", "/v1/health", "/ingrain/health", "/docs", "/openapi.json"])
async def test_what_tells_of_the_server_alone_is_open(serve: Serve, path: str) -> None:
    async with serve(api_keys=("key",)) as client:
        assert (await client.get(path)).status_code == 200


def test_every_route_says_who_may_ask_it(catalog: Catalog) -> None:
    places = [each for protocol in PROTOCOLS for each in declared(protocol, catalog)]
    assert len(places) > 100
    assert [f"{method} {path}" for method, path, policy in places if policy.scope == "admin"] == []
    assert all(policy.work for _, _, policy in places if policy.video)


@pytest.mark.parametrize(
    ("path", "protocol"),
    [
        ("/inference/detector/", "native"),
        ("/inference/vlm/", "pixano"),
        ("/inference/segmentation/", "pixano"),
        ("/inference/segmentation", "pixano"),
        ("/inference/detection/", "pixano"),
        ("/inference/tracking/", "pixano"),
        ("//v1/embeddings", "openai"),
        ("/v1//chat/completions/", "openai"),
        ("/jobs/submit/detector/", "native"),
    ],
)
async def test_a_slash_too_many_or_too_few_finds_the_same_route(serve: Serve, path: str, protocol: str) -> None:
    async with serve() as client:
        # A path that begins with two slashes is a host to the client, unless the whole URL is given.
        refused = await client.post(f"http://x{path}", content=b"{}", headers={"content-type": "application/json"})
    assert refused.status_code in (400, 422), refused.text
    assert told_by(refused.json()) == ("openai" if protocol == "openai" else "detail")
    if protocol != "openai":
        assert ("model" in refused.text) == (protocol == "pixano"), "native's requests need no model"


@pytest.mark.parametrize("root", ROOTS)
def test_native_and_pixano_keep_their_two_paths_to_language_models(root: str) -> None:
    table = RouteTable(PROTOCOLS, root)
    table.install(FastAPI(), Catalog(BUILT_IN))
    for path, name in (("/inference/vlm", "native"), ("/inference/vlm/", "pixano"), ("//inference/vlm", "native")):
        assert table.match({"type": "http", "method": "POST", "path": path}).protocol.name == name


@pytest.mark.parametrize(
    ("path", "form", "nearest"),
    [
        ("/v1/chat/completion", "openai", "POST /v1/chat/completions"),
        ("/v1/nothing/here", "openai", None),
        ("/v1/inference/segmentatio", "pixano", "POST /v1/inference/segmentation"),
        ("/inference/sam4", "detail", None),
        ("/pixano/v1/model", "pixano", "POST /pixano/v1/models"),
        ("/embed_txt", "detail", "POST /embed_text"),
        ("/modls/load", "detail", "POST /models/load"),
    ],
)
async def test_a_path_that_nobody_has_is_told_in_the_words_of_its_family(
    client: httpx.AsyncClient, path: str, form: str, nearest: str | None
) -> None:
    refused = await client.post(path)
    assert (refused.status_code, told_by(refused.json())) == (404, form)
    assert nearest is None or f"The nearest path is {nearest}." in refused.text
