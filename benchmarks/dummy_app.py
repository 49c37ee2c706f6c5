"""This project's application with one more model, which does nothing: what remains is the cost of serving.

uvicorn benchmarks.dummy_app:app
"""

from __future__ import annotations

from vision_model_repo.api.server import create_app
from vision_model_repo.models.catalog import Catalog
from vision_model_repo.models.dummy import SPEC
from vision_model_repo.settings import Settings

# The dummy reads no weights, so any checkpoint at hand will do.
settings = Settings(default_model_ids={SPEC.model_type: "demo/dinov3"})  # pyright: ignore[reportCallIssue]
app = create_app(settings, catalog=Catalog((SPEC,)))
