"""Fetches images and videos by URL without becoming a door into the network that the server stands in.

The guard sits where connections are made: a name is resolved once, every address that it stands for is checked,
and the connection goes to an address that was checked. What a redirect or a second look-up says later is checked
the same way, because it passes the same door.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any, cast

import httpcore
import httpx

from vision_model_repo.errors import InvalidInput

MAX_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
# Python counts parts of it as global, depending on its version.
_PROTOCOL_ASSIGNMENTS = IPv4Network("192.0.0.0/24")


class Downloader:
    """Downloads files over HTTP and HTTPS, over one bounded pool of connections.

    Proxies named in the environment are not used: the guard could not see through them.

    Args:
        allow_private: also connect to addresses that are not on the public internet.
        timeout_seconds: for one download, from the look-up of the name to the last byte, redirects included.
        max_bytes: most bytes of a download.
        max_connections: most connections at once; further downloads wait for one within their time.
    """

    def __init__(
        self, *, allow_private: bool, timeout_seconds: float, max_bytes: int, max_connections: int = 16
    ) -> None:
        self._timeout_seconds = timeout_seconds
        self._max_bytes = max_bytes
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=httpx.create_ssl_context(),
            max_connections=max_connections,
            keepalive_expiry=15.0,
            network_backend=GuardedBackend(allow_private=allow_private),
        )

    async def get(
        self,
        url: str,
        headers: Mapping[str, str] | None = None,
        *,
        max_bytes: int | None = None,
        timeout_seconds: float | None = None,
    ) -> bytes:
        """The body of a URL.

        Args:
            url: http or https, without a user name or password.
            headers: sent along, but not to another host that the URL redirects to.
            max_bytes, timeout_seconds: for this download, in place of the downloader's own.

        Raises:
            InvalidInput: the URL is not acceptable, or there is no such download within the limits.
        """
        seconds = timeout_seconds or self._timeout_seconds
        try:
            async with asyncio.timeout(seconds):
                return await self._follow(_parse(url), dict(headers or {}), max_bytes or self._max_bytes)
        except TimeoutError:
            raise InvalidInput(f"The URL was not downloaded within {seconds:g} seconds.") from None

    async def aclose(self) -> None:
        """Closes all connections."""
        await self._pool.aclose()

    async def _follow(self, url: httpx.URL, headers: dict[str, str], max_bytes: int) -> bytes:
        for _ in range(MAX_REDIRECTS + 1):
            answer = await self._request(url, headers, max_bytes)
            if isinstance(answer, bytes):
                return answer
            if _origin(answer) != _origin(url):
                headers = {}
            url = answer
        raise InvalidInput(f"The URL redirects more than {MAX_REDIRECTS} times.")

    async def _request(self, url: httpx.URL, headers: dict[str, str], max_bytes: int) -> bytes | httpx.URL:
        """The body, or where the answer redirects to."""
        target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        # Compressed bodies are declined: their size says nothing about what they unpack to.
        sent = {"Accept": "image/*, */*;q=0.5", "Accept-Encoding": "identity", "User-Agent": "vision-model-repo"}
        try:
            async with self._pool.stream("GET", target, headers=list((sent | headers).items())) as response:
                return await self._read(url, response, max_bytes)
        except httpcore.ConnectError as error:
            raise InvalidInput(_why_unreachable(error)) from None
        except httpcore.UnsupportedProtocol:
            raise InvalidInput("Only http and https URLs are accepted.") from None
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException):
            raise InvalidInput("The URL's server broke off the connection or does not speak HTTP.") from None

    async def _read(self, url: httpx.URL, response: httpcore.Response, max_bytes: int) -> bytes | httpx.URL:
        fields = httpx.Headers(response.headers)
        if response.status in _REDIRECTS and "location" in fields:
            return _parse(fields["location"], base=url)
        if response.status != 200:
            raise InvalidInput(f"The URL answered with status {response.status}.")
        if fields.get("content-encoding", "identity") != "identity":
            raise InvalidInput("The URL answered with a compressed body, which is not accepted.")
        length = fields.get("content-length", "")
        if length.isdecimal() and int(length) > max_bytes:
            raise _too_large(max_bytes)
        body = bytearray()
        async for chunk in response.aiter_stream():
            body += chunk
            if len(body) > max_bytes:
                raise _too_large(max_bytes)
        return bytes(body)


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """Opens connections to the public internet only.

    Args:
        allow_private: open them to any address.
    """

    def __init__(self, *, allow_private: bool) -> None:
        self._allow_private = allow_private
        # The cast is for type checkers: httpcore has a stand-in class for where anyio is missing.
        self._backend = cast(httpcore.AsyncNetworkBackend, httpcore.AnyIOBackend())

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connects to one of the addresses of a host.

        Raises:
            InvalidInput: one of them is not public. (With one good and one bad address, a name is up to something.)
            httpcore.ConnectError: no such host, or none of its addresses answers.
        """
        addresses = await resolve(host, port)
        if not self._allow_private and not all(is_public(address) for address in addresses):
            raise InvalidInput("The URL points to an address that is not public; set ALLOW_PRIVATE_URLS to allow it.")
        failure: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in addresses:
            try:
                return _Stream(await self._backend.connect_tcp(address, port, timeout, local_address, socket_options))
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    async def sleep(self, seconds: float) -> None:
        await self._backend.sleep(seconds)


class _Stream(httpcore.AsyncNetworkStream):
    """A connection that is closed when its TLS handshake is cancelled.

    httpcore closes it on errors only. A server that never answers the handshake would leave a socket behind with
    every download.
    """

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return await self._stream.read(max_bytes, timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        try:
            return await self._stream.start_tls(ssl_context, server_hostname, timeout)
        except BaseException:
            await self.aclose()
            raise

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


async def resolve(host: str, port: int) -> list[str]:
    """The addresses of a host, each once, in the order of preference.

    Raises:
        httpcore.ConnectError: the host has none.
    """
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise httpcore.ConnectError("no such host") from error
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


def is_public(address: str) -> bool:
    """Whether an IP address belongs to a host on the public internet."""
    try:
        ip = ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, IPv6Address):
        # An IPv4 address in IPv6 clothing leads where the IPv4 address leads.
        inner = _embedded(ip)
        return is_public(str(inner)) if inner else ip in _GLOBAL_UNICAST and ip.is_global
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip in _PROTOCOL_ASSIGNMENTS)


def _embedded(ip: IPv6Address) -> IPv4Address | None:
    """The IPv4 address inside an IPv4-mapped, NAT64, 6to4 or Teredo one."""
    if ip in _NAT64:
        return IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)


def _parse(text: str, *, base: httpx.URL | None = None) -> httpx.URL:
    try:
        url = base.join(text) if base else httpx.URL(text)
        # The host is decoded when it is read, and may be no name at all: "xn--".
        host = url.host
    except (httpx.InvalidURL, ValueError, TypeError):
        raise InvalidInput("The URL is malformed.") from None
    if url.scheme not in ("http", "https"):
        raise InvalidInput("Only http and https URLs are accepted.")
    if url.userinfo:
        raise InvalidInput("URLs with a user name or password are not accepted.")
    if not host:
        raise InvalidInput("The URL names no host.")
    if url.port is not None and not 0 < url.port < 65536:
        raise InvalidInput("The URL's port is not between 1 and 65535.")
    return url


def _too_large(max_bytes: int) -> InvalidInput:
    return InvalidInput(f"The URL holds more than {max_bytes} bytes.")


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _why_unreachable(error: Exception) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return "The certificate of the URL's server is not valid."
        if isinstance(cause, socket.gaierror):
            return "The URL's host name could not be resolved."
        cause = cause.__cause__ or cause.__context__
    return "The URL's server could not be reached."
