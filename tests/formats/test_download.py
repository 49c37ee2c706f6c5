from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpcore
import pytest
import pytest_asyncio

from vision_model_repo.errors import InvalidInput
from vision_model_repo.formats import download
from vision_model_repo.formats.download import Downloader, is_public, resolve

LIMIT = 10_000
PUBLIC = ("127.0.0.1", "127.0.0.3")
Handler = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


class Site:
    """A web server that answers every request with the bytes it is told to, and keeps what it was asked."""

    def __init__(self, answers: dict[str, bytes | Handler]) -> None:
        self.answers = answers
        self.requests: list[str] = []
        self.port = 0
        self.connections = 0
        self.open = 0

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        try:
            while request := await reader.readuntil(b"\r\n\r\n"):
                self.requests.append(request.decode())
                answer = self.answers[request.split()[1].decode()]
                if isinstance(answer, bytes):
                    writer.write(answer)
                    await writer.drain()
                else:
                    await answer(request, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open -= 1
            writer.close()


@asynccontextmanager
async def site(
    answers: dict[str, bytes | Handler], host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> AsyncIterator[Site]:
    it = Site(answers)
    server = await asyncio.start_server(it.serve, host, 0, ssl=tls)
    it.port = server.sockets[0].getsockname()[1]
    try:
        yield it
    finally:
        server.close()


@asynccontextmanager
async def downloader(*, allow_private: bool = True, timeout: float = 5.0, connections: int = 4):
    it = Downloader(allow_private=allow_private, timeout_seconds=timeout, max_bytes=LIMIT, max_connections=connections)
    try:
        yield it
    finally:
        await it.aclose()


@pytest_asyncio.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as it:
        yield it


def ok(body: bytes, *fields: str) -> bytes:
    lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", *fields, "", ""]
    return "\r\n".join(lines).encode() + body


def moved(location: str, status: int = 302) -> bytes:
    return f"HTTP/1.1 {status} Moved\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()


async def refusal(it: Downloader, url: str) -> str:
    with pytest.raises(InvalidInput) as caught:
        await it.get(url)
    return caught.value.message


class TestAddresses:
    @pytest.mark.parametrize("address", ["1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "64:ff9b::101:101"])
    def test_public(self, address: str) -> None:
        assert is_public(address)

    @pytest.mark.parametrize(
        "address",
        [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "192.0.0.8",
            "198.18.0.1",
            "203.0.113.9",
            "224.0.0.1",
            "239.255.255.250",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:0:127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2001:0:4136:e378:8000:63bf:80ff:fffe",
            "2001:db8::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fe80::1%2",
            "fec0::1",
            "ff02::1",
            "100::1",
            "localhost",
            "",
        ],
    )
    def test_not_public(self, address: str) -> None:
        assert not is_public(address)


class TestRefusedBeforeAnyConnection:
    @pytest.mark.parametrize(
        ("url", "reason"),
        [
            ("file:///etc/passwd", "http and https"),
            ("ftp://example.com/a.jpg", "http and https"),
            ("example.com/a.jpg", "http and https"),
            ("", "http and https"),
            ("http://", "no host"),
            ("http:///a.jpg", "no host"),
            ("http://user:secret@example.com/", "user name"),
            ("http://user@example.com/", "user name"),
            ("http://example.com:99999/", "port"),
            ("http://example.com:0/", "port"),
            ("http://example.com:abc/", "malformed"),
            ("http://[::1/", "malformed"),
            ("http://xn--/", "malformed"),
            ("http://exa\nmple.com/", "malformed"),
            ("http://a/" + "a" * 100_000, "malformed"),
            ("http://no-such-host.invalid/", "could not be resolved"),
            ("http://" + "a" * 64 + ".com/", "could not be"),
        ],
    )
    async def test_urls_that_make_no_sense(self, stack: AsyncExitStack, url: str, reason: str) -> None:
        assert reason in await refusal(await stack.enter_async_context(downloader(allow_private=False)), url)

    @pytest.mark.parametrize(
        "host",
        ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "0", "2130706433", "0x7f.1", "127.1"],
    )
    async def test_every_spelling_of_this_machine(self, stack: AsyncExitStack, host: str) -> None:
        home = await stack.enter_async_context(site({"/": ok(b"secret")}))
        it = await stack.enter_async_context(downloader(allow_private=False))
        assert "not public" in await refusal(it, home.url(host=host))
        assert not home.connections

    @pytest.mark.parametrize("host", ["169.254.169.254", "10.0.0.1", "192.168.0.1", "[fe80::1]", "[fd00::1]"])
    async def test_private_addresses(self, stack: AsyncExitStack, host: str) -> None:
        it = await stack.enter_async_context(downloader(allow_private=False))
        message = await refusal(it, f"http://{host}/latest/meta-data")
        assert "not public" in message and host.strip("[]") not in message


class TestTheGuard:
    """Names that do not exist, and this machine's loopback addresses as if some of them were public."""

    @pytest.fixture(autouse=True)
    def world(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[list[str]]]:
        self.names: dict[str, list[list[str]]] = {}
        self.asked: list[str] = []

        async def look_up(host: str, port: int) -> list[str]:
            self.asked.append(host)
            answers = self.names.get(host)
            if answers is None:
                return await resolve(host, port)
            return answers.pop(0) if len(answers) > 1 else answers[0]

        monkeypatch.setattr(download, "resolve", look_up)
        monkeypatch.setattr(download, "is_public", lambda address: address in PUBLIC or is_public(address))
        return self.names

    async def test_connects_by_name_and_sends_the_name(self, stack: AsyncExitStack) -> None:
        public = await stack.enter_async_context(site({"/a?b=c": ok(b"image")}))
        it = await stack.enter_async_context(downloader(allow_private=False))
        self.names["pictures.example"] = [["127.0.0.1"]]
        assert await it.get(public.url("/a?b=c", "pictures.example")) == b"image"
        assert f"Host: pictures.example:{public.port}\r\n" in public.requests[0]

    async def test_a_name_that_stands_for_a_private_address(self, stack: AsyncExitStack) -> None:
        it = await stack.enter_async_context(downloader(allow_private=False))
        self.names["inside.example"] = [["10.0.0.5"]]
        message = await refusal(it, "http://inside.example/")
        assert "not public" in message and "10.0.0.5" not in message

    async def test_one_private_address_among_public_ones_is_enough(self, stack: AsyncExitStack) -> None:
        public = await stack.enter_async_context(site({"/": ok(b"image")}))
        it = await stack.enter_async_context(downloader(allow_private=False))
        self.names["mixed.example"] = [["127.0.0.1", "127.0.0.2"]]
        assert "not public" in await refusal(it, public.url(host="mixed.example"))
        assert not public.connections

    async def test_a_name_is_looked_up_once_and_a_second_answer_changes_nothing(self, stack: AsyncExitStack) -> None:
        public = await stack.enter_async_context(site({"/": ok(b"image")}))
        it = await stack.enter_async_context(downloader(allow_private=False))
        self.names["rebinding.example"] = [["127.0.0.1"], ["127.0.0.2"]]
        assert await it.get(public.url(host="rebinding.example")) == b"image"
        assert self.asked == ["rebinding.example"]

    async def test_the_next_address_is_tried_when_one_does_not_answer(self, stack: AsyncExitStack) -> None:
        public = await stack.enter_async_context(site({"/": ok(b"image")}))
        it = await stack.enter_async_context(downloader(allow_private=False))
        self.names["two.example"] = [["127.0.0.3", "127.0.0.1"]]
        assert await it.get(public.url(host="two.example")) == b"image"

    async def test_a_redirect_to_a_private_address(self, stack: AsyncExitStack) -> None:
        private = await stack.enter_async_context(site({"/": ok(b"secret")}, host="127.0.0.2"))
        answers = {f"/{status}": moved(private.url(host="127.0.0.2"), status) for status in (301, 302, 303, 307, 308)}
        public = await stack.enter_async_context(site(dict(answers)))
        it = await stack.enter_async_context(downloader(allow_private=False))
        for path in answers:
            assert "not public" in await refusal(it, public.url(path))
        assert not private.connections

    async def test_a_redirect_to_another_scheme(self, stack: AsyncExitStack) -> None:
        public = await stack.enter_async_context(
            site({"/file": moved("file:///etc/passwd"), "/user": moved("http://user:secret@example.com/")})
        )
        it = await stack.enter_async_context(downloader(allow_private=False))
        assert "http and https" in await refusal(it, public.url("/file"))
        assert "user name" in await refusal(it, public.url("/user"))

    @pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")
    async def test_certificates_are_checked_against_the_name(
        self, stack: AsyncExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        certificate, key = self_signed("pictures.example", tmp_path)
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(certificate, key)
        public = await stack.enter_async_context(site({"/": ok(b"image")}, tls=tls))
        self.names |= {"pictures.example": [["127.0.0.1"]], "other.example": [["127.0.0.1"]]}
        named, other = (f"https://{host}:{public.port}/" for host in ("pictures.example", "other.example"))
        wary = await stack.enter_async_context(downloader(allow_private=False))
        assert "certificate" in await refusal(wary, named)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        trusting = await stack.enter_async_context(downloader(allow_private=False))
        assert await trusting.get(named) == b"image"
        assert "certificate" in await refusal(trusting, other)


def self_signed(name: str, folder: Path) -> tuple[Path, Path]:
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    command += f" -subj /CN={name} -addext subjectAltName=DNS:{name} -out {certificate} -keyout {key}"
    subprocess.run(command.split(), check=True, capture_output=True)
    return certificate, key


class TestDownloads:
    async def test_body_is_returned_and_the_connection_kept(self, stack: AsyncExitStack) -> None:
        there = await stack.enter_async_context(site({"/": ok(b"\x00\xffimage")}))
        it = await stack.enter_async_context(downloader())
        for _ in range(3):
            assert await it.get(there.url()) == b"\x00\xffimage"
        assert there.connections == 1

    async def test_chunked_body(self, stack: AsyncExitStack) -> None:
        chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        there = await stack.enter_async_context(site({"/": chunked}))
        assert await (await stack.enter_async_context(downloader())).get(there.url()) == b"abcde"

    async def test_headers_are_sent_but_not_to_another_host(self, stack: AsyncExitStack) -> None:
        other = await stack.enter_async_context(site({"/": ok(b"image")}))
        there = await stack.enter_async_context(site({"/": moved("/b"), "/b": moved(other.url())}))
        it = await stack.enter_async_context(downloader())
        assert await it.get(there.url(), {"Authorization": "Bearer secret"}) == b"image"
        assert ["secret" in request for request in there.requests + other.requests] == [True, True, False]

    async def test_relative_redirects_up_to_five(self, stack: AsyncExitStack) -> None:
        answers: dict[str, bytes | Handler] = {f"/{n}": moved(f"{n + 1}") for n in range(6)}
        there = await stack.enter_async_context(site({**answers, "/6": ok(b"image")}))
        it = await stack.enter_async_context(downloader())
        assert await it.get(there.url("/1")) == b"image"
        assert "more than 5 times" in await refusal(it, there.url("/0"))

    async def test_proxies_of_the_environment_are_not_used(
        self, stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        proxy = await stack.enter_async_context(site({}))
        there = await stack.enter_async_context(site({"/": ok(b"image")}))
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url())
        assert await (await stack.enter_async_context(downloader())).get(there.url()) == b"image"
        assert not proxy.connections

    async def test_a_hundred_downloads_share_a_few_connections(self, stack: AsyncExitStack) -> None:
        there = await stack.enter_async_context(site({"/": ok(b"image")}))
        it = await stack.enter_async_context(downloader(connections=3))
        assert set(await asyncio.gather(*(it.get(there.url()) for _ in range(100)))) == {b"image"}
        assert there.connections <= 3


class TestLimits:
    @pytest.mark.parametrize("status", ["404 Not Found", "500 Oops", "304 Not Modified", "204 No Content", "302 Lost"])
    async def test_any_status_but_200(self, stack: AsyncExitStack, status: str) -> None:
        there = await stack.enter_async_context(site({"/": f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode()}))
        it = await stack.enter_async_context(downloader())
        assert f"status {status[:3]}" in await refusal(it, there.url())

    async def test_a_body_that_says_it_is_too_large_is_not_read(self, stack: AsyncExitStack) -> None:
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {LIMIT + 1}\r\n\r\n".encode()
        there = await stack.enter_async_context(site({"/": head}))
        it = await stack.enter_async_context(downloader())
        assert f"more than {LIMIT} bytes" in await refusal(it, there.url())

    async def test_the_limit_is_inclusive(self, stack: AsyncExitStack) -> None:
        there = await stack.enter_async_context(site({"/": ok(b"x" * LIMIT)}))
        assert len(await (await stack.enter_async_context(downloader())).get(there.url())) == LIMIT

    async def test_one_download_may_have_limits_of_its_own(self, stack: AsyncExitStack) -> None:
        there = await stack.enter_async_context(site({"/": ok(b"x" * (LIMIT + 1))}))
        it = await stack.enter_async_context(downloader())
        assert len(await it.get(there.url(), max_bytes=2 * LIMIT)) == LIMIT + 1
        with pytest.raises(InvalidInput, match="more than 100 bytes"):
            await it.get(there.url(), max_bytes=100)
        with pytest.raises(InvalidInput, match=r"not downloaded within 1e-05 seconds"):
            await it.get(there.url(), timeout_seconds=1e-5)

    async def test_a_body_without_end(self, stack: AsyncExitStack) -> None:
        written = 0

        async def endless(request: bytes, writer: asyncio.StreamWriter) -> None:
            nonlocal written
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            while not writer.is_closing():
                writer.write(b"x" * 4096)
                written += 4096
                await writer.drain()

        there = await stack.enter_async_context(site({"/": endless}))
        it = await stack.enter_async_context(downloader())
        assert f"more than {LIMIT} bytes" in await refusal(it, there.url())
        await asyncio.sleep(0.1)
        assert written < 30_000_000

    @pytest.mark.parametrize("kind", ["silent", "dripping head", "dripping body", "redirecting slowly"])
    async def test_slow_answers_end_in_time(self, stack: AsyncExitStack, kind: str) -> None:
        async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
            if kind == "redirecting slowly":
                await asyncio.sleep(0.2)
                writer.write(moved("/"))
                return
            parts = {"silent": b"", "dripping head": b"HTTP/1.1 200 OK\r\nX: "}
            writer.write(parts.get(kind, b"HTTP/1.1 200 OK\r\n\r\n"))
            while not writer.is_closing():
                if kind != "silent":
                    writer.write(b"x")
                await asyncio.sleep(0.05)

        there = await stack.enter_async_context(site({"/": answer}))
        it = await stack.enter_async_context(downloader(timeout=0.5))
        start = time.monotonic()
        assert "within 0.5 seconds" in await refusal(it, there.url())
        assert time.monotonic() - start < 2

    @pytest.mark.parametrize(
        "answer",
        [
            b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
            b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000 + b"\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"HTTP/1.1 302 Found\r\nLocation: http://[\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 302 Found\r\nLocation: \xff\xfe\r\nContent-Length: 0\r\n\r\n",
            b"",
        ],
        ids=["not http", "short", "negative", "astronomic", "huge head", "bad chunk", "bad place", "odd place", "gone"],
    )
    async def test_broken_answers(self, stack: AsyncExitStack, answer: bytes) -> None:
        async def once(request: bytes, writer: asyncio.StreamWriter) -> None:
            writer.write(answer)
            await writer.drain()
            raise ConnectionError

        there = await stack.enter_async_context(site({"/": once}))
        assert await refusal(await stack.enter_async_context(downloader()), there.url())

    async def test_compressed_bodies_are_declined(self, stack: AsyncExitStack) -> None:
        there = await stack.enter_async_context(site({"/": ok(b"....", "Content-Encoding: gzip")}))
        it = await stack.enter_async_context(downloader())
        assert "compressed" in await refusal(it, there.url())
        assert "Accept-Encoding: identity" in there.requests[0]

    async def test_nobody_listens(self, stack: AsyncExitStack) -> None:
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            it = await stack.enter_async_context(downloader())
            assert "could not be reached" in await refusal(it, f"http://127.0.0.1:{bound.getsockname()[1]}/")

    async def test_no_tls_where_https_is_asked(self, stack: AsyncExitStack) -> None:
        """The server waits for a request that never comes: the time runs out within the handshake."""
        there = await stack.enter_async_context(site({"/": ok(b"image")}))
        it = await stack.enter_async_context(downloader(timeout=0.3))
        assert "within 0.3 seconds" in await refusal(it, there.url().replace("http:", "https:"))
        await asyncio.sleep(0.05)
        assert not there.open

    async def test_downloads_go_on_after_every_kind_of_failure(self, stack: AsyncExitStack) -> None:
        async def silent(request: bytes, writer: asyncio.StreamWriter) -> None:
            await asyncio.sleep(1)

        there = await stack.enter_async_context(
            site({"/": ok(b"image"), "/silent": silent, "/big": ok(b"x" * (LIMIT + 1)), "/bad": b"nonsense\r\n\r\n"})
        )
        it = await stack.enter_async_context(downloader(timeout=0.3, connections=1))
        for path in ("/silent", "/big", "/bad"):
            await refusal(it, there.url(path))
            assert await it.get(there.url()) == b"image"


async def test_an_unknown_host_is_a_connect_error() -> None:
    with pytest.raises(httpcore.ConnectError):
        await resolve("no-such-host.invalid", 80)
