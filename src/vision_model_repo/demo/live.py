"""The real server in a process of its own: for the tour, the tests and the benchmarks."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vision_model_repo.settings import Settings

START_SECONDS = 120.0
"""How long a cold machine may take to import everything."""
STOP_SECONDS = 40.0
COMMAND = (sys.executable, "-m", "vision_model_repo.cli", "serve", "--port", "0")
ADDRESS = re.compile(r"Uvicorn running on (http://[^\s]+)")
READY = "Application startup complete."


@dataclass(frozen=True)
class ServerProcess:
    """A server that answers.

    Attributes:
        url: such as "http://127.0.0.1:41234".
        process: the server itself, or the supervisor that restarts it.
        log_path: what it has written so far, both streams.
    """

    url: str
    process: subprocess.Popen[bytes]
    log_path: Path

    def log(self) -> str:
        """All that the server has said."""
        return self.log_path.read_text(errors="replace")


@contextmanager
def live_server(
    folder: Path, settings: dict[str, str] | None = None, *, command: Sequence[str] = COMMAND
) -> Iterator[ServerProcess]:
    """Starts a server on a free port, waits until it is ready, and stops it in the end as a person would.

    Args:
        folder: where it runs; `server.log` is written there.
        settings: by their environment names. Those not given are at their defaults, whatever this process was given.

    Raises:
        RuntimeError: it ended or was not ready in time; the message has its log.
    """
    log_path = folder / "server.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=_environment(settings or {}), stdout=log, stderr=subprocess.STDOUT
        )
    try:
        yield ServerProcess(_wait_until_ready(process, log_path), process, log_path)
    finally:
        _stop(process)


def _environment(settings: dict[str, str]) -> dict[str, str]:
    ours = {name.upper() for name in Settings.model_fields}
    inherited = {name: value for name, value in os.environ.items() if name not in ours}
    return {**inherited, "PYTHONUNBUFFERED": "1", **settings}


def _wait_until_ready(process: subprocess.Popen[bytes], log_path: Path) -> str:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        log = log_path.read_text(errors="replace")
        # A supervisor names the address before its child is ready, a single process afterwards.
        if READY in log and (address := ADDRESS.search(log)):
            return address[1]
        time.sleep(0.05)
    why = "did not start in time" if process.poll() is None else f"ended with code {process.returncode}"
    raise RuntimeError(f"The server {why}. Its log:\n{log_path.read_text(errors='replace')}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
