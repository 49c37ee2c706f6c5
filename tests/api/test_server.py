"""The application: light to import, one engine for its lifetime, completely described."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.api.conftest import Serve, engine_of, settings_of
from vision_model_repo.api.server import create_app
from vision_model_repo.models.catalog import BUILT_IN, Catalog


def test_importing_the_server_imports_neither_torch_nor_ffmpeg_and_starts_no_thread() -> None:
    script = (
        "import sys, threading, vision_model_repo.api.server as server;"
        "print([m for m in ('torch', 'transformers', 'trimesh', 'av') if m in sys.modules], threading.active_count(),"
        "hasattr(server.app.state, 'engine'))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[] 1 False"


async def test_the_engine_lives_as_long_as_the_server(serve: Serve) -> None:
    async with serve() as client:
        engine = engine_of(client)
        assert engine.manager.healthy
    with pytest.raises(RuntimeError, match="shutdown"):
        await engine.pixels.run(int)


async def test_every_family_of_the_catalog_has_its_routes(client: httpx.AsyncClient) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    for family in ("detector", "seg-menter", "depth", "backbone"):
        assert {f"/inference/{family}", f"/inference/{family}/upload", f"/inference/{family}/overlay"} <= set(paths)


def test_the_guides_routes_are_all_there() -> None:
    paths = create_app(settings_of(), catalog=Catalog(BUILT_IN)).openapi()["paths"]
    for model in ("sam3", "grounding-dino", "depth-anything", "dinov3"):
        assert "post" in paths[f"/inference/{model}"]
    assert {"/", "/health", "/models/status", "/models/load", "/models/unload", "/models/unload-all"} <= set(paths)
    assert {"/jobs", "/jobs/submit/{model_type}", "/jobs/{job_id}", "/jobs/{job_id}/events"} <= set(paths)


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
async def test_the_documentation_needs_no_other_server(serve: Serve, page: str) -> None:
    async with serve(api_keys=("k",)) as client:
        text = (await client.get(page)).text
        loaded = re.findall(r'(?:src|href)="([^"]+)"', text)
        assert any(path.endswith(".js") for path in loaded) and not [path for path in loaded if "//" in path]
        for path in loaded:
            assert (await client.get(path)).status_code == 200


async def test_the_description_is_made_once_and_names_the_prefix_of_a_proxy(client: httpx.AsyncClient) -> None:
    transport: Any = client._transport
    proxied = httpx.AsyncClient(transport=httpx.ASGITransport(transport.app, root_path="/vision"), base_url="http://x")
    first, second = await asyncio.gather(client.get("/openapi.json"), client.get("/openapi.json"))
    assert first.content == second.content and "servers" not in first.json()
    assert (await proxied.get("/vision/openapi.json")).json() == {**first.json(), "servers": [{"url": "/vision"}]}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return create_app(settings_of(api_keys=("k",)), catalog=Catalog(BUILT_IN)).openapi()


def schemas(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object schema of the API, with a name to find it by."""
    yield from document["components"]["schemas"].items()
    for path, operations in document["paths"].items():
        for operation in operations.values():
            for media, content in operation.get("requestBody", {}).get("content", {}).items():
                for schema in content["schema"].get("anyOf", [content["schema"]]):
                    yield f"{path} {media}", schema


def test_every_field_has_a_description_and_an_example(document: dict[str, Any]) -> None:
    objects = [(name, schema) for name, schema in schemas(document) if "properties" in schema]
    fields = [(name, field, s) for name, schema in objects for field, s in schema["properties"].items()]
    assert len(fields) > 100
    assert [(name, field) for name, field, schema in fields if not schema.get("description")] == []
    # What is made of other schemas has their examples.
    plain = [(name, field) for name, field, schema in fields if "$ref" not in str(schema) and "examples" not in schema]
    assert plain == []


def test_every_reference_is_defined(document: dict[str, Any]) -> None:
    text = str(document)
    names = {part.split("'")[0] for part in text.split("'#/components/schemas/")[1:]}
    assert names and names <= set(document["components"]["schemas"])
    assert "$defs" not in text


def test_every_operation_has_an_id_and_a_sentence(document: dict[str, Any]) -> None:
    operations = [operation for operations in document["paths"].values() for operation in operations.values()]
    ids = [operation["operationId"] for operation in operations]
    assert len(set(ids)) == len(ids)
    assert all(operation.get("description") or operation.get("summary") for operation in operations)


def test_uploads_are_described_as_files(document: dict[str, Any]) -> None:
    body = document["paths"]["/inference/sam3/upload"]["post"]["requestBody"]["content"]["multipart/form-data"]
    assert body["schema"]["properties"]["images"]["items"] == {"type": "string", "format": "binary"}
    assert "prompts" in body["schema"]["properties"]


def test_keys_are_described_where_they_are_needed(document: dict[str, Any]) -> None:
    assert set(document["components"]["securitySchemes"]) == {"bearer", "api_key"}
    assert "security" not in create_app(settings_of(), catalog=Catalog(BUILT_IN)).openapi()
