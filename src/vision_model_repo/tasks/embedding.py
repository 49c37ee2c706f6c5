"""Embedding: one vector for each image or text, in a space that they share.

Every model of this task takes texts, images or both, and raises InvalidInput for what it has no encoder for. Image
classifiers and feature extractors embed images too, for a request of one image, which is what `split` makes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vision_model_repo.errors import InvalidInput

TEXTS_AT_ONCE = 16
"""Of one request to a model: enough to fill a device, few enough for others to have their turn soon."""


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """Images or texts, one kind of them.

    Attributes:
        images: each (H, W, 3) uint8 RGB.
        texts: of any length; what a model cannot read of a long one is cut off, before the token that ends it.
        normalize: scale every vector to unit length.
        prompt: name of the words that the model's files put before a text of some use, such as "query"; None for its
            default, which most have none of. Means nothing for images.
        digest: of the pixels of a single image, from `formats.images.pixel_digest`, where it is known already.
    """

    images: tuple[NDArray[np.uint8], ...] = ()
    texts: tuple[str, ...] = ()
    normalize: bool = True
    prompt: str | None = None
    digest: str | None = None

    def check_image(self) -> None:
        """For models that embed one image at a time, and no text. Raises InvalidInput where something else is asked."""
        if self.texts or not self.images:
            raise InvalidInput("This model does not support text inference. It embeds images.")
        if len(self.images) > 1:
            raise InvalidInput("This model embeds one image at a time.")
        if self.prompt is not None:
            raise InvalidInput("This model has no prompts.")

    @property
    def image(self) -> NDArray[np.uint8]:
        """The only image. Raises InvalidInput where there is none, or something beside it."""
        self.check_image()
        return next(iter(self.images))

    def split(self, texts_at_once: int = TEXTS_AT_ONCE) -> list[EmbeddingRequest]:
        """The same as requests of one image or a few texts, for an engine to batch with what others ask."""
        if len(self.images) + bool(self.texts) == 1 and len(self.texts) <= texts_at_once:
            return [self]
        starts = range(0, len(self.texts), texts_at_once)
        return [
            *(replace(self, images=(image,), texts=()) for image in self.images),
            *(replace(self, images=(), texts=self.texts[start : start + texts_at_once]) for start in starts),
        ]


@dataclass(frozen=True, slots=True)
class EmbeddingResult:
    """Vectors in the request's order.

    Attributes:
        vectors: (N, D) float32.
        truncated: places of the texts that were longer than the model reads.
        tokens: of all texts that the model read; those of padding count where it reads them.
    """

    vectors: NDArray[np.float32]
    truncated: tuple[int, ...] = ()
    tokens: int = 0

    @classmethod
    def join(cls, results: Sequence[EmbeddingResult]) -> EmbeddingResult:
        """The answer to a request, from those to the parts that `split` made of it; at least one."""
        if len(results) == 1:
            return results[0]
        starts = np.cumsum([0, *(len(result.vectors) for result in results)]).tolist()
        truncated = (
            start + place for start, result in zip(starts, results, strict=False) for place in result.truncated
        )
        tokens = sum(result.tokens for result in results)
        return cls(np.concatenate([result.vectors for result in results]), tuple(truncated), tokens)


def unit_length(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors along the last axis, scaled to length one; one of zeros stays."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), np.float32(1e-12))


def shorten(vectors: NDArray[np.float32], dimensions: int | None, *, normalize: bool) -> NDArray[np.float32]:
    """(N, dimensions): the first components of each vector; None for all.

    Args:
        normalize: give what is left unit length again.

    Raises:
        InvalidInput: the vectors have not so many.
    """
    if dimensions is None:
        return vectors
    if not 1 <= dimensions <= vectors.shape[1]:
        raise InvalidInput(f"The model's vectors have {vectors.shape[1]} dimensions; {dimensions} cannot be had.")
    kept = vectors[:, :dimensions]
    return unit_length(kept) if normalize else kept
