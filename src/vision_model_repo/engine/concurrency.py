"""Several things at once, of which none is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


AT_ONCE = 8
"""More of one request at once would only keep others waiting for the same threads."""


async def gather_or_cancel(calls: Iterable[Callable[[], Coroutine[Any, Any, T]]], *, at_once: int = AT_ONCE) -> list[T]:
    """Runs some calls, a few at a time, and gives all results in order.

    When one fails, or the caller is cancelled, the others are cancelled and waited for.

    Args:
        at_once: how many.
    """
    calls = list(calls)
    if len(calls) == 1:
        # The most frequent case needs no task of its own.
        return [await calls[0]()]
    results: dict[int, T] = {}
    # Few tasks share the calls: thousands, made at once, would hold up the event loop.
    waiting = iter(enumerate(calls))

    async def run() -> None:
        for index, call in waiting:
            results[index] = await call()

    tasks = [asyncio.ensure_future(run()) for _ in range(min(at_once, len(calls)))]
    try:
        await asyncio.gather(*tasks)
        return [results[index] for index in range(len(calls))]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
