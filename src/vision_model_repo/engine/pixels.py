"""The threads that decode, prepare and encode images, so that the event loop never does."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from vision_model_repo.errors import contained

P = ParamSpec("P")
T = TypeVar("T")


class PixelThreads:
    """A dedicated pool: one fewer than the cores by default, since the device thread feeds on a core of its own.

    Args:
        threads: how many; 0 for the default.
    """

    def __init__(self, threads: int = 0) -> None:
        count = threads or max(1, (os.cpu_count() or 2) - 1)
        self._executor = ThreadPoolExecutor(count, thread_name_prefix="pixels")

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Calls a function in one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(
            self._executor, partial(contained(function), *args, **kwargs)
        )

    def submit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """The same for who does not wait for it. Any thread may call this."""
        return self._executor.submit(contained(function), *args, **kwargs)

    def close(self) -> None:
        self._executor.shutdown(cancel_futures=True)
