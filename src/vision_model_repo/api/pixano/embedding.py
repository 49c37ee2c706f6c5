"""Embeddings on the wire: vectors of images or of texts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from vision_model_repo.api.json_bounds import AtMost
from vision_model_repo.api.pixano.media import Media, read_picture
from vision_model_repo.api.pixano.task import Capability, CapabilityRequest
from vision_model_repo.engine.concurrency import gather_or_cancel
from vision_model_repo.engine.engine import Engine
from vision_model_repo.errors import InvalidInput, TooLarge
from vision_model_repo.models.catalog import ModelSpec
from vision_model_repo.settings import Settings
from vision_model_repo.tasks.embedding import EmbeddingRequest, EmbeddingResult


class PixanoEmbeddingRequest(CapabilityRequest):
    """Images or texts, one kind of them."""

    image: Annotated[list[str], AtMost(lambda limits: limits.max_images)] | str | None = Field(
        None,
        description="Images, each a URL or a data URI with base64; or a path, where settings allow one.",
        examples=["https://example.com/cat.jpg"],
    )
    text: Annotated[list[str], AtMost(lambda limits: limits.max_texts)] | str | None = Field(
        None, description="Texts, where there is no image.", examples=[["a cat"]]
    )
    normalize: bool = Field(True, description="Scale every vector to unit length.", examples=[True])

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.image is None) == (self.text is None):
            raise ValueError("give either image or text")
        return self

    @property
    def texts(self) -> tuple[str, ...]:
        return _listed(self.text)

    def images(self, files: Sequence[Media]) -> tuple[Media, ...]:
        return tuple(files) or _listed(self.image)


class PixanoEmbedding(Capability[PixanoEmbeddingRequest]):
    name: ClassVar[str] = "embedding"
    light: ClassVar[bool] = True
    body = PixanoEmbeddingRequest

    async def answer(
        self, engine: Engine, spec: ModelSpec, body: PixanoEmbeddingRequest, files: Sequence[Media]
    ) -> Any:
        images = body.images(files)
        _check(len(images), body.texts, engine.settings)
        calls = [partial(read_picture, image, engine, f"image[{index}]") for index, image in enumerate(images)]
        request = EmbeddingRequest(tuple(await gather_or_cancel(calls)), body.texts, body.normalize)
        answer = await engine.manager.run(spec.model_type, request.split())
        vectors = EmbeddingResult.join(answer.results).vectors
        return {"embeddings": vectors, "dim": vectors.shape[1]}


def _listed(given: list[str] | str | None) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given or ())


def _check(images: int, texts: Sequence[str], limits: Settings) -> None:
    if not images and not texts:
        raise InvalidInput("There is nothing to embed. Give at least one image or text.")
    if images > limits.max_images:
        raise TooLarge(f"There are {images} images; at most {limits.max_images} are accepted.")
    if len(texts) > limits.max_prompts:
        raise TooLarge(f"There are {len(texts)} texts; at most {limits.max_prompts} are accepted.")
    if (longest := max(map(len, texts), default=0)) > limits.max_prompt_characters:
        raise TooLarge(f"A text has {longest} characters; at most {limits.max_prompt_characters} are accepted.")
