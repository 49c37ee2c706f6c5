"""All connections of a server: how many, whose, and which of them have had their time.

No connection has a timer of its own: one sweep looks at all of them, about once a second, and only while there are any.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections import Counter, OrderedDict
from collections.abc import Iterator
from typing import Protocol

from vision_model_repo.api.connections.limits import Limits
from vision_model_repo.engine.admission import CROWDED, source_of

logger = logging.getLogger(__name__)

STALL_SECONDS = 5.0
"""Time without progress after which an answer may be given up for a new connection."""
MAX_REFUSED = 64
"""Connections beyond the limit that are kept until their refusal has been read."""


class Bounded(Protocol):
    """A connection, as the table sees it."""

    source: str | None

    def tend(self, now: float) -> None:
        """Ends what has had its time."""
        ...

    def cut(self, reason: str) -> None:
        """Closes at once, without sending what is left."""
        ...

    @property
    def unsent(self) -> int:
        """Bytes of answers that wait to be sent."""
        ...

    @property
    def stalled_since(self) -> float:
        """When the client last read something of an answer that waits; infinity if none waits."""
        ...


class ConnectionTable:
    """Lives on one event loop.

    Attributes:
        now: seconds since some moment, moved by the sweep: precise enough for limits, and free to read.
        waiting: connections that wait for a request, or throw a body away: these may be closed for a new one. The one
            that has waited longest is first.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.now = 0.0
        self.waiting: OrderedDict[Bounded, None] = OrderedDict()
        self._held: dict[Bounded, None] = {}
        self._refused: OrderedDict[Bounded, None] = OrderedDict()
        self._by_source: Counter[str] = Counter()
        self._closed: Counter[str] = Counter()
        self._networks = [
            ipaddress.ip_network(name, strict=False) for name in limits.trusted_proxies if name not in ("*", "unix")
        ]
        times = (limits.header_seconds, limits.keep_alive_seconds, limits.body_seconds, limits.answer_seconds)
        self._interval = min(1.0, *(seconds / 4 for seconds in (*times, limits.linger_seconds)))
        self._swept = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._held)

    def source(self, address: str | None) -> str | None:
        """For whom a connection counts; None for a proxy, behind which anybody may be."""
        if address is None or "*" in self.limits.trusted_proxies:
            return None
        try:
            peer = ipaddress.ip_address(address)
        except ValueError:
            return None
        peer = getattr(peer, "ipv4_mapped", None) or peer
        return None if any(peer in network for network in self._networks) else source_of(address)

    def admit(self, connection: Bounded) -> bool:
        """Whether there is a place for a new connection; one that waits is closed for it where there is none."""
        self._start()
        limits, source = self.limits, connection.source
        most_of_source = limits.address_share * limits.max_connections
        crowded = len(self._held) >= CROWDED * limits.max_connections
        if crowded and source is not None and self._by_source[source] >= most_of_source:
            admitted = self._make_room(source)
        else:
            admitted = len(self._held) < limits.max_connections or self._make_room(None)
        if admitted:
            self._held[connection] = self.waiting[connection] = None
            if source is not None:
                self._by_source[source] += 1
            return True
        self._refused[connection] = None
        if len(self._refused) > MAX_REFUSED:
            next(iter(self._refused)).cut("too many connections")
        return False

    def wait(self, connection: Bounded) -> None:
        """Notes that a connection waits for its client from now on."""
        if connection in self._held:
            self.waiting[connection] = None

    def remove(self, connection: Bounded) -> None:
        """Forgets a connection; one that has been forgotten already is none."""
        self.waiting.pop(connection, None)
        self._refused.pop(connection, None)
        if connection not in self._held:
            return
        del self._held[connection]
        if (source := connection.source) is not None:
            self._by_source[source] -= 1
            if not self._by_source[source]:
                del self._by_source[source]

    def count(self, reason: str) -> None:
        """Notes why a connection was closed or refused, for one line of log a sweep."""
        self._closed[reason] += 1

    def check_unsent(self) -> None:
        """Cuts clients off that do not read, until what waits to be sent keeps its bound. One answer may exceed it."""
        left = [(connection.stalled_since, connection.unsent, connection) for connection in self._all()]
        left = sorted((each for each in left if each[1]), key=lambda each: each[0])
        total = sum(unsent for _, unsent, _ in left)
        for _, unsent, connection in left[:-1]:
            if total <= self.limits.unsent_bytes:
                break
            connection.cut("too much left unread")
            total -= unsent

    def _make_room(self, source: str | None) -> bool:
        """Closes the connection that can best be missed, of one source if given; answers whether there was one."""
        of_source = (each for each in self.waiting if source is None or each.source == source)
        victim = next((each for each in of_source if not each.unsent), None)
        if victim is None:
            stalled = min(
                (each for each in self._held if source is None or each.source == source),
                key=lambda each: each.stalled_since,
                default=None,
            )
            if stalled is None or stalled.stalled_since > self.now - STALL_SECONDS:
                return False
            victim = stalled
        victim.cut("no request when the connection was needed")
        self.remove(victim)
        return True

    def _all(self) -> Iterator[Bounded]:
        yield from list(self._held)
        yield from list(self._refused)

    def _start(self) -> None:
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._swept = loop.time()
            self._timer = loop.call_later(self._interval, self._sweep, loop)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        # After a pause of the whole loop what clients have sent meanwhile is still unread, so it counts for little.
        self.now += min(loop.time() - self._swept, 2 * self._interval)
        for connection in self._all():
            connection.tend(self.now)
        self.check_unsent()
        if self._closed:
            told = ", ".join(f"{reason} ({count})" for reason, count in self._closed.items())
            logger.info("Closed or refused connections: %s", told)
            self._closed.clear()
        self._timer = None
        if self._held or self._refused:
            self._start()
