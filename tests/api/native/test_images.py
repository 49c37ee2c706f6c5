"""Images as people send them: wire forms, file formats, modes, orientations, URLs."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.api.conftest import IMAGE, Serve, b64, encoded, png
from tests.api.stand_ins import SEEN

URL = "/inference/depth"
RED = (200, 30, 30)


async def seen(client: httpx.AsyncClient, image: Any) -> np.ndarray:
    """The pixels that the model gets for an image."""
    SEEN.clear()
    response = await client.post(URL, json={"images": [image], "export_format": "png"})
    assert response.status_code == 200, response.text
    return SEEN[0].image


@pytest.mark.parametrize(
    "image",
    [
        IMAGE,
        "data:image/png;base64," + IMAGE,
        base64.urlsafe_b64encode(png()).decode(),
        {"data": IMAGE},
        {"data": IMAGE, "format": "base64"},
    ],
)
async def test_every_form_of_base64_is_read(client: httpx.AsyncClient, image: Any) -> None:
    pixels = await seen(client, image)
    assert pixels.shape == (8, 16, 3)
    assert np.all(pixels == RED)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
async def test_every_file_format_is_read(client: httpx.AsyncClient, kind: str) -> None:
    pixels = await seen(client, b64(encoded(Image.new("RGB", (16, 8), RED), kind)))
    np.testing.assert_allclose(pixels[4, 8], RED, atol=8)


def sixteen_bit() -> Image.Image:
    return Image.fromarray(np.full((8, 16), 0x8000, np.uint16))


@pytest.mark.parametrize(
    ("image", "kind", "color"),
    [
        (Image.new("CMYK", (16, 8), (0, 255, 255, 0)), "JPEG", (255, 0, 0)),
        (sixteen_bit(), "PNG", (128, 128, 128)),
        (Image.new("RGB", (16, 8), RED).convert("P", palette=Image.Palette.ADAPTIVE), "PNG", RED),
        (Image.new("RGBA", (16, 8), (0, 0, 0, 0)), "PNG", (255, 255, 255)),
        (Image.new("LA", (16, 8), (0, 255)), "PNG", (0, 0, 0)),
        (Image.new("1", (16, 8), 1), "PNG", (255, 255, 255)),
    ],
    ids=["CMYK", "16-bit", "palette", "transparent", "gray with alpha", "one bit"],
)
async def test_every_mode_becomes_rgb(
    client: httpx.AsyncClient, image: Image.Image, kind: str, color: tuple[int, int, int]
) -> None:
    pixels = await seen(client, b64(encoded(image, kind)))
    assert pixels.shape == (8, 16, 3)
    np.testing.assert_allclose(pixels[4, 8], color, atol=8)


async def test_of_an_animation_the_first_frame_counts(client: httpx.AsyncClient) -> None:
    frames = [Image.new("RGB", (16, 8), color) for color in ("red", "blue")]
    pixels = await seen(client, b64(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])))
    np.testing.assert_array_equal(pixels[4, 8], (255, 0, 0))


async def test_boxes_are_in_the_image_as_it_is_seen(client: httpx.AsyncClient) -> None:
    stored = Image.new("RGB", (16, 8), RED)
    exif = Image.Exif()
    exif[0x0112] = 6
    rotated = b64(encoded(stored, "JPEG", exif=exif))
    answer = await client.post("/inference/detector", json={"images": [rotated], "prompts": ["a"]})
    assert answer.json()["results"][0]["xyxy"] == [[2.0, 4.0, 6.0, 12.0]], "the upright image is 8 wide and 16 high"
    depth = await client.post(URL, json={"images": [rotated], "export_format": "png"})
    assert depth.json()["metadata"]["shape"] == [1, 16, 8]


class Pictures(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        data = png() if self.path == "/image.png" else b"not an image"
        self.send_response(404 if self.path == "/gone" else 200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Pictures) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


async def test_urls_are_fetched(serve: Serve, site: str) -> None:
    async with serve(allow_private_urls=True) as client:
        for image in (f"{site}/image.png", {"data": f"{site}/image.png", "format": "url"}):
            assert np.all(await seen(client, image) == RED)


@pytest.mark.parametrize(("path", "word"), [("/gone", "404"), ("/text", "no image")])
async def test_a_url_without_an_image_is_refused_by_index(serve: Serve, site: str, path: str, word: str) -> None:
    async with serve(allow_private_urls=True) as client:
        response = await client.post(URL, json={"images": [IMAGE, site + path]})
        assert response.status_code == 400
        assert response.json()["detail"].startswith("images[1]: ") and word in response.json()["detail"]


async def test_a_job_keeps_what_its_url_held_when_it_was_taken(serve: Serve, site: str) -> None:
    async with serve(allow_private_urls=True) as client:
        job = (await client.post("/jobs/submit/depth", json={"images": [f"{site}/image.png"]})).json()
        await client.get(f"/jobs/{job['job_id']}/events")
        assert (await client.get(f"/jobs/{job['job_id']}")).json()["status"] == "completed"
