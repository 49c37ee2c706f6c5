"""From bytes to requests: uvicorn's use of httptools, with bounds on headers and trailers, and without upgrades."""

from __future__ import annotations

import urllib.parse
from abc import abstractmethod
from typing import Any, Literal

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from vision_model_repo.api.connections.limits import Limits
from vision_model_repo.api.connections.refusal import Refused, refusal_of, too_large

PIECE = 2**16
"""Bytes parsed before they are counted: so many beyond the limit may be held."""
SEPARATORS = 4
"""Bytes of a header field beside its name and value."""
WHOLE_BODY_FOLLOWS = b"POST / HTTP/1.1\r\n%b\r\n\r\n"


Phase = Literal["idle", "header", "body"]
"""What is read next: the first byte of a request, the rest of its header, or its body and what follows that."""


class RequestReader(HttpToolsProtocol):
    """The half of a connection that reads.

    A request that asks for an upgrade (Java's client offers h2c with every request) is read as HTTP/1.1 with its body.

    Args:
        limits: of headers.
        options: what uvicorn gives to its protocols.
    """

    parser: Any

    def __init__(self, limits: Limits, **options: Any) -> None:
        super().__init__(**options)
        # Nobody speaks WebSocket here, and a connection that was upgraded would keep no bounds.
        self.ws_protocol_class = None
        self._limits = limits
        self._phase: Phase = "idle"
        # Of the header or trailer that is being read.
        self._header_bytes = self._header_count = 0
        # Bytes that have led to nothing yet, and whether those of this piece have.
        self._pending = 0
        self._progress = False
        # The field that says how long the body is.
        self._framing: bytes | None = None
        self._silent = False

    @abstractmethod
    def _begin_header(self) -> None:
        """The first byte of a request has come."""

    @abstractmethod
    def _take(self, keep_alive: bool) -> None:
        """A header is whole; `scope` has it."""

    @abstractmethod
    def _take_body(self, body: bytes) -> None:
        """A piece of the body has come."""

    @abstractmethod
    def _end_message(self) -> None:
        """The body is whole."""

    def _read(self, data: bytes) -> None:
        """Parses a piece of at most `PIECE` bytes. Raises Refused."""
        fresh, before = self._phase == "idle", self.cycle
        self._progress = False
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._read_on(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError as error:
            raise refusal_of(error) from None
        if fresh and self.cycle is before:
            self._pending = len(data)
        elif self._progress:
            self._pending = 0
        else:
            self._pending += len(data)
        if self._pending > self._limits.header_bytes:
            raise too_large(self._limits)

    def _read_on(self, data: bytes) -> None:
        """Parses what follows a request that asked for an upgrade."""
        if self._framing is not None and self._phase == "body":
            # The parser has skipped the body and begins anew: it is told of the body once more.
            self._silent = True
            self.parser.feed_data(WHOLE_BODY_FOLLOWS % self._framing)
            self._silent = False
        if data:
            self._read(data)

    # What the parser calls

    def on_message_begin(self) -> None:
        if self._silent:
            return
        super().on_message_begin()
        self._header_bytes = self._header_count = 0
        self._framing = None
        self._phase = "header"
        self._progress = True
        self._begin_header()

    def on_url(self, url: bytes) -> None:
        if not self._silent:
            self.url += url
            self._header_bytes += len(url)
            if self._header_bytes > self._limits.header_bytes:
                raise too_large(self._limits)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._silent:
            return
        self._header_count += 1
        self._header_bytes += len(name) + len(value) + SEPARATORS
        if self._header_bytes > self._limits.header_bytes or self._header_count > self._limits.header_count:
            raise too_large(self._limits)
        if self._phase == "body":
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
        self._phase = "body"
        self._progress = True
        self._header_bytes = self._header_count = 0
        self._take(version != "1.0" and parser.should_keep_alive())

    def on_body(self, body: bytes) -> None:
        self._progress = True
        self._take_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade() and self._framing is not None:
            # The parser leaves the body to the other protocol. There is none, so `_read_on` has it read.
            return
        self._phase = "idle"
        self._progress = True
        self._end_message()
