"""Protocols have their places, and tell what is wrong each in its own words."""

from __future__ import annotations

import pytest
from fastapi import APIRouter
from starlette.responses import PlainTextResponse, Response
from starlette.types import Scope

from vision_model_repo.api.errors import Refusal
from vision_model_repo.api.protocols import Protocol, Protocols


def protocol(name: str, **attributes: object) -> Protocol:
    def write(refusal: Refusal, scope: Scope, path: str) -> Response:
        return PlainTextResponse(f"{name} {path}: {refusal.detail}", refusal.status)

    return Protocol(name, name.title(), lambda catalog: APIRouter(), write, **attributes)  # type: ignore[arg-type]


ONE = protocol("one", open_paths=frozenset({"/health"}), work_paths=("/ask",))
TWO = protocol("two", open_paths=frozenset({"/v1/health"}), work_paths=("/v1/ask",), own_paths=("/v1/",))


def scope(path: str, method: str = "POST") -> Scope:
    return {"type": "http", "method": method, "path": path}


@pytest.mark.parametrize(
    ("path", "owner"),
    [("/ask", "one"), ("/one/ask", "one"), ("/two/ask", "two"), ("/v1/ask", "two"), ("/", "one"), ("/oneself", "one")],
)
def test_a_path_belongs_to_its_prefix_then_to_whom_alone_it_can_mean_then_to_the_root(path: str, owner: str) -> None:
    assert Protocols((ONE, TWO), "one").find(path)[0].name == owner


def test_another_protocol_can_have_the_root() -> None:
    places = Protocols((ONE, TWO), "two")
    assert places.find("/ask") == (TWO, "/ask")
    assert places.find("/one/ask") == (ONE, "/ask")


def test_a_protocol_that_is_not_there_cannot_have_the_root() -> None:
    with pytest.raises(ValueError, match="There are: one, two"):
        Protocols((ONE, TWO), "three")


@pytest.mark.parametrize(
    ("path", "is_open", "is_work"),
    [("/health", True, False), ("/v1/health", True, False), ("/v1/ask", False, True), ("/two/v1/ask/x", False, True)],
)
def test_what_is_open_and_what_is_work_is_the_same_at_the_root_and_under_the_prefix(
    path: str, is_open: bool, is_work: bool
) -> None:
    places = Protocols((ONE, TWO), "one")
    assert (places.is_open(scope(path)), places.is_work(scope(path))) == (is_open, is_work)
    assert not places.is_work(scope(path, "GET"))


def test_a_refusal_is_told_by_the_protocol_that_was_spoken_to() -> None:
    body = Protocols((ONE, TWO), "one").write_error(Refusal(404, "gone"), scope("/two/x")).body
    assert bytes(body) == b"two /x: gone"
