"""One connection: it starts requests, sends answers in their order, and ends when its limits are passed.

A refusal that is sent before the body was read arrives: the connection throws the rest of the body away instead of
closing while the client still sends.
"""

from __future__ import annotations

import asyncio
import math
import socket
import struct
from typing import Any

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, service_unavailable
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from vision_model_repo.api.connections.exchange import Exchange
from vision_model_repo.api.connections.pace import Pace
from vision_model_repo.api.connections.reading import PIECE, RequestReader
from vision_model_repo.api.connections.refusal import Refused, too_late, too_many
from vision_model_repo.api.connections.table import ConnectionTable

MAX_PIPELINE = 32
"""Requests of one connection that wait for the answer to an earlier one."""
FORGET_AT_ONCE = struct.pack("ii", 1, 0)
UNIX = ("unix", 0)


class BoundedProtocol(RequestReader):
    """A connection that keeps the limits of its table.

    Args:
        table: of all connections of the server.
        options: what uvicorn gives to its protocols.
    """

    app: Any

    def __init__(self, table: ConnectionTable, **options: Any) -> None:
        super().__init__(table.limits, **options)
        self._table = table
        self.source: str | None = None
        self._deadline = math.inf
        # Whose answer is due. Those that wait behind it are in `pipeline`, newest first; `cycle` is the newest of all.
        self._answering: Exchange | None = None
        self._discarding = False
        self._discarded = 0
        self._body_bytes = self._answer_bytes = 0
        self._body_pace = Pace(self._limits.body_rate, self._limits.body_seconds)
        self._answer_pace = Pace(self._limits.answer_rate, self._limits.answer_seconds)
        # What the client had read when it last read something, and when that was; infinity if nothing waits for it.
        self._last_read = 0
        self._moved_at = math.inf

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
        if self._phase == "body" and not self._discarding:
            self._measure_body(now)
        if unsent := self.unsent:
            self._measure_answer(now, unsent)
        elif self._moved_at < math.inf:
            self._moved_at = math.inf
            self._answer_pace.pause()

    def cut(self, reason: str) -> None:
        self._table.count(reason)
        if (raw := self.transport.get_extra_info("socket")) is not None:
            # Otherwise the system would go on for minutes to keep what a client does not read.
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, FORGET_AT_ONCE)
        self.transport.abort()

    # What the transport calls

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.source = self._table.source(self.client[0] if self.client else None)
        if self.client is None and "unix" in self._limits.trusted_proxies:
            self.client = UNIX
        self._deadline = self._table.now + self._limits.header_seconds
        if not self._table.admit(self):
            self._refuse(too_many())

    def connection_lost(self, exc: Exception | None) -> None:
        self._table.remove(self)
        if self._answering is not None:
            self._answering.disconnect()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        for start in range(0, len(data), PIECE):
            piece = data[start : start + PIECE]
            if self._discarding:
                self._discard(len(piece))
                continue
            try:
                self._read(piece)
            except Refused as refusal:
                self._refuse(refusal)

    def shutdown(self) -> None:
        answering = self._answering
        if answering is None or answering.response_complete:
            self.transport.close()
        else:
            answering.end_connection()

    # What the reader calls

    def _begin_header(self) -> None:
        if self._answering is None:
            self._deadline = self._table.now + self._limits.header_seconds

    def _take(self, keep_alive: bool) -> None:
        """Starts a request, or queues it behind those before it."""
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
        self._body_pace.pause()
        self._discarded = 0
        if self._answering is None:
            self._start_asgi_task(exchange, app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((exchange, app))
            self._answering.queued_after = True

    def _take_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        exchange = self.cycle
        if exchange.response_complete:
            self._discard(len(body))
            return
        exchange.body += body
        if len(exchange.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        exchange.message_event.set()

    def _end_message(self) -> None:
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
        # What it did not want to read would stay until the next request.
        answered.body.clear()
        if answered.is_last:
            if self._phase == "idle" and not self._discarding:
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

    # Pace

    def _measure_body(self, now: float) -> None:
        exchange = self.cycle
        assert isinstance(exchange, Exchange)
        if exchange.response_complete or exchange.waiting_for_100_continue or self.flow.read_paused:
            # It is not the client that is waited for.
            self._body_pace.pause()
        elif self._body_pace.is_too_slow(now, self._body_bytes):
            self._table.count("slow body")
            exchange.give_up_body()
            self._deadline = now + self._limits.linger_seconds

    def _measure_answer(self, now: float, unsent: int) -> None:
        written = self._answer_bytes + (self._answering.written if self._answering is not None else 0)
        read = written - unsent
        if self._moved_at == math.inf or read != self._last_read:
            self._moved_at, self._last_read = now, read
        if self._answer_pace.is_too_slow(now, read):
            self.cut("slow reader")

    # Ending

    def _wait(self) -> None:
        """Waits for the next request, or for the rest of a body whose request has been answered."""
        limits = self._limits
        if self._phase == "idle":
            seconds = limits.keep_alive_seconds
        else:
            seconds = limits.header_seconds if self._phase == "header" else limits.linger_seconds
        self._deadline = self._table.now + seconds
        self._table.wait(self)

    def _expire(self) -> None:
        self._deadline = math.inf
        if self._phase == "header" and not self._discarding:
            self._refuse(too_late(self._limits))
            self.transport.close()
            return
        self._table.count("rest of a body" if self._phase == "body" or self._discarding else "idle")
        if self._answering is not None:
            self.transport.abort()
        else:
            self.transport.close()

    def _refuse(self, refusal: Refused) -> None:
        """Answers a connection whose input makes no sense from here on; answers that are due come first."""
        self._table.count(refusal.reason)
        self._discarding = True
        if self._phase == "body" and self._drop_unfinished():
            return
        last = self.pipeline[0][0] if self.pipeline else self._answering
        if isinstance(last, Exchange):
            last.end_connection()
            self.flow.resume_reading()
            return
        self.transport.write(refusal.write(self.server_state.default_headers))
        self._linger()

    def _drop_unfinished(self) -> bool:
        """Gives up the request whose body makes no sense; answers whether its connection could only be cut."""
        exchange = self.cycle
        assert isinstance(exchange, Exchange)
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
