"""The one thread of a device.

A device runs one kernel stream well and two badly: forward passes from several threads fight over memory, caches
and cores, and finish later than one after the other. So each device has exactly one thread that touches it, and it
takes its work straight from the models' lanes: between two batches no event loop has to wake up.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from vision_model_repo.engine.batching import Entry, Lane
from vision_model_repo.errors import as_exception

logger = logging.getLogger(__name__)

T = TypeVar("T")


class DeviceWorker:
    """Runs the batches of all models on one device, taking turns between them.

    Args:
        device: its name, such as "cpu" or "cuda:0".
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self._changed = threading.Condition()
        self._lanes: deque[Lane] = deque()
        self._calls: deque[tuple[Callable[[], object], Future[object]]] = deque()
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name=f"device-{device}", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def add(self, lane: Lane) -> None:
        with self._changed:
            self._lanes.append(lane)

    def remove(self, lane: Lane) -> None:
        """Takes a lane away; its model must have no request in flight."""
        with self._changed:
            self._lanes.remove(lane)

    def put(self, lane: Lane, entry: Entry) -> None:
        """Lets an entry wait for its batch. Any thread may call this, the device's own too."""
        with self._changed:
            lane.put(entry)
            self._changed.notify()

    async def call(self, function: Callable[[], T]) -> T:
        """Runs a function on the device's thread, before the next batch."""
        future: Future[T] = Future()
        with self._changed:
            self._calls.append((function, future))  # type: ignore[arg-type]
            self._changed.notify()
        return await asyncio.wrap_future(future)

    def stop(self) -> None:
        """Ends the thread after what it is doing now, and waits for it."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while (job := self._next()) is not None:
            try:
                job()
            except BaseException:
                logger.exception("The device thread survived a failure outside a request")

    def _next(self) -> Callable[[], None] | None:
        """Waits for the next thing to do; None when the worker stops."""
        with self._changed:
            while not self._stopping:
                if self._calls:
                    function, future = self._calls.popleft()
                    return lambda: _settle(function, future)
                due, lane = self._most_urgent()
                now = time.monotonic()
                if lane is None or due > now:
                    self._changed.wait(None if lane is None else due - now)
                    continue
                # Whoever was served goes to the end of the line: models share the device fairly.
                self._lanes.remove(lane)
                self._lanes.append(lane)
                if batch := lane.take():
                    return lambda: lane.run(batch)
            return None

    def _most_urgent(self) -> tuple[float, Lane | None]:
        now = time.monotonic()
        soonest: tuple[float, Lane | None] = (float("inf"), None)
        for lane in self._lanes:
            due = lane.due()
            if due <= now:
                return due, lane
            if due < soonest[0]:
                soonest = due, lane
        return soonest


def _settle(function: Callable[[], object], future: Future[object]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(function())
    except BaseException as error:
        future.set_exception(as_exception(error))
