"""Puts the bounds into the uvicorn that runs the application, however it was started."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Any

from uvicorn import Config
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from vision_model_repo.api.connections.limits import Limits
from vision_model_repo.api.connections.table import ConnectionTable
from vision_model_repo.settings import Settings

logger = logging.getLogger(__name__)

UVICORNS_PROXIES = "127.0.0.1,::1"
"""Whom uvicorn believes if nobody has said anything: every local process."""
MISSING = (
    "%s, so these limits do not hold: MAX_HEADER_KB, MAX_HEADERS, HEADER_SECONDS, KEEP_ALIVE_SECONDS, MAX_CONNECTIONS, "
    "ADDRESS_SHARE of connections, MIN_BODY_BYTES_PER_SECOND, MIN_ANSWER_BYTES_PER_SECOND, ANSWER_PAUSE_SECONDS, "
    "MAX_UNSENT_MB, REFUSED_BODY_SECONDS, TRUSTED_PROXIES. Start the server with uvicorn, or set such limits there."
)


def install(settings: Settings) -> None:
    """Bounds the connections of the server that runs this application. Call it while the application starts.

    Without a uvicorn that can be bounded, the log lists the limits that do not hold.
    """
    config = running_config()
    if config is None:
        logger.warning(MISSING, "The server that runs this application is not uvicorn")
        return
    if config.http2:
        logger.warning(MISSING, "Uvicorn was told to speak HTTP/2")
        return
    try:
        from vision_model_repo.api.connections.protocol import BoundedProtocol
    except ImportError as error:
        logger.warning(MISSING, f"httptools is not installed ({error})")
        return
    limits = Limits.of(settings)
    protocol: Any = partial(BoundedProtocol, ConnectionTable(limits))
    config.http_protocol_class = protocol
    _believe(config, list(limits.trusted_proxies))


def running_config() -> Config | None:
    """The configuration of the uvicorn that is starting this application; None where another server is.

    Uvicorn runs the start-up in a task of its own, a method of an object that has the configuration.
    """
    task = asyncio.current_task()
    frame = getattr(task.get_coro(), "cr_frame", None) if task is not None else None
    config = getattr(frame.f_locals.get("self"), "config", None) if frame is not None else None
    return config if isinstance(config, Config) else None


def _believe(config: Config, proxies: list[str]) -> None:
    """Takes addresses from `X-Forwarded-For` of these proxies alone."""
    app: Any = config.loaded_app
    if isinstance(app, ProxyHeadersMiddleware):
        if config.forwarded_allow_ips != UVICORNS_PROXIES and not proxies:
            logger.warning(
                "TRUSTED_PROXIES is empty, so no proxy is believed, whatever --forwarded-allow-ips or "
                "FORWARDED_ALLOW_IPS says. Name the proxies there."
            )
        app = app.app
    config.loaded_app = ProxyHeadersMiddleware(app, proxies) if proxies else app
