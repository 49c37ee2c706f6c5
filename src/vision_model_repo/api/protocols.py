"""Protocols and their places: each under its prefix, one of them at the root.

    /native/...  /pixano/...   every protocol, always
    /...                       the protocol that settings put there, and of the others what collides with nothing

A path that two protocols claim at the root belongs to the one that settings put there, then to the earlier one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.responses import Response
from starlette.types import Scope

from vision_model_repo.api.errors import Refusal
from vision_model_repo.api.routing import RouteIndex, path_of, placed
from vision_model_repo.models.catalog import Catalog

PATHS_REMEMBERED = 1024


@dataclass(frozen=True, slots=True)
class Protocol:
    """One way to talk to the engine.

    Attributes:
        name: also its prefix.
        title: for people.
        router: makes its routes for the models of a catalog; paths are those that its clients know.
        write_error: how it tells that a request was refused, from the request's path in the protocol.
        open_paths: those that need no key and count for no limit.
        work_paths: beginnings of those where a POST asks for inference, or brings what is to be kept.
        work_endings: ends of those where a GET asks for inference.
        video_paths: those where a form may bring a video file.
    """

    name: str
    title: str
    router: Callable[[Catalog], APIRouter]
    write_error: Callable[[Refusal, Scope, str], Response]
    open_paths: frozenset[str] = frozenset()
    work_paths: tuple[str, ...] = ()
    work_endings: tuple[str, ...] = ()
    video_paths: frozenset[str] = frozenset()

    @property
    def prefix(self) -> str:
        return f"/{self.name}"


class Protocols:
    """All protocols of a server.

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
        self._routes: list[tuple[Protocol, APIRoute]] = []
        self._index = RouteIndex(())
        # Asked several times for every request, mostly about the same few paths.
        self._owner = lru_cache(PATHS_REMEMBERED)(self._find_owner)

    @property
    def root(self) -> Protocol:
        return self.protocols[0]

    def install(self, app: FastAPI, catalog: Catalog) -> None:
        """Mounts every protocol; the description of the API has each path once."""
        routers = [(protocol, protocol.router(catalog)) for protocol in self.protocols]
        at_root = [(protocol, placed(router, "", shown=protocol is self.root)) for protocol, router in routers]
        under_prefix = [
            (protocol, placed(router, protocol.prefix, shown=protocol is not self.root)) for protocol, router in routers
        ]
        # The first route that fits a request answers it, so the order settles what collides.
        self._routes = [(protocol, route) for protocol, routes in (*at_root, *under_prefix) for route in routes]
        routes = [route for _, route in self._routes]
        self._index = RouteIndex(routes)
        # The routes themselves stay for the description of the API.
        app.router.routes += [self._index, *routes]

    def find(self, scope: Scope) -> tuple[Protocol, str]:
        """Who answers a request, and what its path is called there."""
        path = path_of(scope)
        for protocol in self.protocols:
            if path.startswith(f"{protocol.prefix}/"):
                return protocol, path.removeprefix(protocol.prefix)
        return self._owner(scope["method"], path), path

    def _find_owner(self, method: str, path: str) -> Protocol:
        """To whom a path at the root belongs: the first that has it with this method, or at all, or else the root."""
        _, found = self._index.matches({"type": "http", "method": method, "path": path})
        return next((protocol for protocol, route in self._routes if route is found.get("route")), self.root)

    def is_open(self, scope: Scope) -> bool:
        """Whether a request needs no key and counts for no limit."""
        protocol, path = self.find(scope)
        return path in protocol.open_paths

    def is_work(self, scope: Scope) -> bool:
        """Whether a request asks for inference, now or as a job, or brings an image or a video to keep."""
        protocol, path = self.find(scope)
        if scope["method"] == "GET":
            return path.endswith(protocol.work_endings)
        return scope["method"] == "POST" and path.startswith(protocol.work_paths)

    def takes_video(self, scope: Scope) -> bool:
        """Whether a form may bring a video file, which may be larger than any other body."""
        protocol, path = self.find(scope)
        return path in protocol.video_paths

    def write_error(self, refusal: Refusal, scope: Scope) -> Response:
        """A refusal in the words of the protocol that was spoken to."""
        protocol, path = self.find(scope)
        return protocol.write_error(refusal, scope, path)
