"""Every path is let in, refused and answered by the rules of its own protocol, whichever protocol has the root."""

from __future__ import annotations

import re
from typing import Any

import pytest
from fastapi import FastAPI

from tests.api.conftest import Serve, engine_of
from vision_model_repo.api.protocols import Protocol
from vision_model_repo.api.server import PROTOCOLS
from vision_model_repo.engine.admission import Admission
from vision_model_repo.models.catalog import Catalog

WORK = {
    "native": r"POST /(inference|jobs/submit|images|tracking)\b.*|GET /tracking/\w+/(frames|clip)",
    "ingrain": r"POST /(embed|embed_text|embed_image|infer|classify_image)",
    "openai": r"POST /v1/(chat/completions|embeddings)",
    "pixano": r"POST (/v1)?/inference/.*",
}
"""What asks for inference, or brings what is to be kept."""
OPEN = {
    "native": {"/", "/health", "/ready"},
    "ingrain": {"/health"},
    "openai": set[str](),
    "pixano": {"/", "/v1/health", "/v1/ready", "/v1/info"},
}
ROOTS = [protocol.name for protocol in PROTOCOLS]


def described(protocol: Protocol, catalog: Catalog) -> list[str]:
    """The methods and paths of a protocol, with a value in place of each parameter."""
    app = FastAPI()
    app.include_router(protocol.router(catalog))
    paths = app.openapi()["paths"].items()
    return [f"{method.upper()} {re.sub('{.*?}', 'x', path)}" for path, methods in paths for method in methods]


def routes(root: str, catalog: Catalog) -> list[tuple[str, str, str, str]]:
    """Every route: method, path, the protocol that answers it, and the path there."""
    everywhere: dict[str, tuple[str, str, str, str]] = {}
    for protocol in sorted(PROTOCOLS, key=lambda protocol: protocol.name != root):
        for route in described(protocol, catalog):
            method, _, path = route.partition(" ")
            everywhere.setdefault(route, (method, path, protocol.name, path))
            prefixed = f"/{protocol.name}{path}"
            everywhere[f"{method} {prefixed}"] = (method, prefixed, protocol.name, path)
    return list(everywhere.values())


def told_by(body: dict[str, Any], path: str) -> set[str]:
    """The protocols that tell a refusal so."""
    if "detail" in body:
        return {"native", "ingrain"} if not path.startswith(("/inference/", "/app/")) else {"native", "pixano"}
    return {"pixano"} if "requestId" in body["error"] else {"openai"}


@pytest.mark.parametrize("root", ROOTS)
async def test_work_is_admitted_as_work_and_a_refusal_is_told_by_whom_was_spoken_to(
    serve: Serve, catalog: Catalog, root: str
) -> None:
    async with serve(root_protocol=root) as client:
        engine_of(client).admission = Admission(0)
        for method, path, protocol, own_path in routes(root, catalog):
            answer = await client.request(method, path)
            full = answer.status_code == 503 and "busy" in answer.text
            assert full == bool(re.fullmatch(WORK[protocol], f"{method} {own_path}")), f"{method} {path}"
            if full:
                assert protocol in told_by(answer.json(), own_path), f"{method} {path}"


@pytest.mark.parametrize("root", ROOTS)
async def test_only_what_a_protocol_leaves_open_needs_no_key(serve: Serve, catalog: Catalog, root: str) -> None:
    async with serve(root_protocol=root, api_keys=("key",)) as client:
        for method, path, protocol, own_path in routes(root, catalog):
            answer = await client.request(method, path)
            assert (answer.status_code == 401) == (own_path not in OPEN[protocol]), f"{method} {path}"
            if answer.status_code == 401:
                assert protocol in told_by(answer.json(), own_path), f"{method} {path}"
