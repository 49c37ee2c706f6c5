"""Which web pages may use this server: a browser sends their requests from inside the user's own network.

A page of another site may send requests to a server on the user's machine. CORS only keeps it from reading the
answer, and a form-typed body is sent without asking first. DNS rebinding gives such a page even the server's own
origin, under a host name of its author. So requests of other origins are refused where they work or change something,
and requests for host names that are not this server's are refused altogether. Programs send no Origin.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from fnmatch import fnmatchcase
from ipaddress import ip_address

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from vision_model_repo.api.routing import match_of
from vision_model_repo.errors import InvalidInput, NotAllowed

EVERY = "*"
LOCALHOST = "localhost"
LOCAL_ORIGIN = re.compile(r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?")
HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:@/]*)(?::\d{0,5})?")
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
SHOWN_CHARACTERS = 100


def cors(app: ASGIApp, origins: Sequence[str], **options: object) -> CORSMiddleware:
    """CORS for the origins of CORS_ORIGINS, where `localhost` stands for every port of this machine."""
    return CORSMiddleware(
        app,
        allow_origins=[origin for origin in origins if origin != LOCALHOST],
        allow_origin_regex=LOCAL_ORIGIN.pattern if LOCALHOST in origins else None,
        **options,  # type: ignore[arg-type]
    )


class CrossSiteRequests:
    """Refuses requests that pages of other sites make, where they run a model or change something.

    Args:
        origins: those that may, as in CORS_ORIGINS.
    """

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        self.app = app
        self._origins = frozenset(origin.lower().rstrip("/") for origin in origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan" and EVERY not in self._origins and _acts(scope):
            headers = Headers(scope=scope)
            origin = headers.get("origin")
            if not self._allows(origin, headers):
                site = "another site" if origin is None else repr(origin[:SHOWN_CHARACTERS])
                raise NotAllowed(
                    f"A web page of {site} may not use this server. Name its origin in CORS_ORIGINS to let it, as in "
                    "CORS_ORIGINS=localhost,https://annotate.example."
                )
        await self.app(scope, receive, send)

    def _allows(self, origin: str | None, headers: Headers) -> bool:
        site = headers.get("sec-fetch-site", "")
        # Browsers let no page set this header. It is right behind a proxy that changes Host, too.
        if site in ("same-origin", "none"):
            return True
        if origin is None:
            return site != "cross-site"
        origin = origin.lower()
        if origin in self._origins or (LOCALHOST in self._origins and LOCAL_ORIGIN.fullmatch(origin)):
            return True
        host = headers.get("host", "").lower()
        return bool(host) and origin in (f"http://{host}", f"https://{host}")


class AllowedHosts:
    """Refuses requests for host names that are not this server's.

    Args:
        hosts: names besides localhost, addresses and the machine's own name; `*` stands for any part of a name.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str]) -> None:
        self.app = app
        machine = socket.gethostname().lower()
        short = machine.partition(".")[0]
        self._names = frozenset({"", LOCALHOST, machine, short, f"{short}.local"})
        self._patterns = tuple(host.lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            given = [value for name, value in scope["headers"] if name == b"host"]
            if len(given) > 1:
                raise InvalidInput("There are several Host headers. Send one.")
            name = _name(given[0].decode("latin-1")) if given else ""
            if not self._allows(name):
                raise NotAllowed(
                    f"This server does not answer for the host name {name[:SHOWN_CHARACTERS]!r}. Add it to "
                    "ALLOWED_HOSTS if it is a name of this server."
                )
        await self.app(scope, receive, send)

    def _allows(self, name: str) -> bool:
        if name in self._names or name.endswith(f".{LOCALHOST}") or EVERY in self._patterns:
            return True
        return _is_address(name) or any(fnmatchcase(name, pattern) for pattern in self._patterns)


def _acts(scope: Scope) -> bool:
    """Whether a request runs a model or may change something."""
    return scope["type"] == "websocket" or match_of(scope).policy.work or scope["method"] not in SAFE_METHODS


def _name(host: str) -> str:
    """The name or address of a Host header, without its port and in small letters."""
    parts = HOST.fullmatch(host)
    return parts[1].strip("[]").removesuffix(".").lower() if parts else host


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
