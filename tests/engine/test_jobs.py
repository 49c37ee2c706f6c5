"""Jobs run in order and within bounds, can be watched and cancelled, and are forgotten in time."""

from __future__ import annotations

import asyncio
import logging

import pytest

from vision_model_repo.engine.jobs import JobQueue, JobState, JobStatus, Progress, Work
from vision_model_repo.errors import Busy, InvalidInput, NotFound


def returning(result: bytes) -> Work:
    async def work(progress: Progress) -> bytes:
        return result

    return work


def waiting_for(gate: asyncio.Event) -> Work:
    async def work(progress: Progress) -> bytes:
        await gate.wait()
        return b"{}"

    return work


async def finished(queue: JobQueue, job: JobState) -> JobState:
    return [state async for state in queue.events(job.job_id)][-1]


async def test_a_job_goes_from_pending_to_its_result() -> None:
    async def work(progress: Progress) -> bytes:
        progress(1)
        progress(2)
        return b'{"answer": 42}'

    queue = JobQueue()
    job = queue.submit("sam3", work, total=2)
    assert (job.status, job.result, job.completed_at) == (JobStatus.PENDING, None, None)
    history = [(state.status, state.done) async for state in queue.events(job.job_id)]
    assert history == [("pending", 0), ("running", 0), ("running", 1), ("completed", 2)]
    done = queue.get(job.job_id)
    assert done.result == b'{"answer": 42}'
    assert done.completed_at is not None and done.completed_at >= done.created_at


async def test_events_of_a_job_that_is_deleted_meanwhile_tell_how_it_ended() -> None:
    queue = JobQueue()
    job = queue.submit("sam3", waiting_for(asyncio.Event()), total=1)
    # Asked for, and not yet read.
    events = queue.events(job.job_id)
    await queue.delete(job.job_id)
    assert [state.status async for state in events][-1] == "cancelled"
    with pytest.raises(NotFound):
        queue.events(job.job_id)


async def test_who_reads_slowly_misses_nothing() -> None:
    async def work(progress: Progress) -> bytes:
        for done in range(1, 4):
            await asyncio.sleep(0.01)
            progress(done)
        return b"{}"

    queue = JobQueue()
    job = queue.submit("sam3", work, total=4)
    history = []
    async for state in queue.events(job.job_id):
        history.append((state.status, state.done))
        await asyncio.sleep(0.02)
    running = [("running", done) for done in range(4)]
    assert history == [("pending", 0), *running, ("completed", 4)]


async def test_only_so_many_run_at_once_and_in_order() -> None:
    gate, started = asyncio.Event(), []

    def numbered(number: int) -> Work:
        async def work(progress: Progress) -> bytes:
            started.append(number)
            await gate.wait()
            return b""

        return work

    queue = JobQueue(max_concurrent_jobs=2)
    jobs = [queue.submit("x", numbered(number), total=1) for number in range(4)]
    await asyncio.sleep(0.01)
    assert started == [0, 1]
    gate.set()
    await asyncio.gather(*(finished(queue, job) for job in jobs))
    assert started == [0, 1, 2, 3]


async def test_a_full_queue_refuses() -> None:
    gate = asyncio.Event()
    queue = JobQueue(max_concurrent_jobs=1, max_queued_jobs=1)
    jobs = [queue.submit("x", waiting_for(gate), total=1) for _ in range(2)]
    with pytest.raises(Busy):
        queue.submit("x", waiting_for(gate), total=1)
    gate.set()
    await asyncio.gather(*(finished(queue, job) for job in jobs))
    queue.submit("x", returning(b""), total=1)


async def test_jobs_that_wait_hold_only_so_many_bytes() -> None:
    gate = asyncio.Event()
    queue = JobQueue(max_concurrent_jobs=1, max_queued_bytes=100)
    running = queue.submit("x", waiting_for(gate), total=1, nbytes=1000)
    waiting = queue.submit("x", waiting_for(gate), total=1, nbytes=60)
    queue.check_room()
    with pytest.raises(Busy, match="send less") as refused:
        queue.submit("x", waiting_for(gate), total=1, nbytes=60)
    assert refused.value.retry_after > 0
    queue.submit("x", waiting_for(gate), total=1, nbytes=40)
    with pytest.raises(Busy):
        queue.check_room()
    await queue.delete(waiting.job_id)
    last = queue.submit("x", waiting_for(gate), total=1, nbytes=60)
    gate.set()
    await finished(queue, running)
    await finished(queue, last)
    queue.submit("x", returning(b""), total=1, nbytes=1000)


@pytest.mark.parametrize("error", [InvalidInput("prompts[0] is too long"), ZeroDivisionError("secret detail")])
async def test_a_failing_job_says_why_but_shows_no_internals(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(progress: Progress) -> bytes:
        raise error

    queue = JobQueue()
    state = await finished(queue, queue.submit("x", work, total=1))
    assert state.status is JobStatus.FAILED
    assert state.error is not None
    if isinstance(error, InvalidInput):
        assert state.error == "prompts[0] is too long"
    else:
        assert "secret" not in state.error
        assert state.error.split()[2].rstrip(";") in caplog.text


async def test_deleting_a_waiting_job_drops_it() -> None:
    gate = asyncio.Event()
    queue = JobQueue(max_concurrent_jobs=1)
    running = queue.submit("x", waiting_for(gate), total=1)
    waiting = queue.submit("x", waiting_for(gate), total=1)
    await queue.delete(waiting.job_id)
    with pytest.raises(NotFound):
        queue.get(waiting.job_id)
    gate.set()
    assert (await finished(queue, running)).status is JobStatus.COMPLETED


@pytest.mark.parametrize("settle_first", [True, False])
async def test_deleting_a_running_job_stops_its_work_and_starts_the_next(settle_first: bool) -> None:
    stopped, gate = asyncio.Event(), asyncio.Event()

    async def work(progress: Progress) -> bytes:
        try:
            await gate.wait()
        finally:
            stopped.set()
        return b""

    queue = JobQueue(max_concurrent_jobs=1)
    running = queue.submit("x", work, total=1)
    following = queue.submit("x", returning(b"next"), total=1)
    if settle_first:
        await asyncio.sleep(0.01)
    await queue.delete(running.job_id)
    assert stopped.is_set() is settle_first
    assert (await finished(queue, following)).result == b"next"
    with pytest.raises(NotFound):
        await queue.delete(running.job_id)


async def test_watchers_of_a_cancelled_job_see_its_end() -> None:
    queue = JobQueue()
    job = queue.submit("x", waiting_for(asyncio.Event()), total=1)
    watcher = asyncio.create_task(finished(queue, job))
    await asyncio.sleep(0.01)
    await queue.delete(job.job_id)
    assert (await watcher).status is JobStatus.CANCELLED


async def test_finished_jobs_expire() -> None:
    queue = JobQueue(ttl_seconds=0.02)
    job = queue.submit("x", returning(b""), total=1)
    await finished(queue, job)
    await asyncio.sleep(0.05)
    with pytest.raises(NotFound):
        queue.get(job.job_id)


async def test_the_oldest_finished_jobs_make_room() -> None:
    queue = JobQueue(max_jobs=2, max_result_bytes=100)
    jobs = []
    for size in (10, 10, 10):
        jobs.append(queue.submit("x", returning(b"x" * size), total=1))
        await finished(queue, jobs[-1])
    assert [state.job_id for state in queue.list()] == [jobs[2].job_id, jobs[1].job_id]
    large = queue.submit("x", returning(b"x" * 95), total=1)
    await finished(queue, large)
    assert [state.job_id for state in queue.list()] == [large.job_id]


async def test_jobs_are_listed_newest_first_by_status_and_page() -> None:
    gate = asyncio.Event()
    queue = JobQueue(max_concurrent_jobs=1)
    jobs = [queue.submit("x", waiting_for(gate), total=1) for _ in range(4)]
    ids = [job.job_id for job in reversed(jobs)]
    assert [state.job_id for state in queue.list()] == ids
    assert [state.job_id for state in queue.list(limit=2, offset=1)] == ids[1:3]
    assert [state.job_id for state in queue.list(status=JobStatus.PENDING)] == ids[:3]
    gate.set()


async def test_shutdown_drains_what_runs_and_says_what_was_dropped(caplog: pytest.LogCaptureFixture) -> None:
    gate = asyncio.Event()
    queue = JobQueue(max_concurrent_jobs=1)
    running = queue.submit("x", waiting_for(gate), total=1)
    waiting = queue.submit("x", waiting_for(gate), total=1)
    await asyncio.sleep(0.01)
    asyncio.get_running_loop().call_later(0.02, gate.set)
    with caplog.at_level(logging.WARNING):
        await queue.close(grace_seconds=5)
    assert queue.get(running.job_id).status is JobStatus.COMPLETED
    assert queue.get(waiting.job_id).status is JobStatus.CANCELLED
    assert waiting.job_id in caplog.text
    with pytest.raises(Busy, match="shutting down"):
        queue.submit("x", returning(b""), total=1)


async def test_shutdown_cancels_what_outlasts_the_grace() -> None:
    queue = JobQueue()
    job = queue.submit("x", waiting_for(asyncio.Event()), total=1)
    await asyncio.sleep(0.01)
    await queue.close(grace_seconds=0.01)
    assert queue.get(job.job_id).status is JobStatus.CANCELLED
