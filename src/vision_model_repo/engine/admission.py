"""How many requests are let in. Decided by a count, before a request's body is read or decoded."""

from __future__ import annotations

import asyncio
import ipaddress
import math
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from vision_model_repo.errors import Busy

CROWDED = 0.75
"""Part of all places from which on a single address may only have its share."""
SITE_BITS = 64
MAX_ADDRESS = 64
"""Characters of an IPv6 address with the name of an interface. What a proxy forwards may be anything."""


def source_of(address: str) -> str | None:
    """For whom an address counts; None where it is none.

    An IPv6 address counts for its /64 network, since a single host usually has all of one.
    """
    return _source_of(address) if len(address) <= MAX_ADDRESS else None


@lru_cache(4096)
def _source_of(address: str) -> str | None:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return None
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is None:
            return str(ipaddress.IPv6Network((int(parsed), SITE_BITS), strict=False))
        parsed = parsed.ipv4_mapped
    return str(parsed)


class Admission:
    """A bounded number of places for requests.

    Args:
        places: requests at once.
        address_share: part of the places that one address may hold once three quarters of them are taken.
    """

    def __init__(self, places: int, *, address_share: float = 0.25) -> None:
        self._places = places
        self._crowded = CROWDED * places
        self._most_of_source = max(1.0, address_share * places)
        self._by_source: Counter[str] = Counter()
        self._inside = 0
        self._seconds = 1.0
        self._closing = False
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def inside(self) -> int:
        return self._inside

    @contextmanager
    def enter(self, address: str | None = None) -> Iterator[None]:
        """Holds one place.

        Args:
            address: of the client; None, or what is no IP address, has no share that it could exceed.

        Raises:
            Busy: every place is taken, or this address has its share of them, or the server is shutting down.
        """
        if self._closing:
            raise Busy("The server is shutting down. Try again in a moment.", retry_after=5)
        if self._inside >= self._places:
            raise Busy(
                f"The server is busy with {self._inside} requests. Try again later.", retry_after=self._retry_after()
            )
        source = source_of(address) if address else None
        if source is not None and self._inside >= self._crowded and self._by_source[source] >= self._most_of_source:
            raise Busy(
                f"The server is busy, and {self._by_source[source]} of its {self._inside} requests are yours. "
                "Try again later.",
                retry_after=self._retry_after(),
            )
        self._inside += 1
        if source is not None:
            self._by_source[source] += 1
        self._empty.clear()
        started = time.monotonic()
        try:
            yield
        finally:
            self._inside -= 1
            if source is not None:
                self._by_source[source] -= 1
                if not self._by_source[source]:
                    del self._by_source[source]
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
