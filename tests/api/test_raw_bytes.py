"""Bytes that no client's library sends: the server refuses them or hangs up, frees the place, and stays well."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator

import httpx
import pytest
from fastapi import FastAPI

from tests.api.conftest import IMAGE, LiveServer
from tests.api.stand_ins import SEEN
from tests.support.raw_client import RawClient

PATH = "/inference/detector"
BODY = json.dumps({"images": [IMAGE], "prompts": ["a"]}).encode()
JSON = "Content-Type: application/json"
CHUNKED = "Transfer-Encoding: chunked"


@pytest.fixture(scope="module")
def live(build_app: Callable[..., FastAPI]) -> Iterator[LiveServer]:
    with LiveServer(build_app()) as server:
        yield server


@pytest.fixture
def client(live: LiveServer) -> Iterator[RawClient]:
    """A connection whose server must be well afterwards and hold nothing of it."""
    with RawClient(live.url) as client:
        yield client
    wait_until_inside(live, 0)
    assert httpx.get(f"{live.url}/health").json()["status"] == "healthy"


def wait_until_inside(live: LiveServer, requests: int) -> None:
    deadline = time.monotonic() + 10
    while live.engine.admission.inside != requests:
        assert time.monotonic() < deadline, f"{live.engine.admission.inside} requests are inside, not {requests}"
        time.sleep(0.01)


def good(client: RawClient) -> None:
    client.request("POST", PATH, JSON, f"Content-Length: {len(BODY)}", body=BODY)


@pytest.mark.parametrize(
    "sent",
    [
        b"\r\n\r\n\r\n no request\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
        b"GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nno header\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1e3\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 40 + b"\r\n\r\n",
    ],
)
def test_what_is_no_request_is_refused(client: RawClient, sent: bytes) -> None:
    client.send(sent)
    client.half_close()
    said = client.rest()
    assert not said or said.startswith(b"HTTP/1.1 4"), said


@pytest.mark.parametrize(
    "chunks", [b"zz\r\nabc\r\n", b"-1\r\n\r\n", b"f" * 40 + b"\r\n", b"5\r\nabcdefgh\r\n0\r\n\r\n"]
)
def test_chunks_that_are_none_are_refused(client: RawClient, chunks: bytes) -> None:
    client.request("POST", PATH, JSON, CHUNKED, body=chunks)
    client.half_close()
    said = client.rest()
    assert not said or said.startswith(b"HTTP/1.1 4"), said


@pytest.mark.parametrize(
    "leave", [RawClient.half_close, RawClient.reset, RawClient.close], ids=lambda way: way.__name__
)
@pytest.mark.parametrize("length", [len(BODY) + 1, 10**6])
def test_a_body_that_is_cut_off_runs_no_model(
    client: RawClient, live: LiveServer, leave: Callable[[RawClient], None], length: int
) -> None:
    client.request("POST", PATH, JSON, f"Content-Length: {length}", body=BODY)
    wait_until_inside(live, 1)
    leave(client)
    wait_until_inside(live, 0)
    assert not SEEN


def test_a_client_may_leave_without_a_word(client: RawClient) -> None:
    client.reset()


def test_a_request_that_comes_in_pieces_is_answered(client: RawClient) -> None:
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\n{JSON}\r\nContent-Length: {len(BODY)}\r\n\r\n"
    client.send(*head[:20], head[20:], BODY[:-3], BODY[-3:], pause=0.002)
    assert client.answer()[0] == 200


def test_requests_sent_ahead_are_answered_in_order(client: RawClient) -> None:
    good(client)
    client.request("GET", "/no/such/path")
    client.request("POST", PATH, JSON, CHUNKED, body=b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY))
    assert [client.answer(method)[0] for method in ("POST", "GET", "POST")] == [200, 404, 200]


def test_what_follows_a_refused_body_is_not_read_as_a_request(client: RawClient) -> None:
    """What a server and a proxy before it take for the end of a request must be the same."""
    hidden = b"0\r\n\r\nGET /hidden HTTP/1.1\r\nHost: x\r\n\r\n"
    client.request("POST", PATH, JSON, CHUNKED, f"Content-Length: {len(hidden)}", body=hidden)
    client.half_close()
    assert client.rest().count(b"HTTP/1.1") <= 1
