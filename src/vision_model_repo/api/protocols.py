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
from starlette.responses import Response
from starlette.types import Scope

from vision_model_repo.api.errors import Refusal
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
    """

    name: str
    title: str
    router: Callable[[Catalog], APIRouter]
    write_error: Callable[[Refusal, Scope, str], Response]
    open_paths: frozenset[str] = frozenset()
    work_paths: tuple[str, ...] = ()
    work_endings: tuple[str, ...] = ()

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
        self._routers: list[tuple[Protocol, APIRouter]] = []
        # Asked several times for every request, mostly about the same few paths.
        self._owner = lru_cache(PATHS_REMEMBERED)(self._find_owner)

    @property
    def root(self) -> Protocol:
        return self.protocols[0]

    def install(self, app: FastAPI, catalog: Catalog) -> None:
        """Mounts every protocol; the description of the API has each path once."""
        self._routers = [(protocol, protocol.router(catalog)) for protocol in self.protocols]
        # The first route that fits a request answers it, so the order settles what collides.
        for protocol, router in self._routers:
            app.include_router(router, include_in_schema=protocol is self.root)
        for protocol, router in self._routers:
            app.include_router(router, prefix=protocol.prefix, include_in_schema=protocol is not self.root)

    def find(self, scope: Scope) -> tuple[Protocol, str]:
        """Who answers a request, and what its path is called there."""
        path = path_of(scope)
        for protocol in self.protocols:
            if path.startswith(f"{protocol.prefix}/"):
                return protocol, path.removeprefix(protocol.prefix)
        return self._owner(scope["method"], path), path

    def _find_owner(self, method: str, path: str) -> Protocol:
        """To whom a path at the root belongs: the first that has it with this method, or at all, or else the root."""
        scope = {"type": "http", "method": method, "path": path, "root_path": ""}
        fits = [max(route.matches(scope)[0].value for route in router.routes) for _, router in self._routers]
        return self.protocols[fits.index(max(fits))] if fits else self.root

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

    def write_error(self, refusal: Refusal, scope: Scope) -> Response:
        """A refusal in the words of the protocol that was spoken to."""
        protocol, path = self.find(scope)
        return protocol.write_error(refusal, scope, path)


def path_of(scope: Scope) -> str:
    """The path as routes see it, without the prefix that a proxy in front may have added."""
    return scope["path"].removeprefix(scope.get("root_path", ""))
