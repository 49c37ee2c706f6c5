"""A process of its own, with little memory and time, for what a checkpoint may have made dangerous.

A chat template is a program that runs with every request, and a tokenizer's patterns can take for ever. In this process
either could stop all others, and no thread can be ended from outside. A process can.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import threading
import time
import weakref
from typing import Any

from vision_model_repo.models.confinement import released

MEGABYTE = 2**20
MAX_ANSWER_BYTES = 64 * MEGABYTE
STARTING_SECONDS = 30.0
"""Time that a process may take until it reads, on a busy machine."""


class HelperRefused(Exception):
    """The task failed, or took more than it may. The message says why, in a clause about what was asked of it.

    Attributes:
        gave_up: whether it took too much time or memory.
    """

    def __init__(self, message: str, *, gave_up: bool = False) -> None:
        super().__init__(message)
        self.gave_up = gave_up


class HelperProcess:
    """Runs tasks of `helper_main`, one at a time. It starts when the first one comes, and anew after one that ended it.

    Safe to be used from several threads.

    Args:
        memory_mb: most memory of the process, of which Python itself takes some 30.
        seconds: most processor time for one task. It may take some times longer while the machine is busy.
    """

    def __init__(self, *, memory_mb: int, seconds: float) -> None:
        self._memory_mb, self._seconds = memory_mb, seconds
        self._lock = threading.Lock()
        # The one that runs, if there is one; a list, for the finalizer must not hold the object.
        self._running: list[subprocess.Popen[bytes]] = []
        weakref.finalize(self, _end, self._running)

    def ask(self, task: str, **arguments: Any) -> str:
        """What a task answers. Raises HelperRefused."""
        request = json.dumps([task, self._seconds, arguments]).encode() + b"\n"
        with self._lock, released():
            if not self._running:
                self._running.append(self._start())
            try:
                answer = json.loads(self._exchange(self._running[0], request))
            except BaseException:
                _end(self._running)
                raise
        if "refused" in answer:
            raise HelperRefused(answer["refused"], gave_up=answer["gave_up"])
        return answer["answer"]

    def close(self) -> None:
        """Ends the process. The next task starts another one."""
        with self._lock:
            _end(self._running)

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "vision_model_repo.models.helper_main", str(self._memory_mb * MEGABYTE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            # Nothing of ours that is worth knowing: keys and tokens are in the environment.
            env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PATH": os.defpath, "MALLOC_ARENA_MAX": "2"},
        )

    def _exchange(self, process: subprocess.Popen[bytes], request: bytes) -> bytes:
        """One request and its answer, with an eye on the clock."""
        assert process.stdin is not None and process.stdout is not None
        deadline = time.monotonic() + STARTING_SECONDS + 4 * self._seconds
        waiting, answer = memoryview(request), bytearray()
        os.set_blocking(process.stdin.fileno(), False)
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdin, selectors.EVENT_WRITE)
            selector.register(process.stdout, selectors.EVENT_READ)
            while not answer.endswith(b"\n"):
                ready = selector.select(deadline - time.monotonic())
                if not ready or len(answer) > MAX_ANSWER_BYTES:
                    raise HelperRefused("it takes too long", gave_up=True)
                for key, _ in ready:
                    if key.fileobj is process.stdout:
                        piece = os.read(process.stdout.fileno(), MEGABYTE)
                        if not piece:
                            raise HelperRefused("it takes too much time or memory", gave_up=True)
                        answer += piece
                        continue
                    try:
                        waiting = waiting[os.write(process.stdin.fileno(), waiting) :]
                    except BrokenPipeError:
                        raise HelperRefused("it takes too much time or memory", gave_up=True) from None
                    if not waiting:
                        selector.unregister(process.stdin)
        return bytes(answer)


def _end(running: list[subprocess.Popen[bytes]]) -> None:
    while running:
        process = running.pop()
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()
