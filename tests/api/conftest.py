"""Servers to talk to: in-process over ASGI for most tests, over a socket where the connection itself matters."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from tests.api import stand_ins
from tests.support.live import LiveServer, settings_of
from tests.support.pictures import IMAGE, b64, encoded, pixels_of, png
from vision_model_repo.api.server import create_app
from vision_model_repo.engine.engine import Engine
from vision_model_repo.models.catalog import Catalog

__all__ = ["IMAGE", "LiveServer", "Serve", "b64", "encoded", "engine_of", "pixels_of", "png", "settings_of"]

Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


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


@pytest.fixture
def serve_live(build_app: Callable[..., FastAPI]) -> Callable[..., LiveServer]:
    """`with serve_live(max_body_mb=1) as server:` listens on `server.url`."""
    return lambda **changes: LiveServer(build_app(**changes))
