"""Threads in which checkpoints are read, one at a time, and what is done about one that does not come back."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any, Generic, TypeVar

from vision_model_repo.engine.devices import restore_defaults
from vision_model_repo.errors import Busy, RequestTimeout, as_exception

logger = logging.getLogger(__name__)

T = TypeVar("T")

MAX_GIVEN_UP = 4
"""Threads that were given up and still run; with so many, no other checkpoint is read."""


class GivenUp(BaseException):
    """Is raised in a thread that was given up. No Exception, since libraries catch those."""


class LoaderThreads:
    """Runs one function after the other, each in a thread of its own, and gives up those that take too long.

    One at a time: transformers patches process-wide state while it builds a model. All state belongs to the event loop.

    Args:
        seconds: for one function.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._turn = asyncio.Lock()
        self._given_up: dict[threading.Thread, str] = {}
        self._unproven = False

    @property
    def stuck(self) -> list[str]:
        """What the threads were reading that were given up and still run."""
        return [what for thread, what in self._given_up.items() if thread.is_alive()]

    @property
    def degraded(self) -> bool:
        """Whether a thread was given up, until it has ended and another one has done its work."""
        return self._unproven or bool(self.stuck)

    async def run(self, function: Callable[[], T], what: str, *, discard: Callable[[T], object] | None = None) -> T:
        """What a function returns, or raises.

        Args:
            what: is being read, for messages.
            discard: is called with a result that comes after the function was given up.

        Raises:
            RequestTimeout: it takes too long.
            Busy: too many have been given up.
        """
        task = asyncio.ensure_future(self._run(_Job(function, discard), what))
        task.add_done_callback(_seen)
        # Not cancelled with whoever waits: the thread cannot be, and the next one must not begin beside it.
        return await asyncio.shield(task)

    async def _run(self, job: _Job[T], what: str) -> T:
        async with self._turn:
            if len(self.stuck) >= MAX_GIVEN_UP:
                raise Busy("Several checkpoints never finished loading. Restart the server.", retry_after=60)
            thread = threading.Thread(target=job.run, name="loader", daemon=True)
            thread.start()
            done = asyncio.wrap_future(job.future)
            await asyncio.wait([done], timeout=self._seconds)
            if not done.done():
                done.cancel()
                self._give_up(thread, job, what)
                raise RequestTimeout(
                    f"{what} was not read within {self._seconds:g} s and is given up. Raise MODEL_LOAD_TIMEOUT_SECONDS "
                    "where reading it takes that long."
                )
            result = done.result()
            self._unproven &= job.discard is None
            return result

    def _give_up(self, thread: threading.Thread, job: _Job[Any], what: str) -> None:
        logger.error("%s was not read within %g s and is given up", what, self._seconds)
        job.give_up(thread)
        restore_defaults()
        self._given_up = {thread: what for thread, what in self._given_up.items() if thread.is_alive()}
        self._given_up[thread] = what
        self._unproven = True


class _Job(Generic[T]):
    """One function in a thread, and what becomes of its result."""

    def __init__(self, function: Callable[[], T], discard: Callable[[T], object] | None) -> None:
        self.discard = discard
        self.future: Future[T] = Future()
        self._function = function
        self._lock = threading.Lock()
        self._is_given_up = False

    def run(self) -> None:
        self.future.set_running_or_notify_cancel()
        # Raised at any line once the thread is given up.
        with suppress(GivenUp):
            try:
                result = self._function()
            except BaseException as error:
                self._end(partial(self.future.set_exception, as_exception(error)))
            else:
                if not self._end(partial(self.future.set_result, result)) and self.discard is not None:
                    self.discard(result)

    def give_up(self, thread: threading.Thread) -> None:
        """Nobody waits for the result any more. Ends the thread where it runs Python, and does not wait inside of C."""
        with self._lock:
            self._is_given_up = True
        if thread.ident is not None:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(GivenUp))

    def _end(self, tell: Callable[[], None]) -> bool:
        """Whether somebody still waits, and was told."""
        with self._lock:
            if not self._is_given_up:
                tell()
            return not self._is_given_up


def _seen(task: asyncio.Future[Any]) -> None:
    """Takes note of an error that whoever asked did not wait for."""
    if not task.cancelled():
        task.exception()
