"""What happens around every request, as plain ASGI: route, log, errors, keys, rates, body size, work.

Each class wraps the next one. `server.create_app` puts them in order; the outermost comes first:
route > log > CORS > errors > keys > rate > body size > work > endpoint.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import math
import re
import time
from collections import OrderedDict
from collections.abc import Sequence
from urllib.parse import quote
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vision_model_repo.api.errors import TooManyRequests, Unauthorized, refusal_of
from vision_model_repo.api.protocols import Policy
from vision_model_repo.api.routing import MATCH, RouteTable, match_of
from vision_model_repo.api.work import address_of, cancelled_when_gone
from vision_model_repo.errors import RequestTimeout, TooLarge, as_exception

logger = logging.getLogger(__name__)

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
CLIENT_CLOSED = 499


class FindRoute:
    """Finds the route of a request, its protocol and its policy, once for all layers inside."""

    def __init__(self, app: ASGIApp, routes: RouteTable) -> None:
        self.app = app
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            scope[MATCH] = self._routes.match(scope)
        await self.app(scope, receive, send)


class RequestLog:
    """Gives every request an id and logs one line for it: no query string, header or body."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        started = time.perf_counter()
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if REQUEST_ID.fullmatch(given) else uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        status = CLIENT_CLOSED

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        finally:
            milliseconds = (time.perf_counter() - started) * 1000
            logger.info("%s %s %d %.1f ms %s", scope["method"], quote(scope["path"]), status, milliseconds, request_id)


class Errors:
    """Answers what no route has caught: errors of the middleware inside, and our own faults."""

    def __init__(self, app: ASGIApp, routes: RouteTable) -> None:
        self.app = app
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        answering = False

        async def watched_send(message: Message) -> None:
            nonlocal answering
            answering = True
            await send(message)

        try:
            await self.app(scope, receive, watched_send)
        except ClientDisconnect:
            return None
        except (asyncio.CancelledError, KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as error:
            # A panic of an extension written in Rust is no Exception.
            response = self._routes.write_error(refusal_of(as_exception(error)), scope)
            if not answering:
                await response(scope, receive, send)


class ApiKeys:
    """Lets only callers with a key in. Health and documentation stay open.

    Args:
        keys: what `Authorization: Bearer` or `X-API-Key` may carry.
    """

    def __init__(self, app: ASGIApp, keys: Sequence[str]) -> None:
        self.app = app
        # Digests have one length, so that comparing takes the same time for every guess.
        self._digests = [_digest(key) for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan" and not match_of(scope).policy.open:
            given = _digest(_credential(Headers(scope=scope)))
            # No early end: which key matched must not show in the time.
            if not sum(hmac.compare_digest(given, known) for known in self._digests):
                raise Unauthorized("Send a valid API key as Authorization: Bearer KEY or as X-API-Key: KEY.")
            scope.setdefault("state", {})["caller"] = given
        return await self.app(scope, receive, send)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _credential(headers: Headers) -> str:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")


class RateLimit:
    """A token bucket for every key, or for every address where there are no keys.

    Args:
        per_minute: requests that a caller may make in a minute, all at once or spread.
        callers: most callers remembered; the one that has been quiet for longest is forgotten.
    """

    def __init__(self, app: ASGIApp, per_minute: int, callers: int = 10_000) -> None:
        self.app = app
        self._capacity = float(per_minute)
        self._callers = callers
        self._buckets: OrderedDict[object, tuple[float, float]] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan" and not match_of(scope).policy.open:
            caller = scope.get("state", {}).get("caller") or address_of(scope)
            if wait := self._take(caller):
                raise TooManyRequests(f"Too many requests. Try again in {wait} s.", retry_after=wait)
        return await self.app(scope, receive, send)

    def _take(self, caller: object) -> int:
        """Takes a token; answers the seconds until there is one if there is none."""
        now = time.monotonic()
        tokens, since = self._buckets.pop(caller, (self._capacity, now))
        tokens = min(self._capacity, tokens + (now - since) * self._capacity / 60)
        allowed = tokens >= 1
        self._buckets[caller] = (tokens - 1 if allowed else tokens, now)
        if len(self._buckets) > self._callers:
            self._buckets.popitem(last=False)
        return 0 if allowed else math.ceil((1 - tokens) * 60 / self._capacity)


class BodyLimit:
    """Refuses bodies over a limit, by their declared length or as soon as they pass it, and slow ones.

    Args:
        max_mb: largest body in MB of a request that is work.
        max_video_mb: largest form where it may bring a video, which goes to disk, if that is more.
        max_control_kb: largest body in KB of every other request.
        seconds: time for the whole body to arrive.
        pause_seconds: longest time without a piece of it.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_mb: int,
        max_video_mb: int,
        max_control_kb: int,
        seconds: float,
        pause_seconds: float,
    ) -> None:
        self.app = app
        self._max_mb, self._max_video_mb = max_mb, max(max_mb, max_video_mb)
        self._max_control_kb = max_control_kb
        self._seconds, self._pause_seconds = seconds, pause_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Nobody reads the body of a request that no route answers.
        if scope["type"] != "http" or match_of(scope).route is None:
            return await self.app(scope, receive, send)
        headers = Headers(scope=scope)
        policy, is_form = match_of(scope).policy, _is_form(headers)
        most = self._limit(policy, is_form)
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length[:20]) > most:
            raise self._refusal(policy, is_form)
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._seconds
        read, whole = 0, False

        async def counted_receive() -> Message:
            nonlocal read, whole
            if whole:
                # This is the client hanging up, whenever it likes.
                return await receive()
            try:
                async with asyncio.timeout_at(min(deadline, clock() + self._pause_seconds)):
                    message = await receive()
            except TimeoutError:
                raise RequestTimeout(
                    f"The body did not arrive within {self._seconds:g} s, or paused for {self._pause_seconds:g} s."
                ) from None
            read += len(message.get("body", b""))
            if read > most:
                raise self._refusal(policy, is_form)
            whole = not message.get("more_body", False)
            return message

        return await self.app(scope, counted_receive, send)

    def _limit(self, policy: Policy, is_form: bool) -> int:
        """Most bytes of a body."""
        if not policy.work:
            return self._max_control_kb * 1024
        return (self._max_video_mb if policy.video and is_form else self._max_mb) * 2**20

    def _refusal(self, policy: Policy, is_form: bool) -> TooLarge:
        most = self._limit(policy, is_form)
        if not policy.work:
            return TooLarge(
                f"The body is larger than {most // 1024} KB. Requests to this path need no more; see "
                "MAX_CONTROL_BODY_KB."
            )
        advice = "Send fewer or smaller images."
        if policy.video:
            advice = "Send a shorter or smaller video."
            if most < self._max_video_mb * 2**20:
                advice = f"Send the video as a file in a form, which may have {self._max_video_mb} MB, or as a URL."
        return TooLarge(f"The body is larger than {most // 2**20} MB. {advice}")


def _is_form(headers: Headers) -> bool:
    return headers.get("content-type", "").lower().startswith("multipart/form-data")


class Work:
    """Takes a place for every request that is work, before its body is read, and cancels it when its client hangs
    up, which frees its place in every queue."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not match_of(scope).policy.work:
            return await self.app(scope, receive, send)
        body_read, gone = asyncio.Event(), asyncio.Event()

        async def receive_body() -> Message:
            if body_read.is_set():
                # The watcher has the channel now.
                await gone.wait()
                return {"type": "http.disconnect"}
            message = await receive()
            if message["type"] == "http.disconnect" or not message.get("more_body", False):
                body_read.set()
            return message

        async def watch() -> None:
            await body_read.wait()
            while (await receive())["type"] != "http.disconnect":
                pass
            gone.set()

        with scope["app"].state.engine.admission.enter(address_of(scope)):
            async with cancelled_when_gone(watch):
                return await self.app(scope, receive_body, send)
