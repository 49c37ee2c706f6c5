"""What callers refer to by id: images that they have sent before, and masks that a next click may refine.

All state belongs to the event loop.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from vision_model_repo.engine.shelf import Shelf
from vision_model_repo.errors import NotFound, TooLarge

MEGABYTE = 2**20

Logits = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image, kept.

    Attributes:
        image_id: the same for the same pixels.
        encoded: the file as it came.
        pixels: (H, W, 3) uint8 RGB, for all to read and nobody to change.
        digest: of the pixels, from `formats.images.pixel_digest`.
    """

    encoded: bytes
    pixels: NDArray[np.uint8]
    digest: str

    @property
    def image_id(self) -> str:
        return self.digest

    @property
    def nbytes(self) -> int:
        return len(self.encoded) + self.pixels.nbytes


class ImageStore:
    """Images under ids that follow from their pixels; least recently used out first.

    Args:
        max_bytes: most bytes of all images, files and pixels together.
        max_images: most images.
        ttl_seconds: how long an image is kept after it was last asked for.
    """

    def __init__(self, *, max_bytes: int, max_images: int, ttl_seconds: float) -> None:
        self._shelf: Shelf[str, StoredImage] = Shelf(max_bytes, max_count=max_images, ttl_seconds=ttl_seconds)

    def __len__(self) -> int:
        return len(self._shelf)

    @property
    def bytes_held(self) -> int:
        return self._shelf.held

    @property
    def expires_at(self) -> float:
        """When an image that is added or asked for now will be forgotten, in seconds since the epoch."""
        return self._shelf.expires_at

    def add(self, image: StoredImage) -> bool:
        """Keeps an image and answers whether it is a new one.

        Raises:
            TooLarge: it would not fit, even alone.
        """
        if image.nbytes > self._shelf.max_bytes:
            height, width = image.pixels.shape[:2]
            raise TooLarge(
                f"The image takes {-(-image.nbytes // MEGABYTE)} MB decoded ({width} x {height} pixels); the store "
                f"holds {self._shelf.max_bytes // MEGABYTE} MB. Send it with each request, or scale it down."
            )
        new = self._shelf.get(image.image_id) is None
        self._shelf.put(image.image_id, image)
        return new

    def get(self, image_id: str) -> StoredImage:
        """The image, whose time is renewed. Raises NotFound."""
        if (image := self._shelf.get(image_id)) is None:
            raise _unknown_image(image_id)
        return image

    def delete(self, image_id: str) -> None:
        """Forgets an image. Raises NotFound."""
        if not self._shelf.remove(image_id):
            raise _unknown_image(image_id)


def _unknown_image(image_id: str) -> NotFound:
    return NotFound(f"No image {image_id[:64]!r} is stored, or no longer. Upload it again with POST /images.")


class MaskStore:
    """Coarse logits of masks that were answered, for clicks that refine them; least recently used out first.

    Args:
        max_bytes: most bytes of all logits.
        ttl_seconds: how long a mask is kept after it was last asked for.
    """

    def __init__(self, *, max_bytes: int, ttl_seconds: float) -> None:
        self._shelf: Shelf[str, Logits] = Shelf(max_bytes, ttl_seconds=ttl_seconds)

    @property
    def bytes_held(self) -> int:
        return self._shelf.held

    def add(self, logits: Logits) -> list[str]:
        """Keeps the readings of one object, (M, h, w), and answers an id for each.

        They live and die together, in one array. What is larger than the store is not kept, and its ids are unknown
        as soon as they are given out.
        """
        name = uuid4().hex
        if logits.nbytes <= self._shelf.max_bytes:
            self._shelf.put(name, logits)
        return [f"{name}-{index}" for index in range(len(logits))]

    def get(self, mask_id: str) -> Logits:
        """Logits, (h, w), whose time is renewed. Raises NotFound."""
        name, _, index = mask_id.rpartition("-")
        logits = self._shelf.get(name)
        if logits is None or index not in map(str, range(len(logits))):
            raise NotFound(
                f"No mask {mask_id[:64]!r} is kept, or no longer. Ask again without it, and use the answer's mask_ids."
            )
        return logits[int(index)]
