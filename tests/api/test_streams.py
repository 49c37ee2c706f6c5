"""Server-sent events whose client hangs up: what they come from is closed, and nothing is an error."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest
from sse_starlette import ServerSentEvent
from starlette.types import Message

from vision_model_repo.api.streams import event_stream


@pytest.mark.parametrize("messages", [1, 2, 3], ids=["before the first event", "after one", "after two"])
async def test_hanging_up_closes_what_the_events_come_from(messages: int) -> None:
    told: list[str] = []
    gone = asyncio.Event()
    sent = 0

    async def frames() -> AsyncGenerator[int]:
        try:
            for number in range(100):
                await asyncio.sleep(0.01)
                yield number
        finally:
            # Closing takes a while, such as a step on the device.
            await asyncio.sleep(0.02)
            told.append("closed")

    async def events() -> AsyncGenerator[ServerSentEvent]:
        async with aclosing(frames()) as source:
            async for number in source:
                yield ServerSentEvent(str(number))

    async def send(message: Message) -> None:
        nonlocal sent
        sent += 1
        if sent == messages:
            gone.set()

    async def receive() -> Message:
        await gone.wait()
        return {"type": "http.disconnect"}

    await event_stream(events(), 5.0)({"type": "http", "method": "GET", "path": "/"}, receive, send)
    assert told == ["closed"]
    assert sent <= messages + 1
