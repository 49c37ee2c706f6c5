"""Items as the engine completes them, for tests of single steps."""

from __future__ import annotations

from typing import Any

from vision_model_repo.models.base import EncoderModel


def complete(model: EncoderModel[Any, Any, Any, Any, Any, Any], *requests: Any) -> list[Any]:
    """The items of some requests, whose images are encoded in one batch."""
    encodings = model.encode([model.prepare(request.image) for request in requests])
    return [
        model.attach(model.preprocess(request), encoding) for request, encoding in zip(requests, encodings, strict=True)
    ]
