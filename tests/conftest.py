"""The real server, in a process of its own, for every test that wants to talk to it as a client would.

`tests/support` says which way to reach a server is for which test.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from vision_model_repo.demo.live import ServerProcess, live_server

# Networks this small gain nothing from a second thread, and the other cores have tests of their own to run.
os.environ.setdefault("OMP_NUM_THREADS", "1")

Server = ServerProcess
StartServer = Callable[..., Server]

LOG_CHARACTERS = 6000


@pytest.fixture
def start_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartServer]:
    """Starts a server with settings of its own, `start_server(MAX_IMAGES="2")`, which lives as long as the test."""
    with _starter(tmp_path_factory) as start:
        yield start


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests that need no settings of their own: `server.url`, `server.log()`."""
    with _starter(tmp_path_factory) as start:
        yield start()


@contextmanager
def _starter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartServer]:
    """Servers that never ask the hub and find no cache, so that the embedded checkpoints are what they have."""
    with ExitStack() as running:

        def start(**settings: str) -> Server:
            folder = tmp_path_factory.mktemp("server")
            ours = {
                "HF_HUB_OFFLINE": "1",
                "HF_ROOT_FOLDER": str(folder / "cache"),
                "DEVICE": "cpu",
                "TORCH_THREADS": "1",
            }
            return running.enter_context(live_server(folder, {**ours, **settings}))

        yield start


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that fails shows the end of the log of every server that it used."""
    report = yield
    if report.failed:
        for name, value in getattr(item, "funcargs", {}).items():
            if isinstance(value, ServerProcess):
                report.sections.append((f"log of {name}", value.log()[-LOG_CHARACTERS:]))
    return report
