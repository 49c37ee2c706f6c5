"""FastAPI's router, whose routes are declared with their policy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from vision_model_repo.api.protocols import ADMIN, Policy

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


def policy_of(route: BaseRoute) -> Policy:
    return getattr(route, "policy", ADMIN)


class Router(APIRouter):
    """Declares routes as FastAPI does, each with its policy: `@router.post("/ask", policy=INFER)`."""

    def add_api_route(
        self, path: str, endpoint: Callable[..., Any], *, policy: Policy = ADMIN, **declared: Any
    ) -> None:
        super().add_api_route(path, endpoint, **declared)
        self._give(policy)

    def get(self, path: str, *, policy: Policy = ADMIN, **declared: Any) -> Callable[[Endpoint], Endpoint]:
        return self._declare("GET", path, policy, declared)

    def head(self, path: str, *, policy: Policy = ADMIN, **declared: Any) -> Callable[[Endpoint], Endpoint]:
        return self._declare("HEAD", path, policy, declared)

    def post(self, path: str, *, policy: Policy = ADMIN, **declared: Any) -> Callable[[Endpoint], Endpoint]:
        return self._declare("POST", path, policy, declared)

    def put(self, path: str, *, policy: Policy = ADMIN, **declared: Any) -> Callable[[Endpoint], Endpoint]:
        return self._declare("PUT", path, policy, declared)

    def delete(self, path: str, *, policy: Policy = ADMIN, **declared: Any) -> Callable[[Endpoint], Endpoint]:
        return self._declare("DELETE", path, policy, declared)

    def add_api_websocket_route(
        self, path: str, endpoint: Callable[..., Any], *arguments: Any, policy: Policy = ADMIN, **declared: Any
    ) -> None:
        super().add_api_websocket_route(path, endpoint, *arguments, **declared)
        self._give(policy)

    def mount(self, path: str, app: ASGIApp, name: str | None = None, *, policy: Policy = ADMIN) -> None:
        super().mount(path, app, name)
        self._give(policy)

    def _declare(
        self, method: str, path: str, policy: Policy, declared: dict[str, Any]
    ) -> Callable[[Endpoint], Endpoint]:
        def declare(endpoint: Endpoint) -> Endpoint:
            self.add_api_route(path, endpoint, methods=[method], policy=policy, **declared)
            return endpoint

        return declare

    def _give(self, policy: Policy) -> None:
        # An attribute of its own, since routes are of several classes, FastAPI's and Starlette's.
        setattr(self.routes[-1], "policy", policy)  # noqa: B010


class DirectRoute(APIRoute):
    """A route whose endpoint takes the request as it is and answers with a response: FastAPI need not look for
    parameters, of which there are none."""

    def get_route_handler(self) -> Any:
        return self.endpoint


def merged(*routers: APIRouter) -> Router:
    """One router with the routes of several, on one level."""
    whole = Router()
    for router in routers:
        whole.routes.extend(router.routes)
    return whole
