"""Servers in processes of their own, ours and others', on the cores that they are given."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from benchmarks.load import Connection, run
from vision_model_repo.demo.live import COMMAND, live_server

ROOT = Path(__file__).parent.parent
PATH = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
"""Where servers find `benchmarks`."""
START_SECONDS = 180.0
"""Ray starts ten processes before it answers."""
DUMMY_APP = (sys.executable, "-m", "uvicorn", "benchmarks.dummy_app:app", "--port", "0", "--no-access-log")
"""The real application with a model that does nothing, at /inference/dummy."""


@dataclass(frozen=True)
class Server:
    """A server that answers at `url`, and the process that began it."""

    url: str
    process: psutil.Process

    def processes(self) -> list[psutil.Process]:
        """The process with all its descendants."""
        return [self.process, *self.process.children(recursive=True)]

    def cpu_seconds(self) -> float:
        """Time on a core so far, of all its processes."""
        return sum(sum(process.cpu_times()[:2]) for process in self.processes())

    def keep_on(self, cores: Collection[int]) -> None:
        """Keeps all its threads, and those that they start from now on, on some cores."""
        for process in self.processes():
            for thread in process.threads():
                # One may have ended since.
                with suppress(ProcessLookupError):
                    os.sched_setaffinity(thread.id, cores)

    def resident_mb(self) -> float:
        return sum(process.memory_info().rss for process in self.processes()) / 2**20


def halves() -> tuple[set[int], set[int]]:
    """Cores for a server and cores for its clients; all for both where there is but one."""
    cores = sorted(os.sched_getaffinity(0))
    middle = len(cores) // 2
    return set(cores[:middle] or cores), set(cores[middle:])


@contextmanager
def on_cores(cores: Collection[int]) -> Iterator[None]:
    """Keeps this thread, and the processes and threads that it starts meanwhile, on some cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def our_server(
    *, cores: Collection[int] | None = None, command: Sequence[str] = COMMAND, **settings: str
) -> Iterator[Server]:
    """This project's server on the CPU, with the embedded checkpoints.

    Args:
        cores: those it may use; None for all.
        command: what to run.
        settings: by their environment names, for other than the defaults.
    """
    with TemporaryDirectory() as folder, on_cores(cores or os.sched_getaffinity(0)):
        ours = {"HF_HUB_OFFLINE": "1", "HF_ROOT_FOLDER": folder, "DEVICE": "cpu", "PYTHONPATH": PATH}
        with live_server(Path(folder), {**ours, **settings}, command=command) as live:
            yield Server(live.url, psutil.Process(live.process.pid))


@contextmanager
def peer_server(
    module: str, probe: bytes, *, cores: Collection[int], start_seconds: float = START_SECONDS
) -> Iterator[Server]:
    """Another server, made by `python -m MODULE PORT`.

    Args:
        probe: a request that it answers 200 when it is ready.
        start_seconds: how long that may take.

    Raises:
        RuntimeError: it ended or was not ready in time; the message has its log.
    """
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    with TemporaryDirectory() as folder:
        log = Path(folder) / "server.log"
        with log.open("wb") as file, on_cores(range(os.cpu_count() or 1)):
            process = subprocess.Popen(
                [sys.executable, "-m", module, str(port)],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": PATH},
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        server = Server(url, psutil.Process(process.pid))
        try:
            if not _ready(url, probe, process, start_seconds):
                raise RuntimeError(f"{module} did not start. Its log:\n{log.read_text(errors='replace')[-4000:]}")
            # Not before: Ray alone starts twenty processes.
            server.keep_on(cores)
            yield server
        finally:
            _end(server.processes())
            process.wait()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _ready(url: str, probe: bytes, process: subprocess.Popen[bytes], seconds: float) -> bool:
    async def answered() -> bool:
        with suppress(OSError):
            connection = await Connection.to(url)
            status, _ = await asyncio.wait_for(connection.ask(probe), 30)
            connection.close()
            return status == 200
        return False

    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        if run(answered()):
            return True
        time.sleep(0.1)
    return False


def _end(processes: list[psutil.Process]) -> None:
    """Asks the first process to end, and ends what is left of all after a while."""
    processes[0].terminate()
    _, left = psutil.wait_procs(processes, timeout=15)
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=5)
