"""One connection: uvicorn's protocol on httptools, with bounds on what a client may send and how slow it may be.

Beside the bounds it answers what uvicorn loses: a request that asks for an upgrade (Java's client offers h2c with every
request) is served as HTTP/1.1 with its body, and a refusal that is sent before the body was read arrives.
"""

from __future__ import annotations

import asyncio
import json
import math
import socket
import struct
import urllib.parse
from enum import Enum
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, service_unavailable
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from vision_model_repo.api.connections.exchange import Exchange
from vision_model_repo.api.connections.table import ConnectionTable

MAX_PIPELINE = 32
"""Requests of one connection that wait for the answer to an earlier one."""
FORGET_AT_ONCE = struct.pack("ii", 1, 0)
UNIX = ("unix", 0)
WHOLE_BODY_FOLLOWS = b"POST / HTTP/1.1\r\n%b\r\n\r\n"


class Phase(Enum):
    """What is read next."""

    IDLE = "the first byte of a request"
    HEADER = "the rest of its header"
    BODY = "its body, or the rest of it"


class Refused(Exception):  # noqa: N818
    """Ends parsing: the connection is refused with a status and a sentence."""

    def __init__(self, status: int, sentence: str, reason: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence, self.reason = status, sentence, reason


class BoundedProtocol(HttpToolsProtocol):
    """A connection that keeps the limits of its table.

    Args:
        table: of all connections of the server.
        options: what uvicorn gives to its protocols.
    """

    def __init__(self, table: ConnectionTable, **options: Any) -> None:
        super().__init__(**options)
        self._table, self._limits = table, table.limits
        # Nobody speaks WebSocket here, and a connection that was upgraded would keep no bounds.
        self.ws_protocol_class = None
        self.party: str | None = None
        self._phase = Phase.IDLE
        self._deadline = math.inf
        self._answering: Exchange | None = None
        self._discarding = False
        # Of the header that is being read: bytes and fields parsed, and bytes that have led to nothing yet.
        self._header_bytes = self._header_count = self._unparsed = 0
        self._progress = False
        self._framing: bytes | None = None
        self._silent = False
        self._discarded = 0
        # A stretch of time over which a rate is measured: when it began, and the bytes that had passed by then.
        self._body_bytes = self._body_mark = 0
        self._body_since = math.inf
        self._answer_bytes = self._read_mark = self._last_read = 0
        self._answer_since = self._moved_at = math.inf

    # What the table asks

    @property
    def unsent(self) -> int:
        return self.transport.get_write_buffer_size()

    @property
    def stalled_since(self) -> float:
        return self._moved_at

    def tend(self, now: float) -> None:
        if now >= self._deadline:
            self._expire()
            return
        if self._phase is Phase.BODY and not self._discarding:
            self._measure_body(now)
        if unsent := self.unsent:
            self._measure_answer(now, unsent)
        else:
            self._answer_since = self._moved_at = math.inf

    def cut(self, reason: str) -> None:
        self._table.count(reason)
        if (raw := self.transport.get_extra_info("socket")) is not None:
            # Otherwise the system would go on for minutes to keep what a client does not read.
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, FORGET_AT_ONCE)
        self.transport.abort()

    # What the transport calls

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.party = self._table.party(self.client[0] if self.client else None)
        if self.client is None and "unix" in self._limits.trusted_proxies:
            self.client = UNIX
        self._deadline = self._table.now + self._limits.header_seconds
        if not self._table.admit(self):
            sentence = "The server has too many connections. Try again in a moment."
            self._refuse(Refused(503, sentence, "too many connections"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._table.remove(self)
        for exchange, _ in self.pipeline:
            assert isinstance(exchange, Exchange)
            exchange.disconnect()
        if self._answering is not None:
            self._answering.disconnect()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._discarding:
            self._discard(len(data))
            return
        fresh, before = self._phase is Phase.IDLE, self.cycle
        self._progress = False
        try:
            self._feed(data)
        except (Refused, httptools.HttpParserError) as error:
            self._refuse(self._refusal_of(error))
            return
        if fresh and self.cycle is before:
            self._unparsed = len(data)
        elif self._progress:
            self._unparsed = 0
        else:
            self._unparsed += len(data)
        if self._unparsed > self._limits.header_bytes:
            self._refuse(self._too_large())

    def shutdown(self) -> None:
        answering = self._answering
        if answering is None or answering.response_complete:
            self.transport.close()
        else:
            answering.end_connection()

    # What the parser calls

    def on_message_begin(self) -> None:
        if self._silent:
            return
        super().on_message_begin()
        self._header_bytes = self._header_count = 0
        self._framing = None
        self._phase = Phase.HEADER
        self._progress = True
        if self._answering is None:
            self._deadline = self._table.now + self._limits.header_seconds

    def on_url(self, url: bytes) -> None:
        if not self._silent:
            self.url += url
            self._count_header(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._silent:
            return
        self._header_count += 1
        self._count_header(len(name) + len(value) + 4)
        if self._phase is Phase.BODY:
            # A trailer, which must not pass for a header.
            return
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        elif name in (b"content-length", b"transfer-encoding"):
            self._framing = name + b": " + value
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self._silent:
            return
        parser, scope = self.parser, self.scope
        version = parser.get_http_version()
        scope["method"] = parser.get_method().decode("ascii")
        if version != "1.1":
            scope["http_version"] = version
        url = httptools.parse_url(self.url)
        if url.path is None:
            raise Refused(400, "The request names no path.", "invalid request")
        path = url.path.decode("ascii")
        scope["path"] = self.root_path + (urllib.parse.unquote(path) if "%" in path else path)
        scope["raw_path"] = self.root_path.encode("ascii") + url.path
        scope["query_string"] = url.query or b""
        self._take(version != "1.0" and parser.should_keep_alive())

    def on_body(self, body: bytes) -> None:
        self._progress = True
        self._body_bytes += len(body)
        exchange = self.cycle
        if exchange.response_complete:
            self._discard(len(body))
            return
        exchange.body += body
        if len(exchange.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        exchange.message_event.set()

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade() and self._framing is not None:
            # The parser leaves the body to the other protocol. There is none, so `_feed` has it read.
            return
        self._phase = Phase.IDLE
        self._progress = True
        exchange = self.cycle
        if not exchange.response_complete:
            exchange.more_body = False
            exchange.message_event.set()
        elif self._answering is None:
            self._wait()

    # What an exchange calls

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        answered, self._answering = self._answering, None
        if self.transport.is_closing():
            return
        assert answered is not None
        self._answer_bytes += answered.written
        if answered.is_last:
            if self._phase is Phase.IDLE and not self._discarding:
                self.transport.close()
            else:
                self._linger()
        elif self.pipeline:
            exchange, app = self.pipeline.pop()
            self._start_asgi_task(exchange, app)
        else:
            self.flow.resume_reading()
            self._wait()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        assert isinstance(cycle, Exchange)
        self._answering = cycle
        self._deadline = math.inf
        cycle.queued_after = bool(self.pipeline)
        self._table.waiting.pop(self, None)
        super()._start_asgi_task(cycle, app)

    # Reading

    def _feed(self, data: bytes) -> None:
        while data:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                data = data[upgrade.args[0] :]
                if self._framing is not None and self._phase is Phase.BODY:
                    # The parser has skipped the body and begins anew: it is told of the body once more.
                    self._silent = True
                    self.parser.feed_data(WHOLE_BODY_FOLLOWS % self._framing)
                    self._silent = False
            else:
                return

    def _count_header(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > self._limits.header_bytes or self._header_count > self._limits.header_count:
            raise self._too_large()

    def _take(self, keep_alive: bool) -> None:
        """Starts a request whose header is whole, or queues it behind those before it."""
        if len(self.pipeline) >= MAX_PIPELINE:
            raise Refused(400, "Too many requests at once on one connection.", "too many requests at once")
        app = self.app
        limit = self.limit_concurrency
        if limit is not None and (len(self.connections) >= limit or len(self.tasks) >= limit):
            app = service_unavailable
        self.cycle = exchange = Exchange(
            self._table,
            scope=self.scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=keep_alive,
            on_response=self.on_response_complete,
        )
        self._phase = Phase.BODY
        self._progress = True
        self._header_bytes = self._header_count = 0
        self._body_since = math.inf
        self._discarded = 0
        if self._answering is None:
            self._start_asgi_task(exchange, app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((exchange, app))
            self._answering.queued_after = True

    def _measure_body(self, now: float) -> None:
        exchange = self.cycle
        if exchange.response_complete or exchange.waiting_for_100_continue or self.flow.read_paused:
            # It is not the client that is waited for.
            self._body_since = math.inf
        elif self._body_since == math.inf:
            self._body_since, self._body_mark = now, self._body_bytes
        elif now - self._body_since >= self._limits.body_seconds:
            if self._body_bytes - self._body_mark < self._limits.body_rate * self._limits.body_seconds:
                self._table.count("slow body")
                exchange.give_up_body()
                self._deadline = now + self._limits.linger_seconds
            self._body_since, self._body_mark = now, self._body_bytes

    def _measure_answer(self, now: float, unsent: int) -> None:
        written = self._answer_bytes + (self._answering.written if self._answering is not None else 0)
        read = written - unsent
        if self._moved_at == math.inf or read != self._last_read:
            self._moved_at, self._last_read = now, read
        if self._answer_since == math.inf:
            self._answer_since, self._read_mark = now, read
        elif now - self._answer_since >= self._limits.answer_seconds:
            if read - self._read_mark < self._limits.answer_rate * self._limits.answer_seconds:
                self.cut("slow reader")
            self._answer_since, self._read_mark = now, read

    # Ending

    def _wait(self) -> None:
        """Waits for the next request, or for the rest of a body whose request has been answered."""
        limits = self._limits
        seconds = {
            Phase.IDLE: limits.keep_alive_seconds,
            Phase.HEADER: limits.header_seconds,
            Phase.BODY: limits.linger_seconds,
        }
        self._deadline = self._table.now + seconds[self._phase]
        self._table.wait(self)

    def _expire(self) -> None:
        self._deadline = math.inf
        if self._phase is Phase.HEADER and not self._discarding:
            sentence = f"The header did not arrive within {self._limits.header_seconds:g} s."
            self._refuse(Refused(408, sentence, "slow header"))
            self.transport.close()
            return
        self._table.count("rest of a body" if self._phase is Phase.BODY or self._discarding else "idle")
        if self._answering is not None:
            self.transport.abort()
        else:
            self.transport.close()

    def _refusal_of(self, error: Exception) -> Refused:
        if isinstance(error, Refused):
            return error
        # Whatever a callback raises comes as the parser's own error.
        if isinstance(cause := error.__context__, Refused):
            return cause
        what = "its URL is malformed." if cause is not None else f"{str(error)[:200]}."
        return Refused(400, f"This is not a valid HTTP request: {what}", "invalid request")

    def _too_large(self) -> Refused:
        limits = self._limits
        sentence = (
            f"The header of a request may have {limits.header_count} fields and {limits.header_bytes // 2**10} KB. "
            "Send fewer or shorter ones."
        )
        return Refused(431, sentence, "large header")

    def _refuse(self, refusal: Refused) -> None:
        """Answers a connection whose input makes no sense from here on; answers that are due come first."""
        self._table.count(refusal.reason)
        self._discarding = True
        if self._phase is Phase.BODY and self._drop_unfinished():
            return
        last = self.pipeline[0][0] if self.pipeline else self._answering
        if isinstance(last, Exchange):
            last.end_connection()
            self.flow.resume_reading()
            return
        self._write(refusal)
        self._linger()

    def _drop_unfinished(self) -> bool:
        """Gives up the request whose body makes no sense; answers whether its connection could only be cut."""
        exchange = self.cycle
        if exchange.response_complete:
            self._linger()
            return True
        if exchange is not self._answering:
            self.pipeline.popleft()
            return False
        exchange.on_response = lambda: None
        exchange.disconnect()
        self._answering = None
        if exchange.response_started:
            self.transport.abort()
        return exchange.response_started

    def _write(self, refusal: Refused) -> None:
        body = json.dumps({"detail": refusal.sentence}).encode()
        headers = [
            *self.server_state.default_headers,
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
        ]
        if refusal.status == HTTPStatus.SERVICE_UNAVAILABLE:
            headers.append((b"retry-after", b"1"))
        lines = [STATUS_LINE[refusal.status], *(name + b": " + value + b"\r\n" for name, value in headers), b"\r\n"]
        self.transport.write(b"".join(lines) + body)

    def _linger(self) -> None:
        """Ends the own half of the connection and throws away what still arrives: closing while the client sends would
        make its system forget the answer."""
        self._discarding = True
        if self.transport.is_closing():
            return
        self._deadline = self._table.now + self._limits.linger_seconds
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()
        self._table.wait(self)

    def _discard(self, size: int) -> None:
        self._discarded += size
        if self._discarded > self._limits.linger_bytes:
            self._table.count("rest of a body")
            self.transport.close()
