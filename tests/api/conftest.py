"""Servers to talk to: in-process over ASGI for most tests, over a socket where the connection itself matters."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache
from io import BytesIO
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI
from PIL import Image

from tests.api import stand_ins
from vision_model_repo.api.server import create_app
from vision_model_repo.engine.engine import Engine
from vision_model_repo.models.catalog import Catalog
from vision_model_repo.settings import Settings

Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


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


def png(width: int = 16, height: int = 8, color: tuple[int, int, int] = (200, 30, 30)) -> bytes:
    return encoded(Image.new("RGB", (width, height), color))


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


IMAGE = b64(png())
"""A picture 16 pixels wide and 8 high."""


@pytest.fixture(scope="session")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return stand_ins.write_catalog(tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(autouse=True)
def _fresh_stand_ins() -> Iterator[None]:
    stand_ins.SEEN.clear()
    yield
    stand_ins.GATE.set()


@pytest.fixture(scope="session")
def build_app(catalog: Catalog) -> Callable[..., FastAPI]:
    """Applications by their settings, each built once; the engine is made anew whenever one starts."""
    return cache(lambda **changes: create_app(settings_of(**changes), catalog=catalog))


@pytest.fixture
def serve(build_app: Callable[..., FastAPI]) -> Serve:
    """`async with serve(max_images=2) as client:` is a client of a server with these settings."""

    @asynccontextmanager
    async def serving(**changes: Any) -> AsyncIterator[httpx.AsyncClient]:
        app = build_app(**changes)
        transport = httpx.ASGITransport(app)
        async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://x") as it:
            yield it

    return serving


@pytest.fixture
async def client(serve: Serve) -> AsyncIterator[httpx.AsyncClient]:
    async with serve() as client:
        yield client


def engine_of(client: httpx.AsyncClient) -> Engine:
    """The engine behind an in-process client."""
    transport: Any = client._transport
    return transport.app.state.engine


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


@pytest.fixture
def serve_live(build_app: Callable[..., FastAPI]) -> Callable[..., LiveServer]:
    """`with serve_live(max_body_mb=1) as server:` listens on `server.url`."""
    return lambda **changes: LiveServer(build_app(**changes))


def pixels_of(picture: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(picture)))
