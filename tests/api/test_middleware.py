"""What happens around every request: ids, logs, keys, rates, sizes, places, and clients that hang up."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import requests
from fastapi import FastAPI, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from tokenizers.normalizers import Precompiled

from tests.api.conftest import IMAGE, LiveServer, Serve, engine_of
from tests.api.stand_ins import GATE, SEEN
from vision_model_repo.api.middleware import Errors, FindRoute, RateLimit, Work
from vision_model_repo.api.native.routes import NATIVE
from vision_model_repo.api.routing import RouteTable
from vision_model_repo.api.work import admitted
from vision_model_repo.engine.admission import Admission
from vision_model_repo.errors import NotFound
from vision_model_repo.models.catalog import BUILT_IN, Catalog

URL = "/inference/detector"
WORK = "/inference/sam3"
BODY = {"images": [IMAGE], "prompts": ["a"]}
JSON = {"content-type": "application/json"}
ROUTES = RouteTable((NATIVE,), "native")
ROUTES.install(FastAPI(), Catalog(BUILT_IN))
LOG = "vision_model_repo.api.middleware"

ServeLive = Callable[..., LiveServer]


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.01)


# Ids and log


async def test_every_answer_has_a_request_id(client: httpx.AsyncClient) -> None:
    ids = {(await client.get(path)).headers["x-request-id"] for path in ("/", "/health", "/nowhere")}
    assert len(ids) == 3


async def test_a_callers_id_is_kept_if_it_is_harmless(client: httpx.AsyncClient) -> None:
    kept = await client.get("/", headers={"x-request-id": "trace-1.a_B"})
    assert kept.headers["x-request-id"] == "trace-1.a_B"
    for bad in ("a b", "x" * 65, 'a"b', ""):
        assert (await client.get("/", headers={"x-request-id": bad})).headers["x-request-id"] != bad


async def test_the_log_has_a_line_a_request_and_no_secrets(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, LOG)
    async with serve(api_keys=("top-secret",)) as client:
        await client.get("/jobs?token=hidden", headers={"x-api-key": "top-secret"})
        await client.post(URL, json={**BODY, "prompts": ["private"]}, headers={"authorization": "Bearer top-secret"})
    lines = [record.message for record in caplog.records if record.name == LOG]
    assert lines[0].startswith("GET /jobs 200 ") and lines[1].startswith(f"POST {URL} 200 ")
    assert not any(word in caplog.text for word in ("hidden", "top-secret", "private", IMAGE))


async def test_a_path_cannot_forge_a_log_line(client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, LOG)
    await client.get("/x%0AGET%20/fake%20200")
    assert [record.message.count("\n") for record in caplog.records if record.name == LOG] == [0]


# Keys


@pytest.mark.parametrize(
    "headers", [{"authorization": "Bearer two"}, {"authorization": "bearer one"}, {"x-api-key": "two"}]
)
async def test_a_key_opens_the_door(serve: Serve, headers: dict[str, str]) -> None:
    async with serve(api_keys=("one", "two")) as client:
        assert (await client.post(URL, json=BODY, headers=headers)).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [{}, {"authorization": "Bearer three"}, {"authorization": "Basic one"}, {"x-api-key": "on"}, {"x-api-key": ""}],
)
async def test_without_a_key_it_stays_shut(serve: Serve, headers: dict[str, str]) -> None:
    async with serve(api_keys=("one", "two")) as client:
        refused = await client.post(URL, json=BODY, headers=headers)
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert "API key" in refused.json()["detail"]
    assert SEEN == []


async def test_health_and_documentation_are_open(serve: Serve) -> None:
    async with serve(api_keys=("one",)) as client:
        for path in ("/", "/health", "/docs", "/redoc", "/openapi.json"):
            assert (await client.get(path)).status_code == 200
        for path in ("/jobs", "/models/status", "/health/x", "/docs/../jobs", "/docs/files/../../jobs"):
            assert (await client.get(path)).status_code == 401


# Rates


async def test_who_asks_too_often_waits(serve: Serve) -> None:
    async with serve(rate_limit_per_minute=3) as client:
        statuses = [(await client.get("/jobs")).status_code for _ in range(3)]
        refused = await client.get("/jobs")
        assert (statuses, refused.status_code) == ([200] * 3, 429)
        assert 1 <= int(refused.headers["retry-after"]) <= 20
        assert (await client.get("/health")).status_code == 200


async def test_keys_are_counted_apart(serve: Serve) -> None:
    async with serve(rate_limit_per_minute=1, api_keys=("one", "two")) as client:
        statuses = [
            (await client.get("/jobs", headers={"x-api-key": key})).status_code for key in ("one", "two", "one")
        ]
        assert statuses == [200, 200, 429]


def test_tokens_come_back_with_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    limit = RateLimit(lambda *_: asyncio.sleep(0), per_minute=60)
    assert [limit._take("a") for _ in range(61)] == [0] * 60 + [1]
    now = 1.5
    assert [limit._take("a"), limit._take("a")] == [0, 1]


def test_the_table_of_callers_is_bounded() -> None:
    limit = RateLimit(lambda *_: asyncio.sleep(0), per_minute=1, callers=100)
    for caller in range(1000):
        limit._take(caller)
    assert len(limit._buckets) == 100


# Sizes


async def test_a_declared_body_over_the_limit_is_refused_unread(serve: Serve) -> None:
    async with serve(max_body_mb=1) as client:
        read = False

        async def stream() -> AsyncIterator[bytes]:
            nonlocal read
            read = True
            yield b"x"

        headers = {**JSON, "content-length": str(2 * 2**20)}
        refused = await client.post(URL, content=stream(), headers=headers)
        assert (refused.status_code, "1 MB" in refused.json()["detail"]) == (413, True)
        assert not read
        absurd = await client.post(URL, content=b"", headers={**JSON, "content-length": "9" * 5000})
        assert absurd.status_code == 413


async def test_what_brings_no_image_may_have_kilobytes(client: httpx.AsyncClient) -> None:
    body = b'{"model_type": "' + b"x" * 300_000 + b'"}'
    for path in ("/models/load", "/models/unload", "/v1/models", "/load_model"):
        refused = await client.post(path, content=body, headers=JSON)
        assert (refused.status_code, "256 KB" in refused.text) == (413, True), path
    assert (await client.post("/models/load", content=body[-200_000:], headers=JSON)).status_code == 422


@pytest.mark.parametrize("path", [URL, f"{URL}/upload", "/jobs/submit/detector"])
def test_a_body_over_the_limit_is_refused_while_it_streams(serve_live: ServeLive, path: str) -> None:
    def chunks() -> Iterator[bytes]:
        yield (
            b'--x\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n' if "upload" in path else b'"'
        )
        for _ in range(40):
            yield b"x" * 2**16

    kind = "multipart/form-data; boundary=x" if "upload" in path else "application/json"
    with serve_live(max_body_mb=1) as server:
        refused = requests.post(server.url + path, data=chunks(), headers={"content-type": kind}, timeout=30)
        assert (refused.status_code, "1 MB" in refused.json()["detail"]) == (413, True)
        large = requests.post(server.url + path, data=b"x" * 3 * 2**20, headers={"content-type": kind}, timeout=30)
        assert large.status_code == 413
        assert requests.get(server.url + "/health", timeout=30).json()["status"] == "healthy"


@pytest.mark.parametrize("limit", ["request_timeout_seconds", "body_pause_seconds"])
def test_a_body_that_dawdles_is_given_up(serve_live: ServeLive, limit: str) -> None:
    with serve_live(**{limit: 0.3}) as server, connected(server) as client:
        client.sendall(f"POST {URL} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n".encode())
        client.sendall(b"Content-Length: 1000\r\n\r\n{")
        assert client.recv(1000).split()[1] == b"504"
        wait_until(lambda: server.engine.admission.inside == 0)


# Places


async def test_a_full_house_answers_503_before_the_body_is_read(serve: Serve) -> None:
    async with serve(max_pending_requests=1) as client:
        with engine_of(client).admission.enter():
            for path in (URL, f"{URL}/upload", f"{URL}/overlay", "/jobs/submit/detector"):
                refused = await client.post(path, content=b"no body that could be read", headers=JSON)
                assert (refused.status_code, int(refused.headers["retry-after"]) > 0) == (503, True)
            assert (await client.get("/health")).status_code == 200
            assert (await client.get("/jobs")).status_code == 200
        assert (await client.post(URL, json=BODY)).status_code == 200
        assert engine_of(client).admission.inside == 0


async def test_a_refused_request_gives_its_place_back(client: httpx.AsyncClient) -> None:
    for body in ({}, {"images": ["x"], "prompts": ["a"]}):
        assert (await client.post(URL, json=body)).status_code in (400, 422)
    assert engine_of(client).admission.inside == 0


# Clients that hang up


def connected(server: LiveServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=30)


def post(body: Any, path: str = URL) -> bytes:
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    return head.encode() + data


def test_a_client_that_hangs_up_frees_its_place(serve_live: ServeLive) -> None:
    with serve_live(max_pending_requests=2) as server:
        requests.post(server.url + URL, json=BODY, timeout=60).raise_for_status()
        SEEN.clear()
        GATE.clear()
        with connected(server) as first, connected(server) as second:
            first.sendall(post(BODY))
            wait_until(lambda: len(SEEN) == 1)
            second.sendall(post({**BODY, "prompts": ["never"]}))
            wait_until(lambda: server.engine.admission.inside == 2)
            assert requests.post(server.url + URL, json=BODY, timeout=30).status_code == 503
        wait_until(lambda: server.engine.admission.inside == 0)
        GATE.set()
        assert requests.post(server.url + URL, json=BODY, timeout=30).status_code == 200
        assert all(request.phrases != ("never",) for request in SEEN), "what nobody waits for is not computed"


def test_a_client_that_hangs_up_in_the_middle_of_its_body_is_no_error(
    serve_live: ServeLive, caplog: pytest.LogCaptureFixture
) -> None:
    with serve_live() as server:
        for path in (URL, "/models/load"):
            with connected(server) as client:
                client.sendall(post(BODY, path)[:-10])
                time.sleep(0.1)
        wait_until(lambda: server.engine.admission.inside == 0)
        assert requests.get(server.url + "/health", timeout=30).status_code == 200
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def run(work: ASGIApp, *messages: Message, then: Message | None = None, path: str = WORK) -> list[Message]:
    """Calls work inside the layers that cancel it and tell its errors, with these messages, then another when it is
    awaited or silence; gives what it sent."""
    inbox, sent = list(messages), []

    async def receive() -> Message:
        if inbox:
            return inbox.pop(0)
        if then is None:
            await asyncio.Event().wait()
        return then or {}

    async def send(message: Message) -> None:
        sent.append(message)

    app = FastAPI()
    app.state.engine = SimpleNamespace(admission=Admission(1))
    scope = {"type": "http", "method": "POST", "path": path, "headers": [], "app": app}
    await FindRoute(Errors(Work(work), ROUTES), ROUTES)(scope, receive, send)
    assert app.state.engine.admission.inside == 0
    return sent


END = {"type": "http.request", "body": b"b", "more_body": False}
GONE = {"type": "http.disconnect"}


@pytest.mark.parametrize("by_its_body", [False, True], ids=["the route is work", "the body says so"])
async def test_work_is_cancelled_at_once_when_its_client_is_gone(by_its_body: bool) -> None:
    outcome = []

    async def sleep() -> None:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            outcome.append("cancelled")
            raise

    async def work(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await sleep()

    async def work_by_its_body(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        await request.body()
        async with admitted(request):
            assert scope["app"].state.engine.admission.inside == 1
            await sleep()

    started = time.monotonic()
    if by_its_body:
        assert await run(work_by_its_body, END, then=GONE, path="/models/load") == []
    else:
        assert await run(work, END, then=GONE) == []
    assert outcome == ["cancelled"] and time.monotonic() - started < 5


async def test_work_that_its_body_tells_of_is_refused_when_every_place_is_taken() -> None:
    async def work(scope: Scope, receive: Receive, send: Send) -> None:
        # The layer outside has the one place.
        async with admitted(Request(scope, receive)):
            raise AssertionError("it has no place")

    assert (await run(work, END))[0]["status"] == 503


async def test_work_that_ends_is_not_kept_waiting_for_its_client() -> None:
    async def work(scope: Scope, receive: Receive, send: Send) -> None:
        body = await receive()
        await send({"type": "answer", "body": body["body"]})

    assert await run(work, END) == [{"type": "answer", "body": b"b"}]


async def test_an_error_of_the_work_gets_through() -> None:
    async def work(scope: Scope, receive: Receive, send: Send) -> None:
        raise NotFound("no such thing")

    head, _ = await run(work, END)
    assert head["status"] == 404


async def test_a_panic_of_an_extension_is_answered() -> None:
    async def work(scope: Scope, receive: Receive, send: Send) -> None:
        # It begins with a real one: the alphabet of this tokenizer is not one.
        Precompiled(b"\0\0\0\0abc").normalize_str("h\u00e9llo")

    head, _ = await run(work, END)
    assert head["status"] == 500


async def test_work_that_the_server_gives_up_is_answered() -> None:
    async def work(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await asyncio.sleep(30)

    request = asyncio.create_task(run(work, END))
    await asyncio.sleep(0.05)
    request.cancel()
    head, _ = await request
    assert (head["status"], dict(head["headers"])[b"retry-after"]) == (503, b"5")


async def test_work_that_was_cancelled_from_within_is_answered() -> None:
    async def work(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        raise asyncio.CancelledError

    assert (await run(work, END))[0]["status"] == 503
