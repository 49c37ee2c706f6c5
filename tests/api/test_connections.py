"""Connections keep bounds, over real sockets: what floods, stalls or stays silent goes, and honest clients get in."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import sys
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests
from fastapi import FastAPI, Request
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.responses import JSONResponse, Response
from starlette.testclient import TestClient

from tests.api.conftest import IMAGE, LiveServer, settings_of
from tests.api.test_middleware import wait_until
from tests.hostile import connections as hostile
from vision_model_repo.api.connections import limits
from vision_model_repo.api.connections.limits import connections_for
from vision_model_repo.api.protocols import INFER
from vision_model_repo.api.router import DirectRoute, Router
from vision_model_repo.api.server import create_app
from vision_model_repo.api.streams import event_stream
from vision_model_repo.demo.live import live_server
from vision_model_repo.models.catalog import Catalog

URL = "/inference/detector"
BODY = json.dumps({"images": [IMAGE], "prompts": ["a"]}).encode()
JSON = "Content-Type: application/json"
HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
LARGE = 24 * 2**20
"""More than the system keeps for a client that does not read."""

ServeLive = Callable[..., LiveServer]


class Noisy:
    """Routes whose answers are larger than what a connection holds, and what became of them."""

    def __init__(self) -> None:
        self.ended: list[str] = []

    async def large(self, request: Request) -> Response:
        return Response(b"x" * LARGE, media_type="application/octet-stream")

    async def events(self, request: Request) -> EventSourceResponse:
        async def events() -> AsyncGenerator[ServerSentEvent]:
            try:
                while True:
                    await asyncio.sleep(0)
                    yield ServerSentEvent("x" * 2**18)
            finally:
                self.ended.append("events")

        return event_stream(events(), 1.0)

    async def echo(self, request: Request) -> Response:
        body = (await request.body()).decode()
        key, client = request.headers.get("x-api-key"), request.client and request.client.host
        return JSONResponse({"body": body, "key": key, "client": client})


@contextmanager
def noisy(catalog: Catalog, **changes: Any) -> Iterator[tuple[LiveServer, Noisy]]:
    app, routes = create_app(settings_of(**changes), catalog=catalog), Noisy()
    router = Router(route_class=DirectRoute)
    for path, endpoint in (("large", routes.large), ("echo", routes.echo), ("events", routes.events)):
        router.add_api_route(f"/test/{path}", endpoint, methods=["GET", "POST"], policy=INFER)
    app.router.routes += router.routes
    with LiveServer(app) as server:
        yield server, routes


@pytest.fixture(scope="module")
def echoing(catalog: Catalog) -> Iterator[LiveServer]:
    with noisy(catalog) as (server, _):
        yield server


class Talk(ExitStack):
    """Raw connections to a server, all closed in the end."""

    def __init__(self, server: LiveServer) -> None:
        super().__init__()
        self._address = ("127.0.0.1", server.port)

    def connect(self, data: bytes = b"", *, receive_buffer: int | None = None) -> socket.socket:
        client = self.enter_context(socket.socket())
        client.settimeout(20)
        if receive_buffer:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.connect(self._address)
        client.sendall(data)
        return client


def read_all(client: socket.socket) -> bytes:
    pieces = []
    while piece := client.recv(2**16):
        pieces.append(piece)
    return b"".join(pieces)


def read_one(client: socket.socket) -> bytes:
    """One answer with a Content-Length."""
    answer = b""
    while True:
        head, end, body = answer.partition(b"\r\n\r\n")
        if end and len(body) >= int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]):
            return answer
        piece = client.recv(2**16)
        assert piece, answer
        answer += piece


def said(server: LiveServer, data: bytes) -> bytes:
    """What the server answers to these bytes until it closes."""
    with Talk(server) as talk:
        return read_all(talk.connect(data))


def statuses(answer: bytes) -> list[int]:
    return [int(each[:3]) for each in answer.split(b"HTTP/1.1 ")[1:]]


def post(path: str, body: bytes, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


# Headers


@pytest.mark.parametrize(
    "flood",
    [
        b"GET /health HTTP/1.1\r\n" + b"a: b\r\n" * 150,
        b"GET /health HTTP/1.1\r\n" + b"a: " + b"b" * 2**17,
        b"GET /health HTTP/1.1\r\n" + (b"a: " + b"b" * 4000 + b"\r\n") * 20,
        b"GET /" + b"b" * 2**17,
        b"GET /" + b"b" * 40_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a" * 2**17,
        b"POST /test/echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n" + b"a: b\r\n" * 150,
    ],
    ids=["fields", "one long field", "large fields", "url", "whole url", "name", "trailers"],
)
def test_a_large_header_is_refused_before_it_is_whole(echoing: LiveServer, flood: bytes) -> None:
    answer = said(echoing, flood)
    assert statuses(answer) == [431]
    assert b"100 fields and 32 KB" in answer and b"connection: close" in answer


def test_chunk_extensions_and_a_trailer_that_never_ends_are_refused(echoing: LiveServer) -> None:
    head = b"POST /test/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    for start in (b"1;a=", b"1\r\nx\r\n0\r\na: "):
        with Talk(echoing) as talk:
            client = talk.connect(head + start)
            for _ in range(3):
                time.sleep(0.05)
                client.sendall(b"b" * 2**15)
            assert statuses(read_all(client)) == [431]


def test_what_follows_a_large_body_counts_by_itself(echoing: LiveServer) -> None:
    body = b"x" * 2**16
    following = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"
    with Talk(echoing) as talk:
        client = talk.connect(post("/test/echo", body) + following)
        time.sleep(0.1)
        client.sendall(b"Connection: close\r\n\r\n")
        assert statuses(read_all(client)) == [200, 200]


def test_an_ordinary_header_may_have_several_pieces(echoing: LiveServer) -> None:
    with Talk(echoing) as talk:
        client = talk.connect(b"GET /hea")
        for piece in (
            b"lth HTTP/1.1\r\nHost: local",
            b"host\r\nCookie: " + b"c" * 20_000,
            b"\r\nConnection: close\r\n\r\n",
        ):
            time.sleep(0.02)
            client.sendall(piece)
        assert statuses(read_all(client)) == [200]


def test_trailers_do_not_pass_for_headers(echoing: LiveServer) -> None:
    chunked = b"POST /test/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    answer = said(echoing, chunked + b"2\r\nhi\r\n0\r\nX-API-Key: forged\r\n\r\n")
    assert statuses(answer) == [200] and b'{"body":"hi","key":null' in answer


def test_slow_headers_and_silence_end(serve_live: ServeLive) -> None:
    with serve_live(header_seconds=0.3) as server, Talk(server) as talk:
        silent = talk.connect()
        started = talk.connect(b"GET /health HTTP/1.1\r\n")
        second = talk.connect(HEALTH)
        read_one(second)
        second.sendall(b"GET /he")
        end = time.monotonic() + 5
        with pytest.raises(OSError):
            while time.monotonic() < end:
                time.sleep(0.05)
                started.sendall(b"a")
        assert read_all(silent) == b""
        answer = read_all(second)
        assert statuses(answer) == [408] and b"within 0.3 s" in answer


def test_a_connection_is_kept_for_the_next_request(serve_live: ServeLive) -> None:
    with serve_live(keep_alive_seconds=0.6, header_seconds=0.1) as server, Talk(server) as talk:
        client = talk.connect(HEALTH)
        for _ in range(2):
            assert statuses(read_one(client)) == [200]
            time.sleep(0.3)
            client.sendall(HEALTH)
        assert statuses(read_one(client)) == [200]
        started = time.monotonic()
        assert read_all(client) == b""
        assert 0.3 < time.monotonic() - started < 5


# How many


def test_silent_connections_make_way_for_honest_ones(serve_live: ServeLive) -> None:
    with serve_live(max_connections=8, header_seconds=30) as server, Talk(server) as talk:
        silent = [talk.connect(b"GET / HTTP/1.1\r\n" if number % 2 else b"") for number in range(30)]
        for _ in range(3):
            assert httpx.get(f"{server.url}/health").status_code == 200
        wait_until(lambda: sum(hostile._is_dead(each) for each in silent) >= 22)


def test_one_connection_too_many_is_told_so(catalog: Catalog) -> None:
    with noisy(catalog, max_connections=2, address_share=1.0) as (server, _), Talk(server) as talk:
        for _ in range(2):
            # Busy ones: an answer is being sent, and the client reads it.
            talk.connect(b"POST /test/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
        time.sleep(0.1)
        answer = read_all(talk.connect(HEALTH))
        assert statuses(answer) == [503] and b"too many connections" in answer and b"retry-after: 1" in answer


def test_one_address_leaves_room_for_others(catalog: Catalog) -> None:
    waiting = b"POST /test/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n"
    with noisy(catalog, max_connections=8) as (server, _), Talk(server) as talk:
        for _ in range(6):
            talk.connect(waiting)
        time.sleep(0.1)
        assert statuses(read_all(talk.connect(HEALTH))) == [503]
        other = talk.enter_context(socket.socket())
        other.bind(("127.0.0.2", 0))
        other.connect(("127.0.0.1", server.port))
        other.sendall(HEALTH)
        assert statuses(read_one(other)) == [200]
    with noisy(catalog, max_connections=8, trusted_proxies=("127.0.0.0/8",)) as (server, _), Talk(server) as talk:
        for _ in range(7):
            talk.connect(waiting)
        time.sleep(0.1)
        assert httpx.get(f"{server.url}/health").status_code == 200, "a proxy has no share"


def test_connections_are_fewer_where_files_are_few() -> None:
    assert [connections_for(each) for each in (256, 1024, 20_000, None)] == [204, 819, 1000, 1000]


def test_the_limit_of_open_files_is_raised_as_far_as_it_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    resource = limits.resource
    assert resource is not None
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (256, 2**30))
    monkeypatch.setattr(resource, "setrlimit", lambda kind, wanted: asked.append(wanted))
    assert limits.raise_descriptor_limit() == limits.MOST_DESCRIPTORS
    assert asked == [(limits.MOST_DESCRIPTORS, 2**30)]


# How slow


def test_a_slow_body_is_answered_408_and_gives_its_place_back(serve_live: ServeLive) -> None:
    with serve_live(min_body_bytes_per_second=1000, body_pause_seconds=0.5) as server, Talk(server) as talk:
        clients = [talk.connect(post(path, b"x" * 5000, JSON)[:-4999]) for path in (URL, "/models/load")]
        wait_until(lambda: server.engine.admission.inside == 1)
        for _ in range(20):
            time.sleep(0.1)
            for client in clients:
                client.sendall(b"x")
            if server.engine.admission.inside == 0:
                break
        for client in clients:
            answer = read_all(client)
            assert statuses(answer) == [408] and b"less than 1000 bytes per second" in answer
        assert server.engine.admission.inside == 0


def test_a_body_that_is_fast_at_first_may_not_dawdle_later(catalog: Catalog) -> None:
    with noisy(catalog, min_body_bytes_per_second=1000, body_pause_seconds=0.4) as (server, _), Talk(server) as talk:
        client = talk.connect(post("/test/echo", b"x" * 2**20)[: -(2**19)])
        for _ in range(30):
            time.sleep(0.1)
            try:
                client.sendall(b"x")
            except OSError:
                break
        assert statuses(read_all(client)) == [408]


def test_a_body_that_keeps_the_pace_may_take_its_time(catalog: Catalog) -> None:
    with noisy(catalog, min_body_bytes_per_second=1000, body_pause_seconds=0.3) as (server, _), Talk(server) as talk:
        client = talk.connect(post("/test/echo", b"x" * 4000, "Connection: close")[:-4000])
        for _ in range(10):
            time.sleep(0.1)
            client.sendall(b"x" * 400)
        assert statuses(read_all(client)) == [200]


def test_a_client_that_is_not_told_to_continue_is_not_slow(serve_live: ServeLive) -> None:
    with serve_live(min_body_bytes_per_second=10**6, body_pause_seconds=0.3) as server, Talk(server) as talk:
        head, body = post(URL, BODY, JSON, "Expect: 100-continue").split(b"\r\n\r\n")
        client = talk.connect(head + b"\r\n\r\n")
        assert client.recv(2**16) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(body)
        assert statuses(read_one(client)) == [200]


def test_readers_that_never_read_are_cut_and_their_memory_is_given_back(catalog: Catalog) -> None:
    with noisy(catalog, answer_pause_seconds=0.5) as (server, _), Talk(server) as talk:
        clients = [
            talk.connect(b"GET /test/large HTTP/1.1\r\nHost: x\r\n" + end, receive_buffer=4096)
            for end in (b"\r\n", b"Connection: close\r\n\r\n")
        ]
        wait_until(lambda: all(map(hostile._is_dead, clients)))
        with pytest.raises(OSError):
            read_all(clients[0])


def test_event_streams_that_nobody_reads_end_and_give_their_place_back(catalog: Catalog) -> None:
    with noisy(catalog, request_timeout_seconds=0.5) as (server, routes), Talk(server) as talk:
        client = talk.connect(b"GET /test/events HTTP/1.1\r\nHost: x\r\n\r\n", receive_buffer=4096)
        wait_until(lambda: server.engine.admission.inside == 1)
        wait_until(lambda: server.engine.admission.inside == 0)
        assert hostile._is_dead(client) and routes.ended == ["events"]


def test_a_reader_that_keeps_the_pace_gets_its_answer(catalog: Catalog) -> None:
    changes = {"min_answer_bytes_per_second": 2**20, "answer_pause_seconds": 0.4}
    with noisy(catalog, **changes) as (server, _), Talk(server) as talk:
        client = talk.connect(b"GET /test/large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", receive_buffer=2**18)
        read, started = 0, time.monotonic()
        while piece := client.recv(2**18):
            read += len(piece)
            time.sleep(0.01)
        assert read > LARGE and time.monotonic() - started > 0.8


def test_what_is_left_unread_by_all_is_bounded(catalog: Catalog) -> None:
    with noisy(catalog, max_unsent_mb=40, answer_pause_seconds=4) as (server, _), Talk(server) as talk:
        request = b"GET /test/large HTTP/1.1\r\nHost: x\r\n\r\n"
        clients = []
        for _ in range(4):
            clients.append(talk.connect(request, receive_buffer=4096))
            time.sleep(0.1)
        wait_until(lambda: sum(map(hostile._is_dead, clients)) >= 2, seconds=3)
        assert not all(map(hostile._is_dead, clients))


# What uvicorn loses


@pytest.mark.parametrize(
    "body",
    [b"Content-Length: 5\r\n\r\nhello", b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"],
    ids=["length", "chunks"],
)
@pytest.mark.parametrize("pieces", [1, 3])
def test_an_offer_to_upgrade_does_not_lose_the_body(echoing: LiveServer, body: bytes, pieces: int) -> None:
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAA\r\n"
    request = b"POST /test/echo HTTP/1.1\r\nHost: localhost\r\n" + offer + body
    last = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    with Talk(echoing) as talk:
        client = talk.connect()
        size = len(request) // pieces
        for start in range(0, len(request), size):
            client.sendall(request[start : start + size])
            time.sleep(0.02)
        client.sendall(last)
        answer = read_all(client)
    assert statuses(answer) == [200, 200] and b'"body":"hello"' in answer


def test_an_offer_to_upgrade_without_a_body_is_answered_as_usual(echoing: LiveServer) -> None:
    for kind in (b"h2c", b"websocket"):
        offer = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: " + kind + b"\r\n"
        assert statuses(said(echoing, offer + b"\r\n" + offer + b"Connection: close\r\n\r\n")) == [200, 200]


@pytest.mark.parametrize(
    ("changes", "path", "status"),
    [
        ({"api_keys": ("key",)}, URL, "401"),
        ({"max_body_mb": 4}, URL, "413"),
        ({"max_pending_requests": 1}, URL, "503"),
        ({}, "/nowhere", "404"),
    ],
)
def test_a_refusal_before_the_body_is_read_arrives(
    serve_live: ServeLive, changes: dict[str, Any], path: str, status: str
) -> None:
    with serve_live(**changes) as server:
        megabytes = 5 if status == "413" else 3
        with ExitStack() as place:
            if status == "503":
                place.enter_context(server.engine.admission.enter())
            assert hostile.refused_answers(server.url, path=path, tries=20, megabytes=megabytes) == {status: 20}


@pytest.mark.parametrize("limit", [{"max_body_mb": 1, "max_video_mb": 1}, {"refused_body_seconds": 0.3}])
def test_after_a_refusal_only_so_much_is_thrown_away(serve_live: ServeLive, limit: dict[str, Any]) -> None:
    with serve_live(api_keys=("key",), **limit) as server, Talk(server) as talk:
        endless = talk.connect(f"POST {URL} HTTP/1.1\r\nHost: x\r\nContent-Length: {2**40}\r\n\r\n".encode())
        sent = 0
        with pytest.raises(OSError):
            while sent < 2**32:
                sent += endless.send(b"x" * 2**18)
                time.sleep(0.001)
        assert "max_body_mb" not in limit or sent < 2**25


def test_a_kept_connection_outlives_a_refusal(serve_live: ServeLive) -> None:
    with serve_live(api_keys=("key",)) as server, Talk(server) as talk:
        client = talk.connect(post(URL, b"x" * 2**20))
        assert statuses(read_one(client)) == [401]
        client.sendall(HEALTH)
        assert statuses(read_one(client)) == [200]


def test_a_body_that_was_refused_instead_of_continued_ends_its_connection(serve_live: ServeLive) -> None:
    with serve_live(api_keys=("key",)) as server:
        head, _ = post(URL, BODY, "Expect: 100-continue").split(b"\r\n\r\n")
        with Talk(server) as talk:
            answer = read_one(talk.connect(head + b"\r\n\r\n"))
            assert statuses(answer) == [401] and b"connection: close" in answer


@pytest.mark.parametrize(
    "head",
    [
        b"POST /test/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /test/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
        b"POST /test/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST /test/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
        b"POST /test/echo HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\n",
        b"POST /test/echo HTTP/1.1\r\nHost : x\r\n\r\n",
        b"POST /test/echo HTTP/1.1\nHost: x\n\n",
        b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http://x HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
    ],
)
def test_what_is_no_clear_request_is_refused_and_the_connection_ends(echoing: LiveServer, head: bytes) -> None:
    answer = said(echoing, head + b"0\r\n\r\nGET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert statuses(answer) == [400]
    assert json.loads(answer.split(b"\r\n\r\n")[1])["detail"].endswith(".")


def test_requests_in_a_row_are_answered_in_their_order(echoing: LiveServer) -> None:
    parts = [post("/test/echo", str(number).encode()) for number in range(20)]
    parts.append(post("/test/echo", b"20", "Connection: close"))
    answer = said(echoing, b"".join(parts))
    assert statuses(answer) == [200] * 21
    bodies = [json.loads(part.split(b"\r\n\r\n")[1])["body"] for part in answer.split(b"HTTP/1.1 ")[1:]]
    assert bodies == [str(number) for number in range(21)]


def test_nonsense_after_good_requests_loses_none_of_their_answers(echoing: LiveServer) -> None:
    assert statuses(said(echoing, HEALTH * 3 + b"NONSENSE\r\n\r\n")) == [200] * 3
    broken_chunk = b"POST /test/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
    assert statuses(said(echoing, HEALTH * 2 + broken_chunk)) == [200] * 2
    assert statuses(said(echoing, broken_chunk)) == [400]


@pytest.mark.parametrize("offer", [b"", b"Connection: Upgrade\r\nUpgrade: h2c\r\n"], ids=["plain", "upgrades"])
def test_endless_requests_in_a_row_end(echoing: LiveServer, offer: bytes) -> None:
    request = b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + offer + b"\r\n"
    assert 1 <= len(statuses(said(echoing, request * 500))) <= 64


# Proxies


@pytest.mark.parametrize(
    ("proxies", "forwarded", "seen"),
    [
        ((), "1.2.3.4", "127.0.0.1"),
        (("10.0.0.1",), "1.2.3.4", "127.0.0.1"),
        (("127.0.0.1",), "9.9.9.9, 1.2.3.4", "1.2.3.4"),
        (("127.0.0.0/8", "1.2.3.4"), "9.9.9.9, 1.2.3.4", "9.9.9.9"),
    ],
)
def test_forwarded_addresses_count_from_trusted_proxies_alone(
    catalog: Catalog, proxies: tuple[str, ...], forwarded: str, seen: str
) -> None:
    with noisy(catalog, trusted_proxies=proxies) as (server, _):
        answer = httpx.get(f"{server.url}/test/echo", headers={"x-forwarded-for": forwarded})
        assert answer.json()["client"] == seen


@pytest.mark.parametrize(("proxies", "seen"), [((), None), (("unix",), "1.2.3.4")])
def test_a_proxy_may_come_by_a_unix_socket(
    catalog: Catalog, tmp_path: Path, proxies: tuple[str, ...], seen: str | None
) -> None:
    app = create_app(settings_of(trusted_proxies=proxies), catalog=catalog)
    app.add_route("/test/echo", Noisy().echo)
    server, path = LiveServer(app), str(tmp_path / "socket")
    server._server.config.uds = path
    with server, httpx.Client(transport=httpx.HTTPTransport(uds=path), base_url="http://localhost") as client:
        assert client.get("/test/echo", headers={"x-forwarded-for": "1.2.3.4"}).json()["client"] == seen


def test_an_address_that_a_caller_made_up_does_not_evade_the_rate_limit(serve_live: ServeLive) -> None:
    with serve_live(rate_limit_per_minute=2) as server:
        made_up = [{"x-forwarded-for": f"1.2.3.{number}"} for number in range(4)]
        found = [requests.get(f"{server.url}/jobs", headers=headers, timeout=30).status_code for headers in made_up]
        assert found == [200, 200, 429, 429]


# Servers


def test_uvicorn_started_by_hand_has_the_bounds(tmp_path: Path) -> None:
    command = (sys.executable, "-m", "uvicorn", "vision_model_repo.api.server:app", "--port", "0")
    settings = {"HF_HUB_OFFLINE": "1", "MAX_CONNECTIONS": "8", "HEADER_SECONDS": "1", "RATE_LIMIT_PER_MINUTE": "2"}
    with live_server(tmp_path, settings, command=command) as server:
        silent = hostile.silent_connections(server.url, server.process.pid, count=30, seconds=10)
        assert silent.shut_out == 0 and silent.cut_after is not None, server.log()
        flood = hostile.header_flood(server.url, server.process.pid, megabytes=1)
        assert flood.outcomes == {"431": 1}
        codes = [
            httpx.get(f"{server.url}/jobs", headers={"x-forwarded-for": f"1.2.3.{number}"}).status_code
            for number in range(3)
        ]
        assert codes == [200, 200, 429]


def test_connections_in_every_state_do_not_keep_the_server_from_stopping(serve_live: ServeLive) -> None:
    with serve_live(api_keys=("key",)) as server:
        talk = Talk(server)
        silent = talk.connect()
        partial = talk.connect(b"GET / HT")
        kept = talk.connect(HEALTH)
        read_one(kept)
        refused = talk.connect(f"POST {URL} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n".encode())
        assert statuses(read_one(refused)) == [401]
        malformed = talk.connect(b"NONSENSE\r\n\r\n")
        assert statuses(read_all(malformed)) == [400]
        started = time.monotonic()
    assert time.monotonic() - started < 2
    with talk:
        assert [each.recv(1) for each in (silent, partial, kept, refused)] == [b""] * 4


def test_another_server_is_warned_of(catalog: Catalog, caplog: pytest.LogCaptureFixture) -> None:
    app: FastAPI = create_app(settings_of(), catalog=catalog)
    with caplog.at_level(logging.WARNING), TestClient(app):
        pass
    told = [record.getMessage() for record in caplog.records if "not uvicorn" in record.getMessage()]
    assert len(told) == 1 and "MAX_CONNECTIONS" in told[0] and "TRUSTED_PROXIES" in told[0]
