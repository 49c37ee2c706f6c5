"""One request and its answer on a connection: uvicorn's, which may be given up while its body or its reader is slow."""

from __future__ import annotations

from typing import Any, cast

from uvicorn._types import ASGIReceiveEvent, ASGISendEvent
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from vision_model_repo.api.connections.table import ConnectionTable
from vision_model_repo.api.errors import SlowBody

LARGE = 2**20


class Exchange(RequestResponseCycle):
    """A request and its answer.

    Attributes:
        is_last: the connection ends with this answer.
        written: bytes of the answer's body so far.
    """

    def __init__(self, table: ConnectionTable, **options: Any) -> None:
        super().__init__(**options)
        self._table = table
        self._too_slow = False
        self.is_last = not self.keep_alive
        self.written = 0
        self.queued_after = False

    def end_connection(self) -> None:
        """Makes this the last answer of its connection."""
        self.is_last = True
        if not self.response_started:
            self.keep_alive = False

    def give_up_body(self) -> None:
        """Has the application raise SlowBody where it waits for the rest of the body."""
        self._too_slow = True
        self.end_connection()
        self.message_event.set()

    def disconnect(self) -> None:
        """Tells the application that the client is gone."""
        self.disconnected = True
        self.message_event.set()

    async def receive(self) -> ASGIReceiveEvent:
        """Like uvicorn's, but requests that wait for their turn keep the connection from being read on.

        Raises:
            SlowBody: the body arrives too slowly.
        """
        if self.waiting_for_100_continue and not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.waiting_for_100_continue = False
        if not self.disconnected and not self.response_complete:
            if not self.queued_after:
                self.flow.resume_reading()
            await self.message_event.wait()
            self.message_event.clear()
        if self.disconnected or self.response_complete:
            return {"type": "http.disconnect"}
        if self._too_slow and self.more_body:
            limits = self._table.limits
            raise SlowBody(
                f"The body arrived at less than {limits.body_rate:g} bytes per second over {limits.body_seconds:g} s. "
                "Send it faster, or send less."
            )
        message: ASGIReceiveEvent = {"type": "http.request", "body": bytes(self.body), "more_body": self.more_body}
        self.body = bytearray()
        return message

    async def send(self, message: ASGISendEvent) -> None:
        """Like uvicorn's, but leaves it to the connection to close itself after the last answer."""
        if self.response_started:
            self.written += len(body := cast(bytes, message.get("body", b"")))
            await super().send(message)
            if len(body) > LARGE:
                self._table.check_unsent()
            return
        if self.waiting_for_100_continue and self.more_body:
            # Whether this client sends the body after all cannot be known, so nothing may follow it.
            self.end_connection()
        await super().send(message)
        self.is_last = self.is_last or not self.keep_alive
        # Uvicorn has told the client. It must not close: what is still to be read would destroy the answer.
        self.keep_alive = True
