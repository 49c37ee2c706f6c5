"""Bad input of every kind: a 4xx that names the field or image, and a server that stays well."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
import time
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from PIL import Image
from tokenizers.normalizers import Precompiled

from tests.api import stand_ins
from tests.api.conftest import IMAGE, Serve, b64, encoded, engine_of
from tests.hostile import bombs

DETECT = "/inference/detector"
SEGMENT = "/inference/seg-menter"
JSON = {"content-type": "application/json"}


@pytest.fixture
async def client(serve: Serve) -> AsyncIterator[httpx.AsyncClient]:
    """A client whose server must be well afterwards and answer a good request."""
    async with serve(url_timeout_seconds=0.5, max_url_mb=1, max_body_mb=4) as client:
        yield client
        assert (await client.get("/health")).json()["status"] == "healthy"
        assert engine_of(client).admission.inside == 0
        assert (await client.post(DETECT, json={"images": [IMAGE], "prompts": ["a"]})).status_code == 200


async def refused(client: httpx.AsyncClient, url: str, body: Any, statuses: set[int], *words: str) -> str:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = await client.post(url, content=content, headers=JSON)
    assert response.status_code in statuses, response.text
    assert all(word in response.text for word in words), response.text
    assert len(response.text) < 5000
    return response.text


def png_that_unpacks_to(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


NOISE = Image.effect_noise((64, 64), 50)
JPEG, NOISE_PNG = encoded(NOISE, "JPEG"), encoded(NOISE)


@pytest.mark.parametrize(
    "image",
    [
        "this is not base64!",
        "AAAA" * 10 + "=A",
        b64(b"only some text"),
        b64(JPEG[: len(JPEG) // 2]),
        b64(NOISE_PNG[: len(NOISE_PNG) // 2]),
        b64(png_that_unpacks_to(50_000, 50_000)),
        b64(b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
        "",
        "data:image/png;base64,",
        "data:text/html,hello",
        {"data": "", "format": "url"},
        {"data": IMAGE, "format": "url"},
        "file:///etc/passwd",
        {"data": "file:///etc/passwd", "format": "url"},
        "ftp://example.com/a.png",
        "http://127.0.0.1/a.png",
        "http://127.1:22/a.png",
        "http://localhost/a.png",
        "http://2130706433/a.png",
        "http://[::1]/a.png",
        "http://[::ffff:127.0.0.1]/a.png",
        "http://169.254.169.254/latest/meta-data/",
        "http://10.0.0.1/a.png",
        "http://0.0.0.0/a.png",
        "http://user:password@example.com/a.png",
        "http://",
        "http://exa mple.com/",
    ],
)
async def test_an_image_that_is_none_is_refused_by_its_index(client: httpx.AsyncClient, image: Any) -> None:
    await refused(client, DETECT, {"images": [IMAGE, image], "prompts": ["a"]}, {400}, "images[1]")
    await refused(client, "/jobs/submit/detector", {"images": [IMAGE, image], "prompts": ["a"]}, {400}, "images[1]")


@pytest.mark.parametrize(
    "image", [7, None, [IMAGE], {"data": 7}, {"url": "x"}, {"data": IMAGE, "format": "png"}, NotImplemented]
)
async def test_an_image_of_the_wrong_type_is_refused(client: httpx.AsyncClient, image: Any) -> None:
    value = "NaN" if image is NotImplemented else json.dumps(image)
    text = await refused(client, DETECT, f'{{"images": [{value}], "prompts": ["a"]}}'.encode(), {422}, '"images",0')
    assert IMAGE not in text


@pytest.mark.parametrize("images", [[], ["x"] * 10_000, None, "x", {}])
async def test_a_list_of_images_that_makes_no_sense_is_refused(client: httpx.AsyncClient, images: Any) -> None:
    await refused(client, DETECT, {"images": images, "prompts": ["a"]}, {413, 422}, "images")


async def test_many_small_files_that_unpack_to_gigabytes_are_refused(serve: Serve) -> None:
    large = b64(encoded(Image.new("L", (1000, 1000))))
    async with serve(max_request_pixels=8_000_000) as client:
        body = {"images": [large] * 8, "prompts": ["a"]}
        assert (await client.post(DETECT, json=body)).status_code == 200
        await refused(client, DETECT, {**body, "images": [large] * 20}, {413}, "images", "pixels")


@pytest.mark.parametrize(
    "value", ["NaN", "Infinity", "-Infinity", "1e999", "-0.1", "1.1", '"0.5"', "null", "true", "[]"]
)
@pytest.mark.parametrize("field", ["threshold", "mask_threshold"])
async def test_a_threshold_outside_its_range_is_refused(client: httpx.AsyncClient, field: str, value: str) -> None:
    body = f'{{"images": ["{IMAGE}"], "prompts": ["a"], "{field}": {value}}}'
    await refused(client, SEGMENT, body.encode(), {422}, field)


@pytest.mark.parametrize(
    "prompts",
    [
        [],
        [""],
        ["a", " \n"],
        ["x" * 10_000],
        ["a"] * 10_000,
        [["a"], ["b"]],
        [[]],
        [[""]],
        "a",
        None,
        [1],
        [["a"], "b"],
    ],
)
@pytest.mark.parametrize("url", [DETECT, SEGMENT])
async def test_prompts_that_make_no_sense_are_refused(client: httpx.AsyncClient, url: str, prompts: Any) -> None:
    await refused(client, url, {"images": [IMAGE], "prompts": prompts}, {400, 413, 422}, "prompts")


@pytest.mark.parametrize(
    "box",
    [
        "[0, 0, 0, 8]",
        "[4, 4, 2, 8]",
        "[0, 0, 160, 8]",
        "[-50, 0, 4, 4]",
        "[NaN, 0, 4, 4]",
        "[0, 0, 4, Infinity]",
        "[1, 2, 3]",
        "7",
    ],
)
async def test_boxes_that_make_no_sense_are_refused(client: httpx.AsyncClient, box: str) -> None:
    body = f'{{"images": ["{IMAGE}"], "boxes": [[{box}]]}}'
    await refused(client, SEGMENT, body.encode(), {400, 422}, "boxes")


@pytest.mark.parametrize("weights", ["[0]", "[-1]", "[NaN]", "[1, 2]", '"yes"'])
async def test_weights_that_make_no_sense_are_refused(client: httpx.AsyncClient, weights: str) -> None:
    body = f'{{"images": ["{IMAGE}"], "prompts": ["a"], "resolve_overlaps": {weights}}}'
    await refused(client, SEGMENT, body.encode(), {400, 422}, "resolve_overlaps")


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 1000 + b"]" * 1000,
        b'{"images": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"images": ["' + IMAGE.encode() + b'"], "prompts": ' + b"[" * 1000 + b"]" * 1000 + b"}",
        b'{"a":' * 1000 + b"1" + b"}" * 1000,
        b"",
        b"null",
        b"\x00\x01\x02",
        b'{"images": ["x"]',
    ],
)
async def test_json_that_is_none_or_too_deep_is_refused(client: httpx.AsyncClient, content: bytes) -> None:
    await refused(client, SEGMENT, content, {400, 413, 422}, "detail")


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "application/xml", "multipart/form-data"]
)
async def test_a_wrong_content_type_is_refused(client: httpx.AsyncClient, kind: str) -> None:
    body = json.dumps({"images": [IMAGE], "prompts": ["a"]})
    response = await client.post(DETECT, content=body, headers={"content-type": kind})
    assert (response.status_code, "application/json" in response.json()["detail"]) == (415, True)


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "application/problem+json", "Application/JSON"])
async def test_every_json_content_type_is_read(client: httpx.AsyncClient, kind: str) -> None:
    body = json.dumps({"images": [IMAGE], "prompts": ["a"]})
    assert (await client.post(DETECT, content=body, headers={"content-type": kind})).status_code == 200


async def test_a_typo_in_a_field_is_named(client: httpx.AsyncClient) -> None:
    await refused(client, SEGMENT, {"images": [IMAGE], "prompts": ["a"], "treshold": 0.9}, {422}, "treshold")


async def test_a_body_over_the_limit_is_refused(client: httpx.AsyncClient) -> None:
    await refused(client, DETECT, {"images": ["A" * 5_000_000], "prompts": ["a"]}, {413}, "4 MB")


async def test_unknown_models_are_refused(client: httpx.AsyncClient) -> None:
    body = {"images": [IMAGE], "prompts": ["a"]}
    await refused(client, "/inference/yolo", body, {404})
    await refused(client, "/jobs/submit/yolo", body, {404}, "yolo")
    await refused(client, DETECT, {**body, "model_id": "nobody/nothing"}, {404}, "nobody/nothing")
    await refused(client, DETECT, {**body, "model_id": ""}, {422}, "model_id")
    await refused(client, "/models/load", {"model_type": "detector", "device": "cuda:9"}, {400}, "cuda:9")


# URLs that lead somewhere else


@pytest.fixture
def resolving(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Lets a name stand for an address."""
    real = socket.getaddrinfo

    def stand_for(name: str, address: str) -> None:
        def getaddrinfo(host: Any, port: Any, *args: Any, **options: Any) -> Any:
            return real(address if host in (name, name.encode()) else host, port, *args, **options)

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    return stand_for


@contextmanager
def site(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server on this machine that treats every connection in its own way."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)
        stop = threading.Event()

        def serve() -> None:
            while not stop.is_set():
                try:
                    connection, _ = listener.accept()
                except TimeoutError:
                    continue
                with connection:
                    try:
                        connection.recv(65536)
                        answer(connection)
                    except OSError:
                        pass

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/a.png"
        stop.set()
        thread.join()


async def test_a_name_of_a_private_address_is_refused(
    client: httpx.AsyncClient, resolving: Callable[[str, str], None]
) -> None:
    resolving("innocent.example", "10.1.2.3")
    body = {"images": ["http://innocent.example/a.png"], "prompts": ["a"]}
    await refused(client, DETECT, body, {400}, "images[0]", "not public")


async def test_a_redirect_to_a_scheme_or_address_that_is_closed_is_refused(serve: Serve) -> None:
    async with serve(allow_private_urls=True) as client:
        with site(
            lambda it: it.sendall(b"HTTP/1.1 302 x\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n")
        ) as url:
            await refused(client, DETECT, {"images": [url], "prompts": ["a"]}, {400}, "images[0]")


async def test_a_url_that_never_answers_is_given_up(serve: Serve) -> None:
    async with serve(allow_private_urls=True, url_timeout_seconds=0.3) as client:
        with site(lambda it: time.sleep(1)) as url:
            started = time.monotonic()
            await refused(client, DETECT, {"images": [url], "prompts": ["a"]}, {400}, "images[0]", "0.3 s")
            assert time.monotonic() - started < 5


async def test_a_url_that_streams_without_end_is_given_up(serve: Serve) -> None:
    def flood(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            connection.sendall(b"x" * 65536)

    async with serve(allow_private_urls=True, max_url_mb=1) as client:
        with site(flood) as url:
            await refused(client, DETECT, {"images": [url], "prompts": ["a"]}, {400}, "images[0]")


async def test_one_bad_request_fails_alone(client: httpx.AsyncClient) -> None:
    good = {"images": [IMAGE], "prompts": ["a"]}
    answers = await asyncio.gather(
        *(client.post(DETECT, json=good) for _ in range(8)),
        *(client.post(DETECT, json={**good, "images": ["x"]}) for _ in range(8)),
        *(client.post(SEGMENT, json={**good, "prompts": ["broken"]}) for _ in range(4)),
    )
    assert [answer.status_code for answer in answers] == [200] * 8 + [400] * 8 + [500] * 4


# What goes wrong inside


def panic(*_: Any) -> Any:
    """Makes an extension written in Rust panic, which raises no `Exception`."""
    return Precompiled(b"\0\0\0\0abc").normalize_str("h\u00e9llo")


def exhaust(*_: Any) -> Any:
    raise MemoryError


def stop(*_: Any) -> Any:
    raise SystemExit(1)


@pytest.mark.parametrize("stage", ["preprocess", "forward", "postprocess"])
@pytest.mark.parametrize(
    ("fault", "status", "word"), [(panic, 500, "error id"), (stop, 500, "error id"), (exhaust, 507, "memory")]
)
async def test_any_fault_of_a_model_is_an_answer(
    client: httpx.AsyncClient,
    stage: str,
    fault: Callable[..., Any],
    status: int,
    word: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stand_ins.Segmenter, stage, fault)
    body = {"images": [IMAGE], "prompts": ["a"]}
    async with asyncio.timeout(20):
        await refused(client, SEGMENT, body, {status}, word)
        # Another model, on the same threads.
        assert (await client.post(DETECT, json=body)).status_code == 200


async def test_no_memory_for_an_image_is_no_fault_of_the_image(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {"images": [b64(encoded(Image.new("L", (8, 8)), "GIF"))], "prompts": ["a"]}
    monkeypatch.setattr("PIL.Image.Image.convert", exhaust)
    for url in (DETECT, "/jobs/submit/detector"):
        await refused(client, url, body, {507}, "memory")
    monkeypatch.undo()


async def test_an_image_that_is_dear_to_decode_is_refused_at_once(client: httpx.AsyncClient) -> None:
    started = time.monotonic()
    for data in (bombs.jpeg_of_scans(4000, 4000, 150), bombs.avif_that_lies((1024, 1024), (64, 64), (8, 8))):
        await refused(client, DETECT, {"images": [b64(data)], "prompts": ["a"]}, {400}, "images[0]", "costly")
    assert time.monotonic() - started < 5
