"""Encodings of recent images, so that the next question about one skips the encoder.

There are two shelves, one in the memory of the devices and one in the host's, each bounded by bytes. What falls off
the first for want of room moves to the second. All state belongs to the event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Hashable

from vision_model_repo.engine.pixels import PixelThreads
from vision_model_repo.engine.shelf import Shelf
from vision_model_repo.models.base import Encoding

logger = logging.getLogger(__name__)

Key = tuple[Hashable, str]


class EncodingCache:
    """Encodings by owner, which is a loaded model, and digest of the image's pixels; least recently used out first.

    Args:
        device_bytes: most bytes on all devices together.
        host_bytes: most bytes in host memory.
        pixels: threads that copy from a device to the host.
    """

    def __init__(self, device_bytes: int, host_bytes: int, pixels: PixelThreads) -> None:
        self._device: Shelf[Key, Encoding] = Shelf(device_bytes)
        self._host: Shelf[Key, Encoding] = Shelf(host_bytes)
        self._pixels = pixels
        self._moves: dict[asyncio.Task[None], Key] = {}

    @property
    def bytes_held(self) -> dict[str, int]:
        """Bytes on the shelves "device" and "host"."""
        return {"device": self._device.held, "host": self._host.held}

    def get(self, owner: Hashable, digest: str) -> Encoding | None:
        """What is kept of an image, wherever it lies."""
        key = (owner, digest)
        found = self._device.get(key)
        return self._host.get(key) if found is None else found

    def put(self, owner: Hashable, digest: str, encoding: Encoding) -> None:
        """Keeps an encoding, unless it is larger than its shelf."""
        key = (owner, digest)
        if _on_host(encoding):
            self._host.put(key, encoding)
            return
        for other, fallen in self._device.put(key, encoding):
            move = asyncio.get_running_loop().create_task(self._move(other, fallen))
            self._moves[move] = other
            move.add_done_callback(self._moves.__delitem__)

    def drop(self, owner: Hashable) -> None:
        """Forgets what belongs to a model that leaves the memory."""
        for move, (moving, _) in self._moves.items():
            if moving is owner:
                move.cancel()
        for shelf in (self._device, self._host):
            for key in shelf:
                if key[0] is owner:
                    shelf.remove(key)

    def clear_device(self) -> None:
        """Empties the shelf on the devices at once, for a request that needs the memory."""
        self._device = Shelf(self._device.max_bytes)

    async def _move(self, key: Key, encoding: Encoding) -> None:
        try:
            copy = await self._pixels.run(encoding.to, "cpu")
        except Exception:
            logger.exception("An encoding could not be copied to the host, and is forgotten")
        else:
            self._host.put(key, copy)


def _on_host(encoding: Encoding) -> bool:
    return str(encoding.device) == "cpu"
