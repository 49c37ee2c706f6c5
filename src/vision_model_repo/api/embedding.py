"""Embedding, which is the same in every protocol: its limits, the way to the engine, and vectors as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from vision_model_repo.engine.engine import Engine
from vision_model_repo.errors import InvalidInput, TooLarge
from vision_model_repo.models.catalog import ModelSpec
from vision_model_repo.settings import Settings
from vision_model_repo.tasks.embedding import EmbeddingRequest, EmbeddingResult
from vision_model_repo.tasks.features import FeatureRequest

MAX_NUMBERS_AT_ONCE = 16_384
"""To write so many takes a millisecond at most; more are written in another thread."""


def check_texts(texts: Sequence[str], limits: Settings, *, field: str = "text") -> None:
    """Raises InvalidInput for none, and TooLarge for too many or too long ones.

    Args:
        field: what the body calls them.
    """
    if not texts:
        raise InvalidInput(f"{field} is empty. Give at least one text.")
    if len(texts) > limits.max_texts:
        raise TooLarge(f"There are {len(texts)} texts; at most {limits.max_texts} are accepted in one request.")
    if (longest := max(map(len, texts))) > limits.max_text_characters:
        raise TooLarge(f"A text has {longest} characters; at most {limits.max_text_characters} are accepted.")


async def embed(
    engine: Engine,
    spec: ModelSpec,
    texts: Sequence[str] = (),
    images: Sequence[NDArray[np.uint8]] = (),
    *,
    normalize: bool = True,
    model_id: str | None = None,
) -> tuple[EmbeddingResult | None, EmbeddingResult | None]:
    """Vectors of texts and of images from one model; None where there are none.

    Args:
        model_id: the checkpoint to use; None for the one in memory, or the default.
    """
    asked = EmbeddingRequest(texts=tuple(texts), normalize=normalize).split()
    if spec.task == "features":
        looked: list[Any] = [FeatureRequest(image, normalize=normalize) for image in images]
    else:
        looked = EmbeddingRequest(images=tuple(images), normalize=normalize).split()
    results = (await engine.manager.run(spec.model_type, [*asked, *looked], model_id=model_id)).results
    said, seen = results[: len(asked)], results[len(asked) :]
    if spec.task == "features":
        seen = [EmbeddingResult(result.pooler_output[None]) for result in seen]
    return EmbeddingResult.join(said) if said else None, EmbeddingResult.join(seen) if seen else None


def write_vectors(array: NDArray[np.float32] | None) -> bytes:
    """Nested lists of an (N, D) or (D,) array, in the fewest digits that tell each float32 from all others; null for
    None."""
    if array is None:
        return b"null"
    return orjson.dumps(np.ascontiguousarray(array, np.float32), option=orjson.OPT_SERIALIZE_NUMPY)
