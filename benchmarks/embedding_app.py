"""This project's application with a text encoder that does nothing: what remains is the cost of serving.

uvicorn benchmarks.embedding_app:app
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vision_model_repo.api.server import create_app
from vision_model_repo.models.base import Checkpoint, Model
from vision_model_repo.models.catalog import Catalog, ModelSpec
from vision_model_repo.settings import Settings
from vision_model_repo.tasks.embedding import EmbeddingRequest, EmbeddingResult

NAME = "demo/minilm"


class Constant(Model[EmbeddingRequest, EmbeddingRequest, None, EmbeddingResult]):
    """The same vector for every text."""

    max_batch = 32
    device, dtype = "cpu", "float32"

    def __init__(self, checkpoint: Checkpoint, *, device: str, dtype: str) -> None:
        self.model_id = checkpoint.model_id
        self._vector = np.random.default_rng(0).standard_normal(384).astype(np.float32)

    def preprocess(self, request: EmbeddingRequest) -> EmbeddingRequest:
        return request

    def forward(self, items: Sequence[EmbeddingRequest]) -> list[None]:
        return [None] * len(items)

    def postprocess(self, raw: None, item: EmbeddingRequest) -> EmbeddingResult:
        return EmbeddingResult(np.tile(self._vector, (len(item.texts), 1)))

    def memory_bytes(self) -> int:
        return 0

    def unload(self) -> None:
        """Nothing to give back."""


# It reads no weights, so any checkpoint at hand will do.
SPEC = ModelSpec(NAME, "embedding", "benchmarks.embedding_app:Constant", ("demo/dinov3",), demo="demo/dinov3")
app = create_app(Settings(), catalog=Catalog((SPEC,)))  # pyright: ignore[reportCallIssue]
