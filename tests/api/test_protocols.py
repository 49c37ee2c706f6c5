"""Protocols have their places, and tell what is wrong each in its own words."""

from __future__ import annotations

import pytest
from fastapi import APIRouter, FastAPI
from starlette.responses import PlainTextResponse, Response
from starlette.types import Scope

from vision_model_repo.api.errors import Refusal
from vision_model_repo.api.protocols import Protocol, Protocols
from vision_model_repo.models.catalog import Catalog


def protocol(name: str, *paths: str, **attributes: object) -> Protocol:
    def router(catalog: Catalog) -> APIRouter:
        routes = APIRouter()
        for path in paths:
            method, _, place = path.partition(" ")
            routes.add_api_route(place, lambda: name, methods=[method], operation_id=f"{name} {path}")
        return routes

    def write(refusal: Refusal, scope: Scope, path: str) -> Response:
        return PlainTextResponse(f"{name} {path}: {refusal.detail}", refusal.status)

    return Protocol(name, name.title(), router, write, **attributes)  # type: ignore[arg-type]


ONE = protocol("one", "POST /ask", "GET /both/{x}", open_paths=frozenset({"/health"}), work_paths=("/ask",))
TWO = protocol(
    "two",
    *("POST /v1/ask/{x}", "POST /both/{x}", "GET /v1/health"),
    open_paths=frozenset({"/v1/health"}),
    work_paths=("/v1/ask",),
)


def places_of(root: str) -> Protocols:
    places = Protocols((ONE, TWO), root)
    places.install(FastAPI(), Catalog(()))
    return places


def scope(path: str, method: str = "POST") -> Scope:
    return {"type": "http", "method": method, "path": path}


@pytest.mark.parametrize(
    ("path", "owner"),
    [
        ("POST /ask", "one"),
        ("POST /one/ask", "one"),
        ("POST /two/ask", "two"),
        ("POST /v1/ask/a", "two"),
        ("GET /both/a", "one"),
        ("POST /both/a", "two"),
        ("PUT /both/a", "one"),
        ("PUT /v1/ask/a", "two"),
        ("GET /", "one"),
        ("GET /oneself", "one"),
    ],
)
def test_a_path_belongs_to_its_prefix_then_to_the_first_that_has_it_then_to_the_root(path: str, owner: str) -> None:
    method, _, place = path.partition(" ")
    assert places_of("one").find(scope(place, method))[0].name == owner


def test_another_protocol_can_have_the_root() -> None:
    places = places_of("two")
    assert places.find(scope("/ask")) == (ONE, "/ask")
    assert places.find(scope("/one/ask")) == (ONE, "/ask")
    assert places.find(scope("/both/a", "PUT")) == (TWO, "/both/a")
    assert places.find(scope("/nowhere")) == (TWO, "/nowhere")


def test_a_protocol_that_is_not_there_cannot_have_the_root() -> None:
    with pytest.raises(ValueError, match="There are: one, two"):
        Protocols((ONE, TWO), "three")


@pytest.mark.parametrize("root", ["one", "two"])
@pytest.mark.parametrize(
    ("path", "is_open", "is_work"),
    [("/one/health", True, False), ("/v1/health", True, False), ("/v1/ask/x", False, True), ("/ask", False, True)],
)
def test_what_is_open_and_what_is_work_is_the_same_wherever_it_is(
    path: str, is_open: bool, is_work: bool, root: str
) -> None:
    places = places_of(root)
    assert (places.is_open(scope(path)), places.is_work(scope(path))) == (is_open, is_work)
    assert not places.is_work(scope(path, "GET"))


def test_a_refusal_is_told_by_the_protocol_that_was_spoken_to() -> None:
    body = places_of("one").write_error(Refusal(404, "gone"), scope("/two/x")).body
    assert bytes(body) == b"two /x: gone"
