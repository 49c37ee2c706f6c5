"""Each request finds its route, its protocol and its policy once; what finds none is told in the right words."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx
import pytest
from fastapi import FastAPI, Request, WebSocket
from fastapi.responses import PlainTextResponse
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.testclient import TestClient
from starlette.types import Scope

from vision_model_repo.api import errors
from vision_model_repo.api.errors import Refusal
from vision_model_repo.api.middleware import Errors, FindRoute
from vision_model_repo.api.protocols import ADMIN, INFER, MANAGE, OPEN, READ, RESULTS, Policy, Protocol
from vision_model_repo.api.router import DirectRoute, Router, merged
from vision_model_repo.api.routing import RouteMatch, RouteTable, match_of, placed
from vision_model_repo.models.catalog import Catalog


def protocol(name: str, router: Router) -> Protocol:
    def write(refusal: Refusal, scope: Scope, path: str) -> Response:
        return PlainTextResponse(f"{name} {path[:40]}: {refusal.detail}", refusal.status, refusal.headers)

    return Protocol(name, name.title(), lambda catalog: router, write)


def routes(name: str, **policies: Policy) -> Router:
    """A router whose endpoints say what they are: `routes("one", **{"GET /things/{x}": READ})`."""
    router = Router(route_class=DirectRoute)
    for declared, policy in policies.items():
        method, _, path = declared.partition(" ")

        async def endpoint(request: Request, declared: str = declared) -> PlainTextResponse:
            return PlainTextResponse(f"{name} {declared} {request.path_params}")

        router.add_api_route(path, endpoint, methods=[method], policy=policy, name=f"{name} {declared}")
    return router


async def page(scope: Scope, receive: object, send: Callable[..., object]) -> None:
    await PlainTextResponse(f"page {scope['path']} under {scope['root_path']}")(scope, receive, send)  # type: ignore[arg-type]


async def talk(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text(f"hello {match_of(websocket.scope).protocol.name}")
    await websocket.close()


FIRST = routes(
    "one",
    **{
        "POST /ask": INFER,
        "POST /ask/vlm": INFER,
        "GET /both/{x}": READ,
        "GET /things/{key}": RESULTS,
        "GET /things/all": READ,
        "PUT /things/{key}": MANAGE,
        "GET /health": OPEN,
        "DELETE /secret": ADMIN,
        "GET /v1/first": READ,
    },
)
FIRST.mount("/files", page, policy=OPEN)
FIRST.add_api_websocket_route("/talk", talk, policy=INFER)
SECOND = routes(
    "two",
    **{
        "POST /ask/vlm/": INFER,
        "POST /v1/ask/{x}": INFER,
        "POST /both/{x}": INFER,
        "GET /v1/health": OPEN,
        "GET /v1/models/{name}": READ,
        "DELETE /v1/models/{name}": MANAGE,
    },
)
ONE, TWO = protocol("one", FIRST), protocol("two", merged(SECOND))


def app_of(root: str) -> tuple[FastAPI, RouteTable]:
    table = RouteTable((ONE, TWO), root)
    app = FastAPI(middleware=[Middleware(FindRoute, routes=table), Middleware(Errors, routes=table)])
    table.install(app, Catalog(()))
    errors.install(app, table.write_error)
    return app, table


def find(request: str, root: str = "one") -> RouteMatch:
    method, _, path = request.partition(" ")
    return app_of(root)[1].match({"type": "http", "method": method, "path": path})


@asynccontextmanager
async def client_of(root: str) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app_of(root)[0])
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        yield client


async def ask(request: str, root: str = "one") -> httpx.Response:
    method, _, path = request.partition(" ")
    async with client_of(root) as client:
        # A path that begins with two slashes is a host to the client, unless the whole URL is given.
        return await client.request(method, f"http://x{path}")


@pytest.mark.parametrize("prefix", ["", "/one"])
@pytest.mark.parametrize(
    ("request_line", "answer"),
    [
        ("GET /things/all", "one GET /things/all {}"),
        ("GET /things/3", "one GET /things/{key} {'key': '3'}"),
        ("PUT /things/all", "one PUT /things/{key} {'key': 'all'}"),
        ("GET /things/all/", "one GET /things/all {}"),
        ("GET /things/3/", "one GET /things/{key} {'key': '3'}"),
        ("GET /things//all", "one GET /things/all {}"),
        ("GET //things/3", "one GET /things/{key} {'key': '3'}"),
        ("POST /ask/vlm", "one POST /ask/vlm {}"),
    ],
)
async def test_finds(request_line: str, answer: str, prefix: str) -> None:
    method, _, path = request_line.partition(" ")
    assert (await ask(f"{method} {prefix}{path}")).text == answer


async def test_two_routes_that_differ_in_their_last_slash_stay_two() -> None:
    assert (await ask("POST /ask/vlm")).text.startswith("one")
    assert (await ask("POST /ask/vlm/")).text.startswith("two")
    assert (await ask("POST //ask//vlm/")).text.startswith("two")
    assert (await ask("POST /two/ask/vlm")).text.startswith("two"), "it has one spelling there"


@pytest.mark.parametrize(
    ("request_line", "owner", "policy"),
    [
        ("POST /ask", "one", INFER),
        ("POST /one/ask", "one", INFER),
        ("POST //one/ask/", "one", INFER),
        ("POST /v1/ask/a", "two", INFER),
        ("GET /both/a", "one", READ),
        ("POST /both/a", "two", INFER),
        ("GET /v1/health", "two", OPEN),
        ("GET /two/v1/health/", "two", OPEN),
        ("DELETE /secret", "one", ADMIN),
        ("GET /files/a/b", "one", OPEN),
        ("GET /one/files/a", "one", OPEN),
    ],
)
def test_a_path_belongs_to_the_first_that_has_it_with_its_method(request_line: str, owner: str, policy: Policy) -> None:
    match = find(request_line)
    assert (match.protocol.name, match.policy) == (owner, policy)


@pytest.mark.parametrize(
    ("request_line", "owner"),
    [
        ("GET /nowhere", "one"),
        ("GET /", "one"),
        ("GET /oneself", "one"),
        ("GET /one", "one"),
        ("GET /two/nowhere", "two"),
        ("GET /v1/nowhere", "one"),
        ("POST /v1/ask", "two"),
        ("POST /v1/ask/a/b/c", "two"),
        ("POST //v1//ask", "two"),
        ("GET //two/nowhere", "two"),
    ],
)
def test_a_path_that_nobody_has_belongs_to_whose_paths_begin_like_it(request_line: str, owner: str) -> None:
    match = find(request_line)
    assert (match.protocol.name, match.route, match.policy) == (owner, None, ADMIN)


def test_another_protocol_can_have_the_root() -> None:
    assert find("POST /ask", "two").protocol is ONE
    assert find("POST /one/ask", "two").path == "/ask"
    assert find("POST /v1/nowhere", "two").protocol is TWO
    assert find("GET /nowhere", "two").protocol is TWO


def test_a_protocol_that_is_not_there_cannot_have_the_root() -> None:
    with pytest.raises(ValueError, match="There are: one, two"):
        RouteTable((ONE, TWO), "three")


@pytest.mark.parametrize(
    ("request_line", "allowed"),
    [
        ("POST /v1/models/x", "DELETE, GET"),
        ("PATCH /things/all/", "GET, PUT"),
        ("DELETE /both/x", "GET, POST"),
        ("GET /ask/vlm", "POST"),
        ("POST /health", "GET"),
    ],
)
async def test_a_method_that_a_path_does_not_have_is_refused_with_those_that_it_has(
    request_line: str, allowed: str
) -> None:
    refused = await ask(request_line)
    assert (refused.status_code, refused.headers["allow"]) == (405, allowed)
    assert find(request_line).policy.work is False, "it takes no place"


@pytest.mark.parametrize(
    ("request_line", "text"),
    [
        ("POST /aks", "one /aks: There is no path /aks. The nearest path is POST /ask."),
        ("GET //one//helth", "one /helth: There is no path /one/helth. The nearest path is GET /one/health."),
        ("GET /one/helth", "one /helth: There is no path /one/helth. The nearest path is GET /one/health."),
        ("GET /thing/77777", "one /thing/77777: There is no path /thing/77777. The nearest path is GET /things/{key}."),
        ("GET /v1/model/abc", "one /v1/model/abc: There is no path /v1/model/abc. The nearest path is GET /v1/models"),
        ("POST /two/v1/model/abc", "The nearest path is DELETE, GET /two/v1/models/{name}."),
        ("GET /zzzzzzzzzz", "one /zzzzzzzzzz: There is no path /zzzzzzzzzz. GET /docs lists all paths."),
    ],
)
async def test_a_path_that_nobody_has_is_told_with_the_nearest(request_line: str, text: str) -> None:
    refused = await ask(request_line)
    assert refused.status_code == 404 and text in refused.text, refused.text


async def test_a_long_path_costs_no_more_than_a_short_one() -> None:
    refused = await ask("GET /" + "things/" * 8000)
    assert (refused.status_code, len(refused.text) < 600) == (404, True)


async def test_no_request_is_redirected() -> None:
    async with client_of("one") as client:
        for path in ("/health/", "//health", "/docs/", "/files", "/things/all/", "/nowhere/"):
            assert not (await client.get(f"http://x{path}")).is_redirect, path


@pytest.mark.parametrize(("path", "name"), [("/talk", "one"), ("/one/talk", "one")])
def test_a_websocket_finds_its_route(path: str, name: str) -> None:
    with TestClient(app_of("two")[0]).websocket_connect(path) as websocket:
        assert websocket.receive_text() == f"hello {name}"


@pytest.mark.parametrize("prefix", ["", "/one"])
async def test_a_mounted_application_gets_its_own_paths(prefix: str) -> None:
    assert (await ask(f"GET {prefix}/files/a/b")).text == f"page {prefix}/files/a/b under {prefix}/files"


async def test_routes_that_are_added_to_the_application_are_found_after_those_of_protocols() -> None:
    app, _ = app_of("one")
    app.include_router(routes("late", **{"GET /late/{x}": READ, "GET /health": READ}))
    app.router.routes += routes("later", **{"POST /later": INFER}).routes
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
        assert (await client.get("/late/1")).text == "late GET /late/{x} {'x': '1'}"
        assert (await client.get("/health")).text == "one GET /health {}"
        assert (await client.post("/later")).text == "later POST /later {}"
        assert (await client.get("/later")).headers["allow"] == "POST"


def test_a_route_that_cannot_be_moved_is_refused_at_the_start() -> None:
    router = Router()
    router.include_router(routes("inner", **{"GET /x": READ}))
    with pytest.raises(TypeError, match="one by one"):
        placed(router.routes[-1], "/under", shown=True)


async def test_the_description_has_each_path_once() -> None:
    async with client_of("one") as client:
        paths = (await client.get("/openapi.json")).json()["paths"]
    assert {"/ask", "/two/v1/ask/{x}"} <= set(paths) and not {"/one/ask", "/v1/ask/{x}"} & set(paths)
    ids = [operation["operationId"] for methods in paths.values() for operation in methods.values()]
    assert len(set(ids)) == len(ids)


async def test_a_proxys_prefix_is_no_part_of_the_path() -> None:
    scope = {"type": "http", "method": "POST", "path": "/proxy/one/ask", "root_path": "/proxy"}
    match = app_of("one")[1].match(scope)
    assert (match.path, match.policy) == ("/ask", INFER)
