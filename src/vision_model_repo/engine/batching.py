"""The queue in front of one model, from which batches are formed.

Batches are greedy: whatever waits when the device becomes free goes in one forward pass, up to the model's limit.
Whoever is alone never waits for company, unless a wait is set.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from vision_model_repo.errors import RequestTimeout, as_exception, is_out_of_memory

Forward = Callable[[Sequence[Any]], Sequence[Any]]

BATCHES_REMEMBERED = 16
"""The fastest of so many tells whether a deadline can be met at all."""


@dataclass(slots=True, weakref_slot=True)
class Entry:
    """One input that waits for its pass through a network; times are of `time.monotonic`.

    Attributes:
        weight: how much of a batch it takes.
        since: when it began to wait.
        started, finished: when its batch ran.
    """

    item: Any
    key: Hashable
    deadline: float
    weight: int = 1
    since: float = field(default_factory=time.monotonic)
    started: float = 0.0
    finished: float = 0.0
    future: Future[Any] = field(default_factory=Future)

    @property
    def queued(self) -> float:
        """Seconds of waiting; none for what needed no pass."""
        return self.started - self.since if self.started else 0.0

    @property
    def ran(self) -> float:
        """Seconds on the device."""
        return self.finished - self.started


class Lane:
    """Entries that wait for one model. Not thread-safe: the device worker's lock guards it.

    Args:
        forward: runs the network over the items of one batch.
        max_batch: most that the items of one batch weigh together; a heavier one goes alone.
        wait_seconds: how long the oldest entry waits for company while the batch is not full.
        on_batch: told the size of every batch, and the seconds that it took.
    """

    def __init__(
        self,
        forward: Forward,
        *,
        max_batch: int,
        wait_seconds: float = 0.0,
        on_batch: Callable[[int, float], None] = lambda size, seconds: None,
    ) -> None:
        self._forward = forward
        self._max_batch = max_batch
        self._wait_seconds = wait_seconds
        self._on_batch = on_batch
        self._waiting: deque[Entry] = deque()
        self._seconds: deque[float] = deque(maxlen=BATCHES_REMEMBERED)

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, entry: Entry) -> None:
        entry.since = time.monotonic()
        self._waiting.append(entry)

    def due(self) -> float:
        """When a batch should be formed: now or earlier if it is full or nobody is to be waited for."""
        if not self._waiting:
            return float("inf")
        if self._wait_seconds and sum(entry.weight for entry in self._waiting) >= self._max_batch:
            return 0.0
        return self._waiting[0].since + self._wait_seconds

    def take(self) -> list[Entry]:
        """Removes the next batch: the oldest entry and those behind it with the same key.

        Entries whose caller has hung up, or whose time would be over before even a fast batch is through, leave the
        queue here without reaching the device.
        """
        soonest = time.monotonic() + min(self._seconds, default=0.0)
        batch: list[Entry] = []
        others: deque[Entry] = deque()
        left = self._max_batch
        while self._waiting and left > 0:
            entry = self._waiting.popleft()
            if batch and (entry.key != batch[0].key or entry.weight > left):
                others.append(entry)
            elif not entry.future.set_running_or_notify_cancel():
                continue
            elif entry.deadline < soonest:
                entry.future.set_exception(RequestTimeout("The request waited too long for the device. Try again."))
            else:
                batch.append(entry)
                left -= entry.weight
        self._waiting.extendleft(reversed(others))
        return batch

    def run(self, batch: list[Entry]) -> None:
        """Runs a batch and settles its futures. When it fails, each entry is tried alone: one bad input, or a batch
        too large for the memory that is left, fails nobody else."""
        started = time.monotonic()
        try:
            outputs = list(self._forward([entry.item for entry in batch]))
            if len(outputs) != len(batch):
                raise RuntimeError(f"forward gave {len(outputs)} outputs for {len(batch)} items")
        except BaseException as raised:
            error = as_exception(raised)
            # The frames of the traceback hold the tensors that may have filled the memory.
            failure = error.with_traceback(None) if is_out_of_memory(error) else error
        else:
            finished = time.monotonic()
            self._seconds.append(finished - started)
            self._on_batch(len(batch), finished - started)
            for entry, output in zip(batch, outputs, strict=True):
                entry.started, entry.finished = started, finished
                entry.future.set_result(output)
            return
        if len(batch) == 1:
            batch[0].future.set_exception(failure)
            return
        for entry in batch:
            self.run([entry])
