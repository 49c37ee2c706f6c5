"""The server: `uvicorn vision_model_repo.api.server:app`, or `create_app` for another configuration."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.middleware import Middleware

from vision_model_repo import __version__
from vision_model_repo.api import errors, middleware, openapi
from vision_model_repo.api.connections.install import install as bound_connections
from vision_model_repo.api.connections.install import running_config
from vision_model_repo.api.ingrain.routes import INGRAIN
from vision_model_repo.api.native.routes import NATIVE
from vision_model_repo.api.openai.routes import OPENAI
from vision_model_repo.api.origins import AllowedHosts, CrossSiteRequests, cors
from vision_model_repo.api.pixano.routes import PIXANO
from vision_model_repo.api.routing import RouteTable
from vision_model_repo.deployments import read_config
from vision_model_repo.engine.engine import Engine
from vision_model_repo.models.catalog import Catalog
from vision_model_repo.serving import OneProcess, log_somewhere, warn_if_open
from vision_model_repo.settings import Settings

PROTOCOLS = (NATIVE, INGRAIN, OPENAI, PIXANO)
DOCUMENTATION_FILES = "/docs/files"
DESCRIPTION = """
Segmentation, detection, depth and features of images, by prompt, over HTTP.

An image is a base64 string (with or without a `data:` prefix), an `http(s)` URL, or
`{"data": "...", "format": "base64" | "url"}`; the `/upload` routes take files instead. Boxes are `[x0, y0, x1, y1]` in
pixels of the image as it is seen, origin at the top left.
"""


def create_app(settings: Settings | None = None, *, catalog: Catalog | None = None) -> FastAPI:
    """An application that makes its engine when it starts, and not before.

    Args:
        settings: read from the environment and `.env` if None.
        catalog: model families that get routes; those installed if None.

    Raises:
        ValueError: settings name a model or a protocol that there is not.
    """
    settings = settings or Settings()  # pyright: ignore[reportCallIssue]
    catalog = catalog or Catalog.installed()
    for deployment in read_config(settings.config_file, catalog) if settings.config_file else ():
        catalog.add(deployment)
    if unknown := [name for name in (*settings.preload_models, *settings.default_model_ids) if name not in catalog]:
        known = ", ".join(spec.model_type for spec in catalog.values())
        raise ValueError(f"Settings name models that there are not: {', '.join(unknown)}. There are: {known}.")
    routes = RouteTable(PROTOCOLS, settings.root_protocol)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        log_somewhere(settings.log_level)
        warn_if_open(settings, running_config())
        bound_connections(settings)
        app.state.engine = engine = Engine(settings, catalog)
        try:
            await engine.start()
            yield
        finally:
            await engine.close()

    # FastAPI's own pages load their scripts from the internet, which a server need not reach.
    app = FastAPIOffline(
        static_url=DOCUMENTATION_FILES,
        title="Vision Models API",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        middleware=_middleware(settings, routes),
    )
    openapi.install(app, secured=bool(settings.api_keys))
    routes.install(app, catalog)
    errors.install(app, routes.write_error)
    return app


def _middleware(settings: Settings, routes: RouteTable) -> list[Middleware]:
    """Outermost first. CORS comes before errors and keys: a browser must be able to read a refusal."""
    layers = [
        Middleware(OneProcess),
        Middleware(middleware.FindRoute, routes=routes),
        Middleware(middleware.RequestLog),
        Middleware(
            cors,
            settings.cors_origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["X-Request-ID", "Retry-After", "X-Model-ID", "Server-Timing"],
        ),
        Middleware(middleware.Errors, routes=routes),
        Middleware(AllowedHosts, (*settings.allowed_hosts, settings.api_host)),
        Middleware(CrossSiteRequests, settings.cors_origins),
    ]
    if settings.api_keys:
        keys = [key.get_secret_value() for key in settings.api_keys]
        layers.append(Middleware(middleware.ApiKeys, keys=keys))
    if settings.rate_limit_per_minute:
        layers.append(Middleware(middleware.RateLimit, per_minute=settings.rate_limit_per_minute))
    return [
        *layers,
        Middleware(
            middleware.BodyLimit,
            max_mb=settings.max_body_mb,
            max_video_mb=settings.max_video_mb,
            max_control_kb=settings.max_control_body_kb,
            seconds=settings.request_timeout_seconds,
            pause_seconds=settings.body_pause_seconds,
        ),
        Middleware(middleware.Work),
    ]


app = create_app()
