"""A client that keeps some requests in flight; prepared bytes on raw connections, so that it costs little itself."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

import uvloop
from httptools import HttpResponseParser

from benchmarks.report import percentile

T = TypeVar("T")
BOUNDARY = "benchmark-boundary"
ANSWER_SECONDS = 60.0
"""After which a request counts as not answered."""


@dataclass(slots=True)
class Load:
    """What came of some requests.

    Attributes:
        times: ms of each request that was answered 200.
        failures: how many requests were answered with another status, or not at all, by what came instead.
        seconds: from the first request to the last answer.
    """

    times: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Good answers a second."""
        return len(self.times) / self.seconds if self.seconds else 0.0

    @property
    def errors(self) -> int:
        return self.failures.total()

    def percentile(self, percent: float) -> float:
        """In ms."""
        return percentile(self.times, percent)

    def add(self, other: Load) -> None:
        self.times += other.times
        self.failures += other.failures
        self.seconds += other.seconds


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine on the event loop that costs least."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(coroutine)


def request(method: str, path: str, body: bytes = b"", *, content_type: str = "", accept: str = "*/*") -> bytes:
    """An HTTP/1.1 request as it goes over the wire."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Accept: {accept}", f"Content-Length: {len(body)}"]
    if content_type:
        lines.append(f"Content-Type: {content_type}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def json_request(path: str, body: dict[str, Any], *, accept: str = "application/json") -> bytes:
    return request("POST", path, json.dumps(body).encode(), content_type="application/json", accept=accept)


def form_request(path: str, image: bytes, **fields: str) -> bytes:
    """A form with one file, `images`, and some text fields."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    ]
    head = 'Content-Disposition: form-data; name="images"; filename="image.jpg"\r\nContent-Type: image/jpeg'
    body = f"{''.join(parts)}--{BOUNDARY}\r\n{head}\r\n\r\n".encode() + image + f"\r\n--{BOUNDARY}--\r\n".encode()
    return request("POST", path, body, content_type=f"multipart/form-data; boundary={BOUNDARY}")


class Connection(asyncio.Protocol):
    """A connection that is kept open and carries one request at a time."""

    def __init__(self) -> None:
        self.open = False
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None

    @classmethod
    async def to(cls, url: str) -> Connection:
        """Raises OSError if nobody listens there."""
        address = urlsplit(url)
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(cls, str(address.hostname), address.port or 80)
        return connection

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Status and body of the answer. Raises ConnectionError if the connection ends before it."""
        self._answer = asyncio.get_running_loop().create_future()
        self._body: list[bytes] = []
        self._parser = HttpResponseParser(self)
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.open = True

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError("The server closed the connection."))

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result((self._parser.get_status_code(), b"".join(self._body)))


async def closed_loop(
    url: str,
    requests: Iterable[bytes],
    *,
    clients: int,
    seconds: float = float("inf"),
    every: float = 0.0,
    load: Load | None = None,
) -> Load:
    """Sends requests, in each client the next one when the last is answered, until they or the seconds are over.

    Args:
        url: of the server; the path is in the requests.
        requests: shared by the clients, from `request`.
        every: s that a client waits between an answer and its next request.
        load: what to add the answers to, for who wants to see them come.
    """
    load = Load() if load is None else load
    left = iter(requests)
    started = time.perf_counter()
    await asyncio.gather(*(_client(url, left, started + seconds, every, load) for _ in range(clients)))
    load.seconds = time.perf_counter() - started
    return load


@asynccontextmanager
async def background(url: str, requests: Iterable[bytes], *, clients: int) -> AsyncIterator[Load]:
    """Keeps a server busy meanwhile with requests that do not run out; gives what has been answered so far."""
    load = Load()
    task = asyncio.create_task(closed_loop(url, requests, clients=clients, load=load))
    try:
        yield load
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _client(url: str, requests: Iterator[bytes], until: float, every: float, load: Load) -> None:
    connection = await Connection.to(url)
    try:
        for request in requests:
            if not connection.open:
                connection = await Connection.to(url)
            started = time.perf_counter()
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    status, _ = await connection.ask(request)
                outcome = str(status)
            except (ConnectionError, TimeoutError) as error:
                connection.close()
                connection.open = False
                outcome = type(error).__name__
            ended = time.perf_counter()
            if outcome == "200":
                load.times.append(1000 * (ended - started))
            else:
                load.failures[outcome] += 1
            if ended >= until:
                return
            if every:
                await asyncio.sleep(every)
    finally:
        connection.close()
