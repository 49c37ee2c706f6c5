"""An application behind a real socket."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import uvicorn
from fastapi import FastAPI

from tests.api import stand_ins
from vision_model_repo.engine.engine import Engine
from vision_model_repo.settings import Settings


def settings_of(**changes: Any) -> Settings:
    """Settings that do not depend on this machine's environment."""
    values: dict[str, Any] = {
        "device": "cpu",
        "hf_hub_offline": True,
        "shutdown_grace_seconds": 5.0,
        # The host of in-process clients.
        "allowed_hosts": ("x",),
        **changes,
    }
    return Settings(_env_file=None, **values)  # pyright: ignore[reportCallIssue]


class LiveServer:
    """An application behind a real socket, in a thread with its own event loop."""

    def __init__(self, app: FastAPI) -> None:
        self.app = app
        config = uvicorn.Config(app, port=0, log_config=None, access_log=False, timeout_graceful_shutdown=2)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._server.serve()))

    def __enter__(self) -> LiveServer:
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive()
            self._thread.join(0.01)
        return self

    def __exit__(self, *error: object) -> None:
        stand_ins.GATE.set()
        self._server.should_exit = True
        self._thread.join()

    @property
    def port(self) -> int:
        return self._server.servers[0].sockets[0].getsockname()[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def engine(self) -> Engine:
        return self.app.state.engine
