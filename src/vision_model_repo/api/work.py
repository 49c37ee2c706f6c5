"""Work that has a place, and is cancelled when its client hangs up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from fastapi import Request
from starlette.requests import ClientDisconnect
from starlette.types import Scope

from vision_model_repo.api.dependencies import engine_of
from vision_model_repo.errors import Busy


def address_of(scope: Scope) -> str | None:
    """Address of the client: of the connection, or what a proxy of TRUSTED_PROXIES says. None for a Unix socket."""
    return (scope.get("client") or (None,))[0]


@asynccontextmanager
async def admitted(request: Request) -> AsyncIterator[None]:
    """A place for work of which only the body tells, as a route whose policy is work has one. Call it once the body
    is read.

    Raises:
        Busy: every place is taken, or the server is shutting down.
        ClientDisconnect: the client has hung up, and the work is cancelled.
    """

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    with engine_of(request).admission.enter(address_of(request.scope)):
        async with cancelled_when_gone(gone):
            yield


@asynccontextmanager
async def cancelled_when_gone(gone: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Cancels the block as soon as its client has hung up.

    Args:
        gone: returns when that has happened.

    Raises:
        ClientDisconnect: the client has hung up.
        Busy: the block was cancelled for another reason, which is a shutdown.
    """
    work, left = asyncio.current_task(), False
    assert work is not None

    async def watch() -> None:
        nonlocal left
        await gone()
        left = True
        work.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if left:
            raise ClientDisconnect from None
        raise Busy("The server is shutting down. Try again in a moment.", retry_after=5) from None
    finally:
        watcher.cancel()
        # Whoever cancelled this, an answer can still be sent.
        while work.cancelling():
            work.uncancel()
