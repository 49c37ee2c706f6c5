"""/images: a picture is sent once, and asked about by its id."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.api.conftest import IMAGE, Serve, b64, encoded, engine_of, png
from tests.api.stand_ins import GATE, SEEN
from vision_model_repo.api.native import images
from vision_model_repo.formats.images import pixel_digest

DETECT = "/inference/detector"


async def store(client: httpx.AsyncClient, image: Any = IMAGE) -> dict[str, Any]:
    response = await client.post("/images", json={"image": image})
    assert response.status_code in (200, 201), response.text
    return response.json()


def by_id(image_id: str) -> dict[str, str]:
    return {"data": image_id, "format": "id"}


async def test_a_stored_image_is_described(client: httpx.AsyncClient) -> None:
    kept = await store(client)
    assert set(kept) == {"image_id", "width", "height", "expires_at"}
    assert (kept["width"], kept["height"]) == (16, 8)
    expiry = datetime.fromisoformat(kept["expires_at"])
    assert expiry.tzinfo == UTC
    assert abs(expiry - datetime.now(UTC) - timedelta(hours=1)) < timedelta(minutes=1)


@pytest.mark.parametrize("image", [IMAGE, f"data:image/png;base64,{IMAGE}", {"data": IMAGE}, "file"])
async def test_every_way_to_send_an_image_gives_the_same_id(client: httpx.AsyncClient, image: Any) -> None:
    if image == "file":
        kept = (await client.post("/images", files={"image": ("a.png", png(), "image/png")})).json()
    else:
        kept = await store(client, image)
    assert kept["image_id"] == pixel_digest(np.full((8, 16, 3), (200, 30, 30), np.uint8))


@pytest.mark.parametrize("field", ["image", "images", "file"])
async def test_a_form_may_call_the_file_what_it_likes(client: httpx.AsyncClient, field: str) -> None:
    assert (await client.post("/images", files={field: ("a.png", png())})).status_code == 201


async def test_the_same_pixels_are_created_once(client: httpx.AsyncClient) -> None:
    pixels = Image.new("RGB", (16, 8), (200, 30, 30))
    sent = [b64(encoded(pixels, kind)) for kind in ("PNG", "BMP", "PNG")]
    answers = [await client.post("/images", json={"image": image}) for image in sent]
    assert [answer.status_code for answer in answers] == [201, 200, 200]
    assert len({answer.json()["image_id"] for answer in answers}) == 1
    assert len(engine_of(client).images) == 1


async def test_an_id_is_an_image_wherever_one_is_taken(client: httpx.AsyncClient) -> None:
    image = by_id((await store(client))["image_id"])
    for model in ("seg-menter", "detector", "depth", "backbone"):
        options = {"prompts": ["a"]} if model in ("seg-menter", "detector") else {}
        answers = [
            await client.post(f"/inference/{model}", json={"images": [each], **options}) for each in (image, IMAGE)
        ]
        by_reference, by_value = (answer.json() for answer in answers)
        for answer in (by_reference, by_value):
            for changing in ("processing_time", "timings"):
                answer.pop(changing)
        assert by_reference == by_value
        assert (await client.post(f"/inference/{model}/overlay", json={"images": [image], **options})).is_success


async def test_a_stored_image_is_not_decoded_again(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = await store(client)
    monkeypatch.delattr(images, "decode_image")
    body = {"images": [by_id(kept["image_id"])], "prompts": ["a"]}
    for path in (DETECT, "/inference/seg-menter"):
        assert (await client.post(path, json=body)).status_code == 200
    assert all(request.digest == kept["image_id"] for request in SEEN)
    assert SEEN[0].image is SEEN[-1].image


async def test_an_image_is_known_until_it_is_deleted(client: httpx.AsyncClient) -> None:
    kept = await store(client)
    path = f"/images/{kept['image_id']}"
    known = (await client.get(path)).json()
    assert {**known, "expires_at": ""} == {**kept, "expires_at": ""}
    assert known["expires_at"] > kept["expires_at"], "asking renews its time"
    assert (await client.delete(path)).json() == {"message": f"Image {kept['image_id']} deleted"}
    for method in ("GET", "DELETE"):
        gone = await client.request(method, path)
        assert (gone.status_code, "Upload it again" in gone.json()["detail"]) == (404, True)


async def test_an_unknown_id_is_refused_by_its_place(client: httpx.AsyncClient) -> None:
    for path in (DETECT, "/jobs/submit/detector"):
        response = await client.post(path, json={"images": [IMAGE, by_id("feed")], "prompts": ["a"]})
        assert response.status_code == 400
        detail = response.json()["detail"]
        assert detail.startswith("images[1]: No image 'feed' is stored") and "Upload it again" in detail
    assert (await client.post("/images", json={"image": by_id("feed")})).status_code == 404


async def test_an_expired_image_is_unknown(serve: Serve) -> None:
    async with serve(image_ttl_seconds=0.05) as client:
        kept = await store(client)
        await asyncio.sleep(0.1)
        assert (await client.get(f"/images/{kept['image_id']}")).status_code == 404


async def test_a_waiting_job_keeps_its_image_when_the_store_does_not(serve: Serve) -> None:
    async with serve(max_concurrent_jobs=1) as client:
        kept = await store(client)
        GATE.clear()
        body = {"images": [by_id(kept["image_id"])], "prompts": ["a"]}
        ids = [(await client.post("/jobs/submit/detector", json=body)).json()["job_id"] for _ in range(2)]
        await client.delete(f"/images/{kept['image_id']}")
        GATE.set()
        for job_id in ids:
            await client.get(f"/jobs/{job_id}/events")
            assert (await client.get(f"/jobs/{job_id}")).json()["status"] == "completed"


async def test_the_store_has_limits(serve: Serve) -> None:
    async with serve(image_store_mb=1, max_stored_images=2) as client:
        too_large = await client.post("/images", json={"image": b64(png(800, 600))})
        assert (too_large.status_code, "the store holds 1 MB" in too_large.json()["detail"]) == (413, True)
        ids = [(await store(client, b64(png(16 + width, 8))))["image_id"] for width in range(3)]
        assert [(await client.get(f"/images/{image_id}")).status_code for image_id in ids] == [404, 200, 200]


@pytest.mark.parametrize(
    ("request_", "status", "word"),
    [
        ({"json": {}}, 422, "image"),
        ({"json": {"image": 3}}, 422, "image"),
        ({"json": {"images": [IMAGE]}}, 422, "image"),
        ({"json": {"image": "not base64!"}}, 400, "base64"),
        ({"json": {"image": b64(b"hello")}}, 400, "no image"),
        ({"files": {"picture": ("a.png", png())}}, 400, "form field image"),
        ({"files": [("image", ("a.png", png())), ("image", ("b.png", png()))]}, 413, "form"),
        ({"files": {"other": ("a", b"")}, "data": {"image": "text"}}, 400, "curl -F image=@"),
        ({"content": b"\x89PNG", "headers": {"content-type": "image/png"}}, 415, "multipart/form-data"),
    ],
)
async def test_what_is_no_image_is_refused(
    client: httpx.AsyncClient, request_: dict[str, Any], status: int, word: str
) -> None:
    response = await client.post("/images", **request_)
    assert (response.status_code, word in response.text) == (status, True), response.text
    assert len(engine_of(client).images) == 0


async def test_storing_an_image_takes_a_place_in_the_house(serve: Serve) -> None:
    async with serve(max_pending_requests=1) as client:
        with engine_of(client).admission.enter():
            assert (await client.post("/images", json={"image": IMAGE})).status_code == 503
            assert (await client.get("/images/feed")).status_code == 404
