"""A client that sends what no client's library would send."""

from __future__ import annotations

import io
import socket
import struct
import time
from contextlib import suppress
from http.client import HTTPResponse
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit


class RawClient:
    """One connection, on which any bytes can be sent: `with RawClient(server.url) as client:`.

    Args:
        url: of the server, such as "http://127.0.0.1:41234".
        seconds: how long any step may take; then it raises TimeoutError.
    """

    def __init__(self, url: str, seconds: float = 30) -> None:
        parts = urlsplit(url)
        self.socket = socket.create_connection((parts.hostname, parts.port or 80), timeout=seconds)
        self._raw = self.socket.makefile("rb", buffering=0)
        self._file = _Kept(self._raw)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hangs up."""
        self._raw.close()
        self.socket.close()

    def send(self, *parts: bytes | str, pause: float = 0.0) -> None:
        """Sends one part after the other, with so many seconds between them. Text is sent as Latin 1."""
        for index, part in enumerate(parts):
            if index:
                time.sleep(pause)
            self.socket.sendall(part.encode("latin-1") if isinstance(part, str) else part)

    def request(self, method: str, path: str, *headers: str, body: bytes = b"") -> None:
        """Sends a request with a host and these headers, such as "Content-Length: 5", and no others."""
        head = "\r\n".join((f"{method} {path} HTTP/1.1", "Host: x", *headers, "", ""))
        self.send(head.encode("latin-1") + body)

    def answer(self, method: str = "POST") -> tuple[int, dict[str, str], bytes]:
        """The next answer: status, headers by their names in lower case, and body.

        Raises:
            http.client.HTTPException, OSError: there is none.
        """
        response = HTTPResponse(_Reader(self._file), method=method)  # pyright: ignore[reportArgumentType]
        response.begin()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()

    def rest(self) -> bytes:
        """All that the server sends until it hangs up."""
        said = bytearray()
        with suppress(ConnectionResetError):
            while piece := self._file.read1():
                said += piece
        return bytes(said)

    def half_close(self) -> None:
        """Says that nothing more will be sent."""
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Hangs up with a reset, as a client whose process was killed."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()


class _Kept(io.BufferedReader):
    """Stays open when an answer ends, with what was received beyond it."""

    def close(self) -> None: ...


class _Reader:
    """As much of a socket as an HTTPResponse asks for."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file

    def makefile(self, mode: str) -> io.BufferedReader:
        return self._file
