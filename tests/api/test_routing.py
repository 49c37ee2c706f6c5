from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import PlainTextResponse

from vision_model_repo.api.routing import DirectRoute, RouteIndex, merged, placed


def echo(path: str, name: str, methods: tuple[str, ...] = ("GET",)) -> APIRouter:
    router = APIRouter(route_class=DirectRoute)

    async def endpoint(request: Request) -> PlainTextResponse:
        return PlainTextResponse(f"{name} {request.path_params}")

    router.add_api_route(path, endpoint, methods=list(methods), name=name)
    return router


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    router = merged(
        echo("/things/{key}", "any"),
        echo("/things/all", "all"),
        echo("/things/all", "late"),
        echo("/things/{key}", "change", ("PUT",)),
    )
    routes = [*placed(router, "", shown=False), *placed(router, "/under", shown=True)]
    app.router.routes += [RouteIndex(routes), *routes]
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        yield client


@pytest.mark.parametrize("prefix", ["", "/under"])
@pytest.mark.parametrize(
    ("method", "path", "answer"),
    [
        ("GET", "/things/all", "all {}"),
        ("GET", "/things/3", "any {'key': '3'}"),
        ("PUT", "/things/all", "change {'key': 'all'}"),
    ],
    ids=["without parameters", "with parameters", "the method decides"],
)
async def test_finds(client: httpx.AsyncClient, prefix: str, method: str, path: str, answer: str) -> None:
    assert (await client.request(method, prefix + path)).text == answer


async def test_what_is_not_there_is_404_and_another_method_405(client: httpx.AsyncClient) -> None:
    assert (await client.get("/nothing")).status_code == 404
    refused = await client.post("/things/all")
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET")


async def test_a_slash_too_many_leads_to_the_path_without(client: httpx.AsyncClient) -> None:
    assert (await client.get("/things/all/")).headers["location"] == "http://x/things/all"


async def test_the_description_has_what_is_shown(client: httpx.AsyncClient) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    assert set(paths) == {"/under/things/all", "/under/things/{key}"}
    operations = [operation["operationId"] for path in paths.values() for operation in path.values()]
    assert len(set(operations)) == len(operations) == 3
