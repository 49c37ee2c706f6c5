"""Routes that are found at once.

FastAPI tries one route after the other, and those of included routers once for every level. With a few protocols
that is longer than many a request takes.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy
from typing import Any

from fastapi import APIRouter
from fastapi.routing import APIRoute
from fastapi.utils import generate_unique_id
from starlette.routing import BaseRoute, Match, compile_path
from starlette.types import Receive, Scope, Send


class DirectRoute(APIRoute):
    """A route whose endpoint takes the request as it is and answers with a response: FastAPI need not look for
    parameters, of which there are none."""

    def get_route_handler(self) -> Any:
        return self.endpoint


class RouteIndex(BaseRoute):
    """Routes by their paths. Those without parameters come before those with; otherwise the first that fits wins."""

    def __init__(self, routes: Iterable[APIRoute]) -> None:
        self._fixed: dict[str, list[APIRoute]] = {}
        self._parametrised: list[APIRoute] = []
        for route in routes:
            if route.param_convertors:
                self._parametrised.append(route)
            else:
                self._fixed.setdefault(route.path, []).append(route)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] != "http":
            return Match.NONE, {}
        partial: tuple[Match, Scope] = Match.NONE, {}
        for routes in (self._fixed.get(path_of(scope), ()), self._parametrised):
            for route in routes:
                match, found = route.matches(scope)
                if match is Match.FULL:
                    return match, found
                if partial[0] is Match.NONE:
                    partial = match, found
        return partial

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Put there by the match.
        await scope["route"].handle(scope, receive, send)


def merged(*routers: APIRouter) -> APIRouter:
    """One router with the routes of several, on one level."""
    whole = APIRouter()
    for router in routers:
        whole.routes.extend(router.routes)
    return whole


def placed(router: APIRouter, prefix: str, *, shown: bool) -> list[APIRoute]:
    """A router's routes under a prefix.

    Args:
        shown: whether the description of the API has them.
    """
    return [_placed(route, prefix, shown) for route in router.routes if isinstance(route, APIRoute)]


def _placed(route: APIRoute, prefix: str, shown: bool) -> APIRoute:
    there = copy(route)
    there.path = prefix + route.path
    there.path_regex, there.path_format, there.param_convertors = compile_path(there.path)
    there.unique_id = there.operation_id or generate_unique_id(there)
    there.include_in_schema = shown and route.include_in_schema
    return there


def path_of(scope: Scope) -> str:
    """The path as routes see it, without the prefix that a proxy in front may have added."""
    return scope["path"].removeprefix(scope.get("root_path", ""))
