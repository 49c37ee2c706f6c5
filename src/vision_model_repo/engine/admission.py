"""How many requests are let in. Decided by a count, before a request's body is read or decoded."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from vision_model_repo.errors import Busy


class Admission:
    """A bounded number of places for requests.

    Args:
        places: requests in the house at once.
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self._inside = 0
        self._seconds = 1.0
        self._closing = False
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def inside(self) -> int:
        return self._inside

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Holds one place.

        Raises:
            Busy: every place is taken, or the server is shutting down.
        """
        if self._closing:
            raise Busy("The server is shutting down. Try again in a moment.", retry_after=5)
        if self._inside >= self._places:
            raise Busy(
                f"The server is busy with {self._inside} requests. Try again later.", retry_after=self._retry_after()
            )
        self._inside += 1
        self._empty.clear()
        started = time.monotonic()
        try:
            yield
        finally:
            self._inside -= 1
            # How long requests take lately; recent ones count most.
            self._seconds += 0.1 * (time.monotonic() - started - self._seconds)
            if not self._inside:
                self._empty.set()

    async def close(self, grace_seconds: float) -> int:
        """Refuses newcomers and waits for those inside; answers how many were still there at the end."""
        self._closing = True
        try:
            async with asyncio.timeout(grace_seconds):
                await self._empty.wait()
        except TimeoutError:
            pass
        return self._inside

    def _retry_after(self) -> int:
        """Seconds after which a place is likely to be free, 1 .. 60."""
        return min(60, max(1, math.ceil(self._seconds / 2)))
