"""Encodings are kept up to a number of bytes, on the device first and then on the host."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from vision_model_repo.engine.cache import EncodingCache
from vision_model_repo.engine.pixels import PixelThreads


@dataclass(frozen=True)
class Lump:
    """So many bytes somewhere; copying them may take a while."""

    nbytes: int
    device: str = "cpu"

    def to(self, device: str, /) -> Lump:
        return replace(self, device=device)


@pytest.fixture
def pixels() -> Iterator[PixelThreads]:
    threads = PixelThreads(1)
    yield threads
    threads.close()


async def test_what_is_kept_is_found_by_owner_and_digest(pixels: PixelThreads) -> None:
    cache = EncodingCache(100, 100, pixels)
    cache.put("model", "a", Lump(10))
    assert cache.get("model", "a") == Lump(10)
    assert cache.get("model", "b") is None
    assert cache.get("another", "a") is None


async def test_the_least_recently_used_leaves_first(pixels: PixelThreads) -> None:
    cache = EncodingCache(0, 30, pixels)
    for digest in "abc":
        cache.put("model", digest, Lump(10))
    cache.get("model", "a")
    cache.put("model", "d", Lump(10))
    assert [digest for digest in "abcd" if cache.get("model", digest)] == ["a", "c", "d"]
    assert cache.bytes_held == {"device": 0, "host": 30}


async def test_what_is_put_again_counts_once(pixels: PixelThreads) -> None:
    cache = EncodingCache(0, 30, pixels)
    for _ in range(5):
        cache.put("model", "a", Lump(10))
    assert cache.bytes_held["host"] == 10


async def test_what_is_larger_than_its_shelf_is_not_kept_and_drives_nobody_out(pixels: PixelThreads) -> None:
    cache = EncodingCache(0, 30, pixels)
    cache.put("model", "small", Lump(10))
    cache.put("model", "large", Lump(31))
    assert cache.get("model", "large") is None
    assert cache.get("model", "small") is not None


async def test_what_falls_off_the_device_lies_on_the_host(pixels: PixelThreads) -> None:
    cache = EncodingCache(20, 20, pixels)
    for digest in "abc":
        cache.put("model", digest, Lump(10, "cuda:0"))
    await asyncio.sleep(0.05)
    assert cache.get("model", "a") == Lump(10, "cpu")
    assert cache.get("model", "c") == Lump(10, "cuda:0")
    assert cache.bytes_held == {"device": 20, "host": 10}


async def test_the_device_is_cleared_for_who_needs_its_memory(pixels: PixelThreads) -> None:
    cache = EncodingCache(20, 20, pixels)
    cache.put("model", "a", Lump(10, "cuda:0"))
    cache.put("model", "b", Lump(10))
    cache.clear_device()
    assert cache.get("model", "a") is None
    assert cache.get("model", "b") is not None
    assert cache.bytes_held == {"device": 0, "host": 10}


async def test_a_model_that_leaves_takes_its_encodings_with_it(pixels: PixelThreads) -> None:
    cache = EncodingCache(10, 100, pixels)
    for digest in "abc":
        cache.put("leaving", digest, Lump(10, "cuda:0"))
    cache.put("staying", "a", Lump(10))
    cache.drop("leaving")
    await asyncio.sleep(0.05)
    assert not any(cache.get("leaving", digest) for digest in "abc")
    assert cache.get("staying", "a") is not None
    assert cache.bytes_held == {"device": 0, "host": 10}
