"""A bounded queue for work that outlasts a request.

A job is the same work that a synchronous request would do; the queue only adds when, how many at once, cancelling,
progress and expiry.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from typing import Any
from uuid import uuid4

from vision_model_repo.errors import Busy, NotFound, VisionError

logger = logging.getLogger(__name__)

CANCELLED = "The job was cancelled."


class JobStatus(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def finished(self) -> bool:
        return self not in (JobStatus.PENDING, JobStatus.RUNNING)


@dataclass(frozen=True, slots=True)
class JobState:
    """A job as it was at one moment; times are seconds since the epoch.

    Attributes:
        kind: what it runs, a model_type.
        done, total: images finished and given.
        result: the answer as JSON, once completed.
        error: a sentence, once failed or cancelled.
    """

    job_id: str
    kind: str
    status: JobStatus
    created_at: float
    total: int
    done: int = 0
    completed_at: float | None = None
    result: bytes | None = None
    error: str | None = None


Progress = Callable[[int], None]
"""Called with the number of images finished so far."""
Work = Callable[[Progress], Coroutine[Any, Any, bytes]]


@dataclass(slots=True)
class _Job:
    """A job's history, one state a change, and what is needed to run and to forget it."""

    history: list[JobState]
    work: Work | None
    nbytes: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[bytes] | None = None
    expiry: asyncio.TimerHandle | None = None

    @property
    def state(self) -> JobState:
        return self.history[-1]

    def become(self, state: JobState) -> None:
        self.history.append(state)
        self.changed.set()
        self.changed = asyncio.Event()

    def progress(self, done: int) -> None:
        if self.state.status is JobStatus.RUNNING and done < self.state.total:
            self.become(replace(self.state, done=done))


class JobQueue:
    """Runs jobs in the order they came. Lives on one event loop.

    Args:
        max_concurrent_jobs: jobs that run at once.
        max_queued_jobs: jobs that may wait.
        max_queued_bytes: memory for what the jobs that wait were given.
        max_jobs: jobs remembered, finished ones included.
        max_result_bytes: memory for results; the oldest finished jobs are forgotten beyond it.
        ttl_seconds: how long a finished job is remembered.
    """

    def __init__(
        self,
        *,
        max_concurrent_jobs: int = 2,
        max_queued_jobs: int = 100,
        max_queued_bytes: int = 1024 * 2**20,
        max_jobs: int = 1000,
        max_result_bytes: int = 512 * 2**20,
        ttl_seconds: float = 3600.0,
    ) -> None:
        self._max_concurrent = max_concurrent_jobs
        self._max_queued = max_queued_jobs
        self._max_queued_bytes = max_queued_bytes
        self._max_jobs = max_jobs
        self._max_result_bytes = max_result_bytes
        self._ttl_seconds = ttl_seconds
        self._jobs: dict[str, _Job] = {}
        # The same jobs by what is next for them, oldest first: nothing that happens often may look at all of them.
        self._waiting: OrderedDict[str, _Job] = OrderedDict()
        self._finished: OrderedDict[str, _Job] = OrderedDict()
        self._result_bytes = 0
        self._waiting_bytes = 0
        self._running = 0
        self._closing = False

    def submit(self, kind: str, work: Work, *, total: int, nbytes: int = 0, prefix: str = "") -> JobState:
        """Takes a job.

        Args:
            nbytes: memory that the work holds until it is done: encoded images, a video.
            prefix: of its id, by which a protocol knows its own jobs.

        Raises:
            Busy: too many wait, or the server is shutting down.
        """
        self.check_room(nbytes)
        state = JobState(f"{prefix}{uuid4().hex}", kind, JobStatus.PENDING, time.time(), total)
        self._jobs[state.job_id] = self._waiting[state.job_id] = _Job([state], work, nbytes)
        self._waiting_bytes += nbytes
        self._forget_surplus()
        self._start_next()
        return state

    def check_room(self, nbytes: int = 0) -> None:
        """Raises Busy where `submit` would, for those who want to know before they prepare a job."""
        waiting = len(self._waiting)
        full = self._running >= self._max_concurrent and waiting >= self._max_queued
        if self._closing or full or waiting + self._running >= self._max_jobs:
            reason = "The server is shutting down." if self._closing else f"{waiting} jobs are waiting already."
            raise Busy(f"{reason} Try again later.", retry_after=10)
        # A job that can start at once does not wait, however large it is.
        if self._running >= self._max_concurrent and self._waiting_bytes + max(nbytes, 1) > self._max_queued_bytes:
            held = self._waiting_bytes // 2**20
            raise Busy(
                f"The jobs that are waiting hold {held} MB already, and this one does not fit beside them. Try again "
                "later, or send less.",
                retry_after=10,
            )

    def counts(self) -> dict[str, int]:
        """How many jobs there are of each status."""
        return dict(Counter(job.state.status.value for job in self._jobs.values()))

    def get(self, job_id: str) -> JobState:
        """The job as it is now. Raises NotFound."""
        return self._find(job_id).state

    def list(self, *, status: JobStatus | None = None, limit: int = 100, offset: int = 0) -> list[JobState]:
        """Jobs as they are now, newest first."""
        states = [job.state for job in reversed(self._jobs.values())]
        chosen = [state for state in states if status is None or state.status is status]
        return chosen[offset : offset + limit]

    async def delete(self, job_id: str) -> None:
        """Drops a waiting job, cancels a running one and waits until it has stopped, forgets a finished one."""
        await self.cancel(job_id)
        self._forget(job_id)

    async def cancel(self, job_id: str) -> JobState:
        """Like `delete`, but the job is remembered; a finished one stays as it is."""
        job = self._find(job_id)
        if job.task is not None:
            job.task.cancel()
            await asyncio.wait([job.task])
        if not job.state.status.finished:
            self._finish(job, JobStatus.CANCELLED, error=CANCELLED)
        return job.state

    def events(self, job_id: str) -> AsyncIterator[JobState]:
        """Every state of a job from the first on, ending with the last, even if it is forgotten meanwhile.

        Raises NotFound, at once.
        """
        return self._states(self._find(job_id))

    async def _states(self, job: _Job) -> AsyncIterator[JobState]:
        seen = 0
        while True:
            changed = job.changed
            # While one state is read, the next may come.
            while seen < len(job.history):
                state = job.history[seen]
                seen += 1
                yield state
                if state.status.finished:
                    return
            if changed is job.changed:
                await changed.wait()

    async def close(self, grace_seconds: float) -> None:
        """Drops what waits, lets what runs finish within the grace, and says what was lost."""
        self._closing = True
        for job in list(self._waiting.values()):
            logger.warning("Job %s was dropped before it started: shutting down", job.state.job_id)
            self._finish(job, JobStatus.CANCELLED, error="The server shut down before the job started.")
        running = {job.task: job for job in self._jobs.values() if job.task is not None}
        if not running:
            return
        _, late = await asyncio.wait(running, timeout=grace_seconds)
        for task in late:
            logger.warning("Job %s was cancelled while running: shutting down", running[task].state.job_id)
            task.cancel()
        if late:
            await asyncio.wait(late)

    def _find(self, job_id: str) -> _Job:
        try:
            return self._jobs[job_id]
        except KeyError:
            raise NotFound(f"No job {job_id[:80]!r}. It may have expired or been deleted.") from None

    def _start_next(self) -> None:
        while self._waiting and self._running < self._max_concurrent and not self._closing:
            job = self._leave_queue(next(iter(self._waiting)))
            assert job is not None and job.work is not None
            self._running += 1
            job.become(replace(job.state, status=JobStatus.RUNNING))
            job.task = asyncio.ensure_future(job.work(job.progress))
            # A callback rather than a coroutine around the work: it runs even if the task never started.
            job.task.add_done_callback(partial(self._settle, job))

    def _leave_queue(self, job_id: str) -> _Job | None:
        """Takes a job out of those that wait; None where it was none of them."""
        job = self._waiting.pop(job_id, None)
        if job is not None:
            self._waiting_bytes -= job.nbytes
        return job

    def _settle(self, job: _Job, task: asyncio.Task[bytes]) -> None:
        self._running -= 1
        if task.cancelled():
            self._finish(job, JobStatus.CANCELLED, error=CANCELLED)
        elif (error := task.exception()) is None:
            self._finish(job, JobStatus.COMPLETED, result=task.result())
        elif isinstance(error, VisionError):
            self._finish(job, JobStatus.FAILED, error=error.message)
        else:
            error_id = uuid4().hex[:12]
            logger.error("Job %s failed, error id %s", job.state.job_id, error_id, exc_info=error)
            self._finish(job, JobStatus.FAILED, error=f"Internal error {error_id}; the log has the details.")
        self._start_next()

    def _finish(self, job: _Job, status: JobStatus, *, result: bytes | None = None, error: str | None = None) -> None:
        done = job.state.total if status is JobStatus.COMPLETED else job.state.done
        job.become(replace(job.state, status=status, done=done, completed_at=time.time(), result=result, error=error))
        # The work holds the decoded images.
        job.work = job.task = None
        job_id = job.state.job_id
        self._leave_queue(job_id)
        self._finished[job_id] = job
        self._result_bytes += len(result or b"")
        job.expiry = asyncio.get_running_loop().call_later(self._ttl_seconds, self._forget, job_id)
        self._forget_surplus()

    def _forget(self, job_id: str) -> None:
        """Forgets a finished job; one that has been forgotten already is none."""
        self._jobs.pop(job_id, None)
        if (job := self._finished.pop(job_id, None)) is None:
            return
        self._result_bytes -= len(job.state.result or b"")
        if job.expiry is not None:
            job.expiry.cancel()

    def _forget_surplus(self) -> None:
        """Forgets the oldest finished jobs until the limits hold; the newest result is kept whatever its size."""
        while len(self._finished) > 1 and (
            len(self._jobs) > self._max_jobs or self._result_bytes > self._max_result_bytes
        ):
            self._forget(next(iter(self._finished)))
