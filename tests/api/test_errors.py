"""Every error becomes one answer, and none of them says too much."""

from __future__ import annotations

import json
import logging
from typing import Any

import httpx
import pytest
from fastapi.exceptions import RequestValidationError
from starlette.responses import Response

from vision_model_repo import errors
from vision_model_repo.api.errors import MAX_PROBLEMS, TooManyRequests, Unauthorized, refusal_of, write_detail

JSON = {"content-type": "application/json"}


def error_response(error: Exception) -> Response:
    return write_detail(refusal_of(error))


def detail(response: Response) -> Any:
    return json.loads(bytes(response.body))["detail"]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.InvalidInput("why"), 400),
        (Unauthorized("why"), 401),
        (errors.NotAllowed("why"), 403),
        (errors.NotFound("why"), 404),
        (errors.TooLarge("why"), 413),
        (TooManyRequests("why"), 429),
        (errors.Busy("why"), 503),
        (errors.RequestTimeout("why"), 504),
        (errors.InsufficientMemory("why"), 507),
    ],
)
def test_an_expected_error_keeps_its_status_and_message(error: errors.VisionError, status: int) -> None:
    response = error_response(error)
    assert (response.status_code, detail(response)) == (status, "why")


@pytest.mark.parametrize("error", [errors.Busy("x", retry_after=7), TooManyRequests("x", retry_after=7)])
def test_who_must_wait_learns_how_long(error: errors.Busy) -> None:
    assert error_response(error).headers["retry-after"] == "7"


def test_who_has_no_key_learns_how_to_send_one() -> None:
    assert error_response(Unauthorized("x")).headers["www-authenticate"] == "Bearer"


def test_an_unexpected_error_is_an_id_that_the_log_explains(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        response = error_response(KeyError("/secret/path"))
    assert response.status_code == 500
    assert "secret" not in detail(response)
    assert detail(response).rstrip(".").split()[-1] in caplog.text


def test_a_thousand_problems_are_told_in_a_few() -> None:
    problem = {"type": "t", "loc": ("body", "x" * 1000), "msg": "m", "input": "secret", "ctx": {"error": ValueError()}}
    told = detail(error_response(RequestValidationError([problem] * 1000)))
    assert len(told) == MAX_PROBLEMS
    assert told[0] == {"type": "t", "loc": ["body", "x" * 100], "msg": "m"}


async def test_input_is_never_echoed(client: httpx.AsyncClient) -> None:
    response = await client.post("/models/load", json={"model_type": 7, "device": ["secret"], "oops": "secret"})
    assert response.status_code == 422
    assert "secret" not in response.text
    assert [problem["loc"][1] for problem in response.json()["detail"]] == ["model_type", "device", "oops"]


async def test_numbers_that_json_does_not_know_break_no_answer(client: httpx.AsyncClient) -> None:
    response = await client.post("/models/load", content=b'{"model_type": NaN, "device": -Infinity}', headers=JSON)
    assert (response.status_code, len(response.json()["detail"])) == (422, 2)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[1, 2", b'{"model_type": "\\ud800"}'])
async def test_what_is_not_json_is_unprocessable(client: httpx.AsyncClient, body: bytes) -> None:
    response = await client.post("/models/load", content=body, headers=JSON)
    assert (response.status_code, response.json()["detail"][0]["type"]) == (422, "json_invalid")


async def test_what_no_route_answers_is_told_in_a_sentence(client: httpx.AsyncClient) -> None:
    unknown, unusual = await client.get("/nowhere"), await client.get("/models/load")
    assert unknown.json() == {"detail": "There is no path /nowhere. GET /docs lists all paths."}
    assert unusual.json() == {"detail": "/models/load does not answer GET. It answers POST."}


async def test_a_compressed_body_is_refused_by_what_it_is(client: httpx.AsyncClient) -> None:
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    refused = await client.post("/inference/detector", content=b"\x1f\x8b", headers=headers)
    assert (refused.status_code, "Content-Encoding" in refused.json()["detail"]) == (415, True)
