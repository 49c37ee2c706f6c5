"""Things in memory within bounds: what caches and stores are made of.

All state belongs to the event loop.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from typing import Generic, Protocol, TypeVar


class Sized(Protocol):
    """Anything that knows its size in bytes."""

    @property
    def nbytes(self) -> int: ...


Key = TypeVar("Key", bound=Hashable)
Thing = TypeVar("Thing", bound=Sized)


class Shelf(Generic[Key, Thing]):
    """Things by key, bounded by bytes, number and time; the one that nobody has asked for longest goes first.

    Every look renews a thing's time, so that the order of use is also the order of expiry.

    Attributes:
        max_bytes: most bytes of all things.
        held: bytes of the things that are there.

    Args:
        max_count: most things; None for any number.
        ttl_seconds: how long a thing is kept after it was last asked for; None for ever.
    """

    def __init__(self, max_bytes: int, *, max_count: int | None = None, ttl_seconds: float | None = None) -> None:
        self.max_bytes = max_bytes
        self.held = 0
        self._max_count = math.inf if max_count is None else max_count
        self._ttl_seconds = math.inf if ttl_seconds is None else ttl_seconds
        self._kept: OrderedDict[Key, tuple[Thing, float]] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def expires_at(self) -> float:
        """When a thing that is put there or asked for now will be forgotten, in seconds since the epoch."""
        return time.time() + self._ttl_seconds

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[Key]:
        return iter(list(self._kept))

    def put(self, key: Key, thing: Thing) -> list[tuple[Key, Thing]]:
        """Keeps a thing, and answers what had to leave for it: the thing itself, where it is too large."""
        self.remove(key)
        if thing.nbytes > self.max_bytes:
            return [(key, thing)]
        self._kept[key] = thing, time.monotonic() + self._ttl_seconds
        self.held += thing.nbytes
        fallen: list[tuple[Key, Thing]] = []
        while self.held > self.max_bytes or len(self) > self._max_count:
            oldest, (other, _) = next(iter(self._kept.items()))
            self.remove(oldest)
            fallen.append((oldest, other))
        self._watch()
        return fallen

    def get(self, key: Key) -> Thing | None:
        self._forget_expired()
        if key not in self._kept:
            return None
        thing, _ = self._kept.pop(key)
        self._kept[key] = thing, time.monotonic() + self._ttl_seconds
        return thing

    def remove(self, key: Key) -> bool:
        """Whether there was such a thing."""
        if key not in self._kept:
            return False
        thing, _ = self._kept.pop(key)
        self.held -= thing.nbytes
        return True

    def _forget_expired(self) -> None:
        now = time.monotonic()
        while self._kept:
            oldest, (_, expiry) = next(iter(self._kept.items()))
            if expiry > now:
                break
            self.remove(oldest)

    def _watch(self) -> None:
        """Sees to it that memory is given back in time, even if nobody asks for anything any more."""
        if self._timer is None and self._kept and self._ttl_seconds < math.inf:
            _, expiry = next(iter(self._kept.values()))
            self._timer = asyncio.get_running_loop().call_later(expiry - time.monotonic(), self._wake)

    def _wake(self) -> None:
        self._timer = None
        self._forget_expired()
        self._watch()
