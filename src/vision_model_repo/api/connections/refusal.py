"""What a connection is told whose input makes no sense, before there is a request that a route could answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from vision_model_repo.api.connections.limits import Limits

MAX_REASON = 200


class Refused(Exception):
    """Ends the reading of a connection.

    Attributes:
        status, sentence: for the client.
        reason: for the log, in two or three words.
    """

    def __init__(self, status: int, sentence: str, reason: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence, self.reason = status, sentence, reason

    def write(self, headers: Sequence[tuple[bytes, bytes]]) -> bytes:
        """The whole answer, with these headers besides its own."""
        body = json.dumps({"detail": self.sentence}).encode()
        own = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
        ]
        if self.status == HTTPStatus.SERVICE_UNAVAILABLE:
            own.append((b"retry-after", b"1"))
        lines = [name + b": " + value + b"\r\n" for name, value in (*headers, *own)]
        return b"".join((STATUS_LINE[self.status], *lines, b"\r\n", body))


def refusal_of(error: Exception) -> Refused:
    """What to tell of an error that ended the parsing of a request."""
    if isinstance(error, Refused):
        return error
    # Whatever a callback raises comes as the parser's own error.
    if isinstance(cause := error.__context__, Refused):
        return cause
    what = "its URL is malformed" if cause is not None else str(error)[:MAX_REASON].rstrip(".")
    return Refused(400, f"This is not a valid HTTP request: {what}.", "invalid request")


def too_large(limits: Limits) -> Refused:
    size = f"{limits.header_count} fields and {limits.header_bytes // 2**10} KB"
    return Refused(431, f"The header of a request may have {size}. Send fewer or shorter fields.", "large header")


def too_late(limits: Limits) -> Refused:
    return Refused(408, f"The header did not arrive within {limits.header_seconds:g} s.", "slow header")


def too_many() -> Refused:
    sentence = "The server has too many connections. Try again in a moment."
    return Refused(503, sentence, "too many connections")
