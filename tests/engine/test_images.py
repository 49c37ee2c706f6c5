"""Images and masks kept under ids: the same pixels once, bounded by bytes, number and time."""

from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest

from vision_model_repo.engine.images import ImageStore, MaskStore, StoredImage
from vision_model_repo.errors import NotFound, TooLarge
from vision_model_repo.formats.images import pixel_digest


def image(color: int, side: int = 10, encoded: bytes = b"") -> StoredImage:
    pixels = np.full((side, side, 3), color, np.uint8)
    return StoredImage(encoded, pixels, pixel_digest(pixels))


def store(max_bytes: int = 2**20, max_images: int = 10, ttl_seconds: float = 60.0) -> ImageStore:
    return ImageStore(max_bytes=max_bytes, max_images=max_images, ttl_seconds=ttl_seconds)


def held(images: ImageStore, *colors: int) -> list[int]:
    """Which of these colours are kept, found without asking for them."""
    return [color for color in colors if image(color).image_id in images._shelf._kept]


async def test_an_image_comes_back_as_it_was() -> None:
    images, red = store(), image(1, encoded=b"file")
    assert images.add(red)
    assert images.get(red.image_id) is red
    assert images.bytes_held == red.nbytes == 304


async def test_the_same_pixels_are_kept_once() -> None:
    images = store()
    assert [images.add(image(1, encoded=file)) for file in (b"a PNG", b"a JPEG")] == [True, False]
    assert (len(images), images.bytes_held) == (1, 306)


async def test_the_shape_is_part_of_the_name() -> None:
    flat, tall = np.zeros((2, 8, 3), np.uint8), np.zeros((8, 2, 3), np.uint8)
    assert pixel_digest(flat) != pixel_digest(tall)


async def test_the_image_that_was_not_asked_for_longest_goes_first() -> None:
    for images in (store(max_bytes=950), store(max_images=3)):
        for color in (1, 2, 3):
            images.add(image(color))
        images.get(image(1).image_id)
        images.add(image(4))
        assert held(images, 1, 2, 3, 4) == [1, 3, 4]
        assert images.bytes_held == 900


async def test_an_image_that_is_larger_than_the_store_is_refused_and_drives_out_nothing() -> None:
    images = store(max_bytes=2**20)
    images.add(image(1))
    with pytest.raises(TooLarge, match=r"takes 2 MB decoded \(600 x 600 pixels\); the store holds 1 MB"):
        images.add(image(2, side=600))
    assert held(images, 1) == [1]


async def test_a_deleted_image_is_gone() -> None:
    images, red = store(), image(1)
    images.add(red)
    images.delete(red.image_id)
    assert images.bytes_held == 0
    for ask in (images.get, images.delete):
        with pytest.raises(NotFound, match="Upload it again"):
            ask(red.image_id)


async def test_an_expired_image_frees_its_memory_without_being_asked_for() -> None:
    images = store(ttl_seconds=0.02)
    for color in (1, 2):
        images.add(image(color))
        await asyncio.sleep(0.01)
    async with asyncio.timeout(5):
        while images.bytes_held:
            await asyncio.sleep(0.01)
    with pytest.raises(NotFound):
        images.get(image(1).image_id)


async def test_asking_for_an_image_or_sending_it_again_renews_its_time() -> None:
    images = store(ttl_seconds=0.5)
    for color in (1, 2, 3):
        images.add(image(color))
    await asyncio.sleep(0.3)
    images.get(image(1).image_id)
    images.add(image(2))
    await asyncio.sleep(0.3)
    assert held(images, 1, 2, 3) == [1, 2]
    assert images.expires_at == pytest.approx(time.time() + 0.5, abs=0.1)


async def test_every_reading_of_an_object_has_an_id_of_its_own() -> None:
    masks = MaskStore(max_bytes=2**20, ttl_seconds=60)
    logits = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
    ids = masks.add(logits)
    assert len(set(ids)) == 3
    for mask_id, expected in zip(ids, logits, strict=True):
        np.testing.assert_array_equal(masks.get(mask_id), expected)


@pytest.mark.parametrize("mask_id", ["", "-", "x-0", "{}-3", "{}--1", "{}-01", "{}"])
async def test_a_mask_that_was_not_handed_out_is_not_found(mask_id: str) -> None:
    masks = MaskStore(max_bytes=2**20, ttl_seconds=60)
    name = masks.add(np.zeros((3, 2, 2), np.float32))[0].rpartition("-")[0]
    with pytest.raises(NotFound, match="Ask again without it"):
        masks.get(mask_id.format(name))


async def test_masks_are_bounded_by_bytes() -> None:
    masks = MaskStore(max_bytes=100, ttl_seconds=60)
    old, recent = (masks.add(np.zeros((3, 2, 2), np.float32)) for _ in range(2))
    [too_large] = masks.add(np.zeros((1, 8, 8), np.float32))
    assert masks.bytes_held == 96
    masks.get(recent[2])
    masks.add(np.zeros((1, 2, 2), np.float32))
    for gone in (*old, too_large):
        with pytest.raises(NotFound):
            masks.get(gone)
