"""Server-sent events that end as they should, whatever ends them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable

import anyio
from sse_starlette import EventSourceResponse, ServerSentEvent

PATIENCE = 0.8
"""Part of the grace time of a shutdown for which events are still waited for; the rest is for sending them."""


def event_stream(events: AsyncGenerator[ServerSentEvent], grace_seconds: float) -> EventSourceResponse:
    """An answer of events. When the server shuts down, those of its grace time are still sent, and the answer ends
    like any other.

    Args:
        grace_seconds: time that requests have to end at a shutdown.
    """
    ending = anyio.Event()
    return EventSourceResponse(
        _until(events, ending, PATIENCE * grace_seconds),
        shutdown_event=ending,
        shutdown_grace_period=grace_seconds,
    )


async def _until(
    events: AsyncGenerator[ServerSentEvent], ending: anyio.Event, seconds: float
) -> AsyncIterator[ServerSentEvent]:
    """Passes events on, until some seconds after the ending has begun."""

    async def last_call() -> None:
        await ending.wait()
        await asyncio.sleep(seconds)

    over = asyncio.create_task(last_call())
    try:
        while True:
            coming = asyncio.ensure_future(anext(events, None))
            try:
                await asyncio.wait((coming, over), return_when=asyncio.FIRST_COMPLETED)
            finally:
                coming.cancel()
                await _to_the_end(asyncio.wait((coming,)))
            if coming.cancelled() or (event := coming.result()) is None:
                return
            yield event
    finally:
        over.cancel()
        await _to_the_end(events.aclose())


async def _to_the_end(closing: Awaitable[object]) -> None:
    """Waits, even when the client has hung up: anyio then cancels every wait anew, and what the events come from could
    not be closed while it is still at work."""
    with anyio.CancelScope(shield=True):
        await closing
