"""Embedding and classification."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from fastapi import Request, Response
from numpy.typing import NDArray

from vision_model_repo.api.dependencies import engine_of
from vision_model_repo.api.embedding import MAX_NUMBERS_AT_ONCE, check_texts, embed, write_vectors
from vision_model_repo.api.errors import describe
from vision_model_repo.api.ingrain.body import check_images, listed, read_body, read_images
from vision_model_repo.api.ingrain.models import askable_model, family_of, library_of, shown
from vision_model_repo.api.ingrain.schemas import (
    IngrainClassification,
    IngrainImages,
    IngrainJointVectors,
    IngrainPairs,
    IngrainProbabilities,
    IngrainTexts,
    IngrainVectors,
    Vectors,
)
from vision_model_repo.api.openapi import request_body
from vision_model_repo.api.protocols import INFER
from vision_model_repo.api.router import DirectRoute, Router
from vision_model_repo.api.wire import write_object
from vision_model_repo.engine.engine import Engine
from vision_model_repo.errors import InvalidInput
from vision_model_repo.models.catalog import ModelSpec
from vision_model_repo.tasks.classification import ClassificationRequest
from vision_model_repo.tasks.embedding import shorten

Array = NDArray[np.float32]

router = Router(tags=["ingrain"], responses=describe(400, 401, 413, 422, 429, 503, 504), route_class=DirectRoute)


@dataclass(frozen=True, slots=True)
class Embedded:
    """Vectors, (N, D) each; None of what was not asked for. Seconds of all the model's work."""

    texts: Array | None
    images: Array | None
    seconds: float


async def embed_text(request: Request) -> Response:
    """Embeds texts: one vector for each."""
    body = await read_body(request, IngrainTexts)
    embedded = await _embed(engine_of(request), body, body.text, None, None)
    return await _answer(request, embedded.seconds, embeddings=embedded.texts)


async def embed_image(request: Request) -> Response:
    """Embeds images: one vector for each."""
    body = await read_body(request, IngrainImages)
    embedded = await _embed(engine_of(request), body, None, body.image, body.image_download_headers)
    return await _answer(request, embedded.seconds, embeddings=embedded.images)


async def embed_both(request: Request) -> Response:
    """Embeds texts, images or both, side by side."""
    body = await read_body(request, IngrainPairs)
    embedded = await _embed(engine_of(request), body, body.text, body.image, body.image_download_headers)
    return await _answer(request, embedded.seconds, textEmbeddings=embedded.texts, imageEmbeddings=embedded.images)


async def classify_image(request: Request) -> Response:
    """Classifies images: the probability of every class for each."""
    body, engine = await read_body(request, IngrainClassification), engine_of(request)
    spec = askable_model(engine.manager, body.name)
    check_classifier(spec, body.name)
    check_images(listed(body.image), engine.settings)
    images = await read_images(listed(body.image), body.image_download_headers, engine)
    started = time.perf_counter()
    answer = await engine.manager.run(spec.model_type, [ClassificationRequest(image) for image in images])
    seconds = time.perf_counter() - started
    return await _answer(request, seconds, probabilities=np.stack([each.probabilities for each in answer.results]))


for path, endpoint, body, answer in (
    ("/embed_text", embed_text, IngrainTexts, IngrainVectors),
    ("/embed_image", embed_image, IngrainImages, IngrainVectors),
    ("/embed", embed_both, IngrainPairs, IngrainJointVectors),
    ("/infer", embed_both, IngrainPairs, IngrainJointVectors),
    ("/classify_image", classify_image, IngrainClassification, IngrainProbabilities),
):
    router.add_api_route(
        path,
        endpoint,
        methods=["POST"],
        policy=INFER,
        response_model=answer,
        openapi_extra=request_body(body),
        name=path[1:],
    )


def check_classifier(spec: ModelSpec, name: str) -> None:
    """Raises InvalidInput for a model that knows no classes."""
    if spec.task != "classification":
        raise InvalidInput(f"Model {shown(name)} is not a classification model.")


async def _embed(
    engine: Engine, body: Vectors, text: str | list[str] | None, image: str | list[str] | None, headers: Any
) -> Embedded:
    """Checks all that can be known before any image is fetched."""
    spec = askable_model(engine.manager, body.name)
    texts = () if text is None else listed(text)
    sources = () if image is None else listed(image)
    if text is not None:
        if library_of(spec) == "timm":
            raise InvalidInput(f"Model {shown(body.name)} does not support text inference.")
        check_texts(texts, engine.settings)
    if image is not None:
        if family_of(spec) == "text_embedding":
            raise InvalidInput(f"Model {shown(body.name)} does not support image inference.")
        check_images(sources, engine.settings)
    if body.n_dims is not None and body.n_dims < 1:
        raise InvalidInput("nDims must be at least 1, or null for all dimensions.")
    images = await read_images(sources, headers, engine) if sources else []
    normalize = bool(body.normalize)
    started = time.perf_counter()
    found = await embed(engine, spec, texts, images, normalize=normalize) if texts or images else (None, None)
    seconds = time.perf_counter() - started
    again = normalize and engine.settings.renormalize_shortened
    said, seen = (None if each is None else shorten(each.vectors, body.n_dims, normalize=again) for each in found)
    return Embedded(said, seen, seconds)


async def _answer(request: Request, seconds: float, **arrays: Array | None) -> Response:
    if sum(array.size for array in arrays.values() if array is not None) <= MAX_NUMBERS_AT_ONCE:
        document = _write(arrays, seconds)
    else:
        document = await engine_of(request).pixels.run(_write, arrays, seconds)
    return Response(document, media_type="application/json")


def _write(arrays: dict[str, Array | None], seconds: float) -> bytes:
    members = {name: write_vectors(array) for name, array in arrays.items()}
    return write_object(**members, processingTimeMs=b"%.3f" % (1000 * seconds))
