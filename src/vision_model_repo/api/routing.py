"""Which route a request is for, found once for every layer.

    /native/...  /pixano/...   every protocol, always
    /...                       the protocol that settings put there, and of the others what collides with nothing

A path that two protocols claim at the root belongs to the one that settings put there, then to the earlier one.
A request is matched in this order: the path as it is; a fixed path that differs in doubled slashes or in the slash at
its end; a path with parameters. No request is redirected, since some clients resend a POST as a GET.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.utils import generate_unique_id
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Mount, Route, WebSocketRoute, compile_path
from starlette.types import Receive, Scope, Send

from vision_model_repo.api.errors import Refusal
from vision_model_repo.api.protocols import ADMIN, OPEN, Policy, Protocol
from vision_model_repo.api.router import policy_of
from vision_model_repo.models.catalog import Catalog

SLASHES = re.compile("//+")
COMPARED_CHARACTERS = 120
"""Of a path that does not exist: to find the nearest one takes time that grows with the square of its length."""
MATCH = "vision_model_repo.match"


@dataclass(frozen=True, slots=True)
class Place:
    """A route at one of its paths."""

    protocol: Protocol
    route: Any
    policy: Policy
    prefix: str = ""

    @property
    def methods(self) -> set[str]:
        return getattr(self.route, "methods", None) or set()


@dataclass(frozen=True, slots=True)
class RouteMatch:
    """Who answers a request.

    Attributes:
        path: what the path is called in the protocol.
        route: None where no route has the path with this method.
        found: what the route adds to the scope.
        allowed: the methods that the path has, where this one is not among them.
    """

    protocol: Protocol
    path: str
    policy: Policy = ADMIN
    route: BaseRoute | None = None
    found: Scope = field(default_factory=dict)
    allowed: tuple[str, ...] = ()


def match_of(scope: Scope) -> RouteMatch:
    """What the outermost layer has found."""
    return scope[MATCH]


class RouteTable:
    """All routes of a server, each with its protocol and policy.

    Args:
        protocols: the earlier one wins a path at the root that several claim.
        root: name of the one that has the root.

    Raises:
        ValueError: there is no such protocol.
    """

    def __init__(self, protocols: Sequence[Protocol], root: str) -> None:
        names = [protocol.name for protocol in protocols]
        if root not in names:
            raise ValueError(f"No protocol {root!r} to put at the root. There are: {', '.join(names)}.")
        self.protocols = sorted(protocols, key=lambda protocol: protocol.name != root)
        self._places: list[Place] = []
        self._fixed: dict[str, dict[str, Place]] = {}
        # By the first segment of the path; "" where that is a parameter.
        self._parametrised: dict[str, list[Place]] = {}
        self._others: list[Place] = []
        self._families: dict[str, Protocol] = {}
        self._routes: list[BaseRoute] = []
        self._installed = 0

    @property
    def root(self) -> Protocol:
        return self.protocols[0]

    def install(self, app: FastAPI, catalog: Catalog) -> None:
        """Puts every protocol in its places; the description of the API has each path once."""
        # FastAPI's own routes are the pages of the documentation.
        places = [Place(self.root, route, OPEN) for route in app.router.routes]
        routers = [(protocol, protocol.router(catalog).routes) for protocol in self.protocols]
        for at_root in (True, False):
            for protocol, routes in routers:
                shown = at_root == (protocol is self.root)
                prefix = "" if at_root else protocol.prefix
                places += [
                    Place(protocol, placed(route, prefix, shown=shown), policy_of(route), prefix) for route in routes
                ]
        for place in places:
            self._add(place)
        # The routes themselves stay for the description of the API.
        app.router.routes[:] = [_Dispatch(self), *(place.route for place in places)]
        app.router.redirect_slashes = False
        self._routes, self._installed = app.router.routes, len(app.router.routes)

    def match(self, scope: Scope) -> RouteMatch:
        """Finds the route of a request or a WebSocket."""
        path = path_of(scope)
        allowed: dict[str, Place] = {}
        if scope["type"] == "http":
            for spelling in _spellings(path):
                methods = self._fixed.get(spelling, {})
                if (place := methods.get(scope["method"])) is not None:
                    return _found(place, spelling, {})
                allowed = {**methods, **allowed}
            for spelling in _spellings(path):
                for place in (*self._parametrised.get(_first_segment(spelling), ()), *self._parametrised.get("", ())):
                    if (values := place.route.path_regex.match(spelling)) is None:
                        continue
                    if scope["method"] in place.methods:
                        return _found(place, spelling, values.groupdict())
                    allowed = {**dict.fromkeys(place.methods, place), **allowed}
        for place in (*self._others, *self._added_later()):
            match, found = place.route.matches(scope)
            if match is Match.FULL:
                return RouteMatch(place.protocol, _within(place.protocol, path), place.policy, place.route, found)
            if match is Match.PARTIAL:
                allowed = {**dict.fromkeys(place.methods, place), **allowed}
        path = SLASHES.sub("/", path)
        if allowed:
            place = next(iter(allowed.values()))
            policy = Policy(open=place.policy.open, scope=place.policy.scope)
            own_path = _within(place.protocol, path)
            return RouteMatch(place.protocol, own_path, policy, allowed=tuple(sorted(allowed)))
        protocol = self._family_of(path)
        return RouteMatch(protocol, _within(protocol, path))

    def write_error(self, refusal: Refusal, scope: Scope) -> Response:
        """A refusal in the words of the protocol that was spoken to."""
        match = match_of(scope)
        return match.protocol.write_error(refusal, scope, match.path)

    def refusal(self, scope: Scope) -> HTTPException:
        """Why no route answers a request: 405 with the methods of its path, or 404 with the path that is nearest."""
        method, allowed = scope["method"], match_of(scope).allowed
        path = SLASHES.sub("/", path_of(scope))[:COMPARED_CHARACTERS]
        if allowed:
            methods = ", ".join(allowed)
            return HTTPException(405, f"{path} does not answer {method}. It answers {methods}.", {"Allow": methods})
        nearest = self._nearest(path, method)
        advice = f" The nearest path is {nearest}." if nearest else ""
        return HTTPException(404, f"There is no path {path}.{advice} GET /docs lists all paths.")

    def _added_later(self) -> Iterator[Place]:
        """Routes that whoever made the application has added to it since."""
        return (Place(self.root, route, policy_of(route)) for route in self._routes[self._installed :])

    def _add(self, place: Place) -> None:
        route = place.route
        if isinstance(route, Route):
            self._places.append(place)
            for family in _leading(route.path):
                self._families.setdefault(family, place.protocol)
            if route.param_convertors:
                self._parametrised.setdefault(_first_segment(route.path), []).append(place)
            else:
                methods = self._fixed.setdefault(route.path, {})
                for method in place.methods:
                    methods.setdefault(method, place)
        else:
            self._others.append(place)

    def _family_of(self, path: str) -> Protocol:
        """Whose words a path that nobody has is answered in: the first with a route that begins the same for
        longest."""
        families = [self._families[beginning] for beginning in _leading(path) if beginning in self._families]
        return families[-1] if families else self.root

    def _nearest(self, path: str, method: str) -> str | None:
        """The path there is that is most like one that does not exist, with its methods."""
        segments = path.split("/")
        prefix = next((p.prefix for p in self.protocols if path.startswith(f"{p.prefix}/")), "")
        alike: dict[str, dict[str, set[str]]] = {}
        for place in self._places:
            theirs = place.route.path.split("/")
            # Under a prefix, or at the root: each path is there twice.
            if place.prefix != prefix or len(theirs) > len(segments) + 1:
                continue
            # What stands for a parameter in the request is as good as any other value.
            same = zip(theirs, [*segments, ""], strict=False)
            spelling = "/".join(own if "{" in name and own else name for name, own in same)
            alike.setdefault(spelling, {}).setdefault(place.route.path, set()).update(place.methods)
        close = difflib.get_close_matches(path, alike, n=1, cutoff=0.7)
        if not close:
            return None
        name, methods = next(iter(alike[close[0]].items()))
        return f"{method if method in methods else ', '.join(sorted(methods))} {name}"


class _Dispatch(BaseRoute):
    """Hands every request to the route that was found for it."""

    def __init__(self, table: RouteTable) -> None:
        self._table = table

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match = match_of(scope)
        known = match.route is not None or scope["type"] == "http"
        return (Match.FULL if known else Match.NONE), match.found

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (route := match_of(scope).route) is None:
            raise self._table.refusal(scope)
        await route.handle(scope, receive, send)


def placed(route: BaseRoute, prefix: str, *, shown: bool) -> BaseRoute:
    """A route under a prefix.

    Args:
        shown: whether the description of the API has it.

    Raises:
        TypeError: it is of a class that cannot be moved.
    """
    if not isinstance(route, Route | WebSocketRoute | Mount):
        raise TypeError(f"A {type(route).__name__} cannot be put under a prefix. Declare its routes one by one.")
    there = copy(route)
    there.path = prefix + route.path
    pattern = f"{there.path}/{{path:path}}" if isinstance(there, Mount) else there.path
    there.path_regex, path_format, there.param_convertors = compile_path(pattern)
    if isinstance(there, Route):
        there.path_format = path_format
        there.include_in_schema = shown and there.include_in_schema
    if isinstance(there, APIRoute):
        there.unique_id = there.operation_id or generate_unique_id(there)
    return there


def path_of(scope: Scope) -> str:
    """The path as routes see it, without the prefix that a proxy in front may have added."""
    return scope["path"].removeprefix(scope.get("root_path", "")) or "/"


def _spellings(path: str) -> Iterator[str]:
    """A path as it is, without doubled slashes, and with the other ending."""
    yield path
    single = SLASHES.sub("/", path)
    if single != path:
        yield single
    if single != "/":
        yield single[:-1] if single.endswith("/") else f"{single}/"


def _found(place: Place, path: str, values: dict[str, str]) -> RouteMatch:
    converted = {name: place.route.param_convertors[name].convert(value) for name, value in values.items()}
    found = {"endpoint": place.route.endpoint, "path_params": converted, "route": place.route}
    return RouteMatch(place.protocol, _within(place.protocol, path), place.policy, place.route, found)


def _within(protocol: Protocol, path: str) -> str:
    """What a path is called in its protocol."""
    return path.removeprefix(protocol.prefix) if path.startswith(f"{protocol.prefix}/") else path


def _first_segment(path: str) -> str:
    segment = path[1:].partition("/")[0]
    return "" if "{" in segment else segment


def _leading(path: str) -> Iterator[str]:
    """The beginnings of a path that end with a segment, up to the first parameter: /v1, /v1/chat."""
    beginning = ""
    for segment in path.split("/")[1:10]:
        if "{" in segment or not segment:
            return
        beginning += f"/{segment}"
        yield beginning
