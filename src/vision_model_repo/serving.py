"""Starting the server, and why it is one process."""

from __future__ import annotations

import importlib
import logging
import math
import multiprocessing
import os
from copy import deepcopy
from ipaddress import ip_address
from logging.config import dictConfig
from pathlib import Path
from typing import Any

import uvicorn
from pydantic import ValidationError
from pydantic_settings import SettingsError
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.config import LOGGING_CONFIG

from vision_model_repo.settings import Settings

APPLICATION_MODULE = "vision_model_repo.api.server"
APPLICATION = f"{APPLICATION_MODULE}:app"
ONE_PROCESS = (
    "This server is one process: {workers} workers would be {workers} registries, {workers} job queues and {workers} "
    "copies of every model, so that a job submitted to one would be unknown to the others. Start it with one worker: "
    "requests of all clients share the device in batches already (MAX_BATCH_SIZE). To use several GPUs, start one "
    "server for each, with CUDA_VISIBLE_DEVICES and a port of its own, behind a load balancer that keeps a client at "
    "its server."
)

OPEN_TO_ALL = (
    "ANYBODY WHO REACHES THIS MACHINE CAN USE THIS SERVER. It listens on %s and API_KEYS is not set: every caller may "
    "run models, load any checkpoint of the hub or of this machine's folders, and unload those of others. Set API_KEYS "
    "and ALLOWED_MODEL_IDS, or listen on 127.0.0.1 alone (API_HOST)."
)
logger = logging.getLogger(__name__)


def read_settings(**given: Any) -> Settings:
    """The settings; ends the process with a sentence for each that makes no sense.

    Args:
        given: those that do not come from the environment; None is as good as not given.
    """
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, each['loc'])).upper()}: {each['msg']}" for each in error.errors()]
    except SettingsError as error:
        wrong = [f"{error}: {error.__cause__}"]
    raise SystemExit("\n".join(wrong))


def serve(settings: Settings, *, reload: bool = False) -> None:
    """Runs the server until it is told to stop; requests and jobs that run get their grace time.

    Of settings that differ from the environment, those are heeded that the command line can change.

    Args:
        reload: start anew whenever a source file changes, for development.
    """
    # The application reads its settings when it is imported, which a reloader does in another process.
    os.environ["ROOT_PROTOCOL"] = settings.root_protocol
    if settings.config_file is not None:
        os.environ["CONFIG_FILE"] = str(settings.config_file.absolute())
    if not reload:
        try:
            importlib.import_module(APPLICATION_MODULE)
        except ValueError as error:
            # Settings that make no sense together with what is installed, such as a protocol that there is not.
            raise SystemExit(str(error)) from error
    uvicorn.run(
        APPLICATION,
        host=settings.api_host,
        port=settings.api_port,
        workers=1,
        reload=reload,
        reload_dirs=[str(Path(__file__).parent)] if reload else None,
        log_config=log_config(settings.log_level),
        # The server has a request log of its own, with ids and times.
        access_log=False,
        timeout_graceful_shutdown=math.ceil(settings.shutdown_grace_seconds),
    )


def log_config(level: str) -> dict[str, Any]:
    """Uvicorn's logging, extended to the package's own loggers. Of broken forms the client is told, and nobody else."""
    config = deepcopy(LOGGING_CONFIG)
    config["formatters"]["default"]["fmt"] = "%(asctime)s %(levelprefix)s %(message)s"
    config["loggers"]["vision_model_repo"] = {"handlers": ["default"], "level": level, "propagate": False}
    config["loggers"]["python_multipart"] = {"level": "ERROR"}
    return config


def log_somewhere(level: str) -> None:
    """Gives the package's log a place where nobody has: uvicorn, started by hand, sets up its own loggers alone."""
    package = logging.getLogger("vision_model_repo")
    if not package.hasHandlers():
        dictConfig(log_config(level))


def warn_if_open(settings: Settings, config: uvicorn.Config | None) -> None:
    """Says in the log that anybody can use the server, where it listens to other machines and asks for no key.

    Args:
        config: of the uvicorn that runs the application; None where another server does.
    """
    host = settings.api_host if config is None else config.host
    if settings.api_keys or (config is not None and (config.uds or config.fd is not None)) or _is_loopback(host):
        return
    logger.warning(OPEN_TO_ALL, host)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class OneProcess:
    """ASGI middleware that ends the start-up of a server with several workers, saying why.

    Uvicorn stops altogether when a worker's start-up fails, so nothing is left half running.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" and (workers := worker_count()) > 1:
            await receive()
            await send({"type": "lifespan.startup.failed", "message": ONE_PROCESS.format(workers=workers)})
            return
        await self.app(scope, receive, send)


def worker_count() -> int:
    """How many processes like this one uvicorn was told to run.

    A worker does not see the command line that made it, but was handed the configuration. Uvicorn ignores the number
    of workers when it reloads.
    """
    config = getattr(multiprocessing.current_process(), "_kwargs", {}).get("config")
    if not isinstance(config, uvicorn.Config) or config.should_reload:
        return 1
    return config.workers
