"""Attacks on the connections of a running server: each takes a bounded time and tells what it cost the server.

report = silent_connections("http://127.0.0.1:8000", process_id, count=1010, seconds=5)
"""

from __future__ import annotations

import base64
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from urllib.parse import urlsplit

import httpx
import psutil
from PIL import Image

MEGABYTE = 2**20
HEALTH_TIMEOUT = 5.0
TCP_ESTABLISHED = 1
HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
POST = (
    "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    "Content-Length: {length}\r\n{more}\r\n"
)


@dataclass
class Report:
    """What an attack did.

    Attributes:
        seconds: that it took.
        grown_mb: memory of the server at its worst, beyond what it had before.
        kept_mb: memory of the server a moment after the attack, beyond what it had before.
        health_ms: how long an honest client on a connection of its own waited for `/health`, in ms; infinity where it
            was not answered within 5 s.
        outcomes: how the connections of the attack ended: statuses, "closed" or "open".
        cut_after: seconds until the last connection was answered or closed; None where one stayed open.
    """

    attack: str
    seconds: float = 0.0
    grown_mb: float = 0.0
    kept_mb: float = 0.0
    health_ms: list[float] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    cut_after: float | None = None

    @property
    def worst_health_ms(self) -> float:
        return max(self.health_ms, default=0.0)

    @property
    def shut_out(self) -> float:
        """Part of the honest requests that were not answered, 0 .. 1."""
        return sum(each == float("inf") for each in self.health_ms) / max(len(self.health_ms), 1)

    def __str__(self) -> str:
        cut = "not all cut" if self.cut_after is None else f"all cut after {self.cut_after:.1f} s"
        return (
            f"{self.attack}: {self.seconds:.1f} s, +{self.grown_mb:.0f} MB (+{self.kept_mb:.0f} MB after), "
            f"/health worst {self.worst_health_ms:.0f} ms, {self.shut_out:.0%} unanswered, {dict(self.outcomes)}, {cut}"
        )


def header_flood(url: str, process_id: int, *, megabytes: int = 75, seconds: float = 20) -> Report:
    """One request with so many bytes of short header fields."""
    piece = b"a: b\r\n" * 10_000
    pieces = (piece for _ in range(megabytes * MEGABYTE // len(piece)))
    with _watched("short headers", url, process_id) as report, ExitStack() as open_ones:
        client = _connected(url, open_ones)
        end = time.monotonic() + seconds
        _pour(client, b"GET /health HTTP/1.1\r\nHost: localhost\r\n", pieces, end)
        _follow(report, [client], end)
    return report


def trailer_flood(url: str, process_id: int, *, megabytes: int = 75, seconds: float = 20) -> Report:
    """The same after a chunked body, where uvicorn takes them for headers as well."""
    piece = b"a: b\r\n" * 10_000
    head = b"POST /models/load HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"
    pieces = (piece for _ in range(megabytes * MEGABYTE // len(piece)))
    with _watched("trailers", url, process_id) as report, ExitStack() as open_ones:
        client = _connected(url, open_ones)
        end = time.monotonic() + seconds
        _pour(client, head, pieces, end)
        _follow(report, [client], end)
    return report


def pipeline_flood(url: str, process_id: int, *, requests: int = 200_000, seconds: float = 10) -> Report:
    """So many requests at once on one connection, whose answers are not read."""
    piece = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1000
    with _watched("pipelined requests", url, process_id) as report, ExitStack() as open_ones:
        client = _connected(url, open_ones)
        end = time.monotonic() + seconds
        _pour(client, b"", (piece for _ in range(requests // 1000)), end)
        _follow(report, [client], end)
    return report


def silent_connections(
    url: str, process_id: int, *, count: int = 1010, seconds: float = 30, first: bytes = b""
) -> Report:
    """So many connections that say nothing, or only the beginning of a request."""
    with _watched("silent connections", url, process_id) as report, ExitStack() as open_ones:
        clients: list[socket.socket] = []
        for _ in range(count):
            try:
                clients.append(_connected(url, open_ones))
                clients[-1].sendall(first)
            except OSError:
                report.outcomes["refused"] += 1
        _follow(report, clients, time.monotonic() + seconds)
    return report


def slow_header(url: str, process_id: int, *, count: int = 100, seconds: float = 30, pause: float = 1.0) -> Report:
    """So many connections that send a header byte by byte."""
    with _watched("slow headers", url, process_id) as report, ExitStack() as open_ones:
        clients = [_connected(url, open_ones) for _ in range(count)]
        _drip(report, clients, b"GET /health HTTP/1.1\r\n", b"a", pause, time.monotonic() + seconds)
    return report


def slow_bodies(
    url: str, process_id: int, *, path: str = "/models/load", count: int = 150, seconds: float = 45, pause: float = 1.0
) -> Report:
    """So many requests whose body comes byte by byte."""
    head = POST.format(path=path, length=1000, more="").encode() + b'{"'
    with _watched(f"slow bodies to {path}", url, process_id) as report, ExitStack() as open_ones:
        clients = [_connected(url, open_ones) for _ in range(count)]
        _drip(report, clients, head, b"a", pause, time.monotonic() + seconds)
    return report


def unread_answers(url: str, process_id: int, *, count: int = 40, seconds: float = 90, patience: float = 120) -> Report:
    """So many large answers that are never read: the result of a job, which takes up to `patience` seconds to make."""
    job = httpx.post(f"{url}/jobs/submit/depth-anything", json=large_question(), timeout=60).raise_for_status().json()
    path, end = f"/jobs/{job['job_id']}", time.monotonic() + patience
    while httpx.get(f"{url}/jobs", timeout=60).json()[job["job_id"]]["status"] != "completed":
        if time.monotonic() > end:
            raise TimeoutError(f"the job did not end within {patience:g} s")
        time.sleep(0.5)
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    return unread(url, process_id, request, count=count, seconds=seconds, name="unread answers")


def unread(url: str, process_id: int, request: bytes, *, count: int, seconds: float, name: str) -> Report:
    """So many connections that send a request and read nothing."""
    with _watched(name, url, process_id) as report, ExitStack() as open_ones:
        started, waiting = time.monotonic(), []
        for _ in range(count):
            waiting.append(_connected(url, open_ones, receive_buffer=4096))
            waiting[-1].sendall(request)
        while waiting and time.monotonic() < started + seconds:
            time.sleep(0.05)
            for client in [each for each in waiting if _is_dead(each)]:
                report.outcomes["closed"] += 1
                waiting.remove(client)
        report.outcomes.update({"open": len(waiting)} if waiting else {})
        report.cut_after = None if waiting else time.monotonic() - started
    return report


def refused_answers(url: str, *, path: str, tries: int = 20, megabytes: int = 3, headers: str = "") -> Counter[str]:
    """Sends a body that is refused unread, with `Connection: close`; answers how often which status arrived."""
    outcomes: Counter[str] = Counter()
    length = megabytes * MEGABYTE
    head = POST.format(path=path, length=length, more=f"Connection: close\r\n{headers}").encode()
    for _ in range(tries):
        with ExitStack() as open_ones:
            client = _connected(url, open_ones)
            client.settimeout(30)
            try:
                client.sendall(head)
                for _ in range(megabytes):
                    client.sendall(b" " * MEGABYTE)
                outcomes[_status(_read_all(client))] += 1
            except OSError as error:
                outcomes[type(error).__name__] += 1
    return outcomes


def large_question(side: int = 2000) -> dict[str, list[str]]:
    """A request for depth whose answer has a dozen MB."""
    buffer = BytesIO()
    Image.new("RGB", (side, side), (9, 99, 200)).save(buffer, "PNG")
    return {"images": [base64.b64encode(buffer.getvalue()).decode()]}


def honest_milliseconds(url: str, timeout: float = HEALTH_TIMEOUT) -> float:
    """How long `/health` takes on a new connection; infinity where it is not answered with 200 in time."""
    started = time.monotonic()
    try:
        with socket.create_connection(_address(url), timeout) as client:
            client.settimeout(timeout)
            client.sendall(HEALTH)
            healthy = _status(_read_all(client)) == "200"
    except OSError:
        healthy = False
    return (time.monotonic() - started) * 1000 if healthy else float("inf")


@contextmanager
def _watched(attack: str, url: str, process_id: int) -> Iterator[Report]:
    """Asks for `/health` and looks at the server's memory about ten times a second while an attack runs."""
    process, report, over = psutil.Process(process_id), Report(attack), threading.Event()
    before = worst = _megabytes(process)

    def memory() -> None:
        nonlocal worst
        while not over.wait(0.05):
            worst = max(worst, _megabytes(process))

    def health() -> None:
        while not over.wait(0.1):
            report.health_ms.append(honest_milliseconds(url))

    watchers = [threading.Thread(target=each) for each in (memory, health)]
    started = time.monotonic()
    for each in watchers:
        each.start()
    try:
        yield report
    finally:
        report.seconds = time.monotonic() - started
        over.set()
        for each in watchers:
            each.join()
        time.sleep(0.2)
        report.grown_mb, report.kept_mb = worst - before, _megabytes(process) - before


def _megabytes(process: psutil.Process) -> float:
    return process.memory_info().rss / MEGABYTE


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "127.0.0.1", parts.port or 80


def _connected(url: str, open_ones: ExitStack, *, receive_buffer: int | None = None) -> socket.socket:
    client = open_ones.enter_context(socket.socket())
    client.settimeout(5)
    if receive_buffer is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.connect(_address(url))
    return client


def _pour(client: socket.socket, head: bytes, pieces: Iterable[bytes], end: float) -> None:
    """Sends all of it, unless the time is over or the server is gone."""
    try:
        client.sendall(head)
        for piece in pieces:
            if time.monotonic() > end:
                return
            client.sendall(piece)
    except OSError:
        # What the server said first is still to be read.
        return


def _drip(report: Report, clients: list[socket.socket], head: bytes, drop: bytes, pause: float, end: float) -> None:
    def send(data: bytes) -> Callable[[socket.socket], None]:
        return lambda client: client.sendall(data)

    for client in clients:
        client.sendall(head)
    _follow(report, clients, end, every=pause, act=send(drop))


def _follow(
    report: Report,
    clients: list[socket.socket],
    end: float,
    *,
    every: float = 0.05,
    act: Callable[[socket.socket], None] = lambda client: None,
) -> None:
    """Notes how connections end, until all have or the time is over."""
    started, waiting = time.monotonic(), list(clients)
    for client in waiting:
        client.setblocking(False)
    while waiting and time.monotonic() < end:
        time.sleep(min(every, max(end - time.monotonic(), 0)))
        for client in list(waiting):
            try:
                act(client)
            except BlockingIOError:
                continue
            except OSError:
                pass
            if (outcome := _outcome(client)) is not None:
                report.outcomes[outcome] += 1
                waiting.remove(client)
    if waiting:
        report.outcomes["open"] += len(waiting)
    else:
        report.cut_after = time.monotonic() - started


def _outcome(client: socket.socket) -> str | None:
    """What has come of a connection: a status or "closed", or None where nothing has come yet."""
    try:
        data = client.recv(65536)
    except BlockingIOError:
        return None
    except OSError:
        return "closed"
    return _status(data)


def _status(answer: bytes) -> str:
    words = answer.split(b" ", 2)
    return words[1].decode() if len(words) > 1 and words[0].startswith(b"HTTP/") else "closed"


def _read_all(client: socket.socket) -> bytes:
    pieces = []
    while piece := client.recv(65536):
        pieces.append(piece)
    return b"".join(pieces)


def _is_dead(client: socket.socket) -> bool:
    """Whether the server has cut a connection, without reading from it."""
    return client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != TCP_ESTABLISHED


ATTACKS: dict[str, Callable[[str, int], Report]] = {
    "short headers": header_flood,
    "trailers": trailer_flood,
    "pipelined requests": pipeline_flood,
    "silent connections": silent_connections,
    "slow headers": slow_header,
    "slow bodies": slow_bodies,
    "unread answers": unread_answers,
}
"""Each with its defaults, against a server with its defaults: about four minutes in all."""
