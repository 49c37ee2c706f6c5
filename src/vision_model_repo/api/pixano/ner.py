"""Named entities on the wire."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, ClassVar

from pydantic import Field

from vision_model_repo.api.pixano.media import Media
from vision_model_repo.api.pixano.task import Capability, CapabilityRequest
from vision_model_repo.engine.engine import Engine
from vision_model_repo.models.catalog import ModelSpec
from vision_model_repo.tasks.ner import NerRequest, NerResult

MAX_CHARACTERS = 100_000


class PixanoNerRequest(CapabilityRequest):
    """A text to find names in."""

    text: str = Field(max_length=MAX_CHARACTERS, description="The text.", examples=["Ada lives in Paris."])


class PixanoNer(Capability[PixanoNerRequest]):
    name: ClassVar[str] = "ner"
    light: ClassVar[bool] = True
    media: ClassVar[str | None] = None
    body = PixanoNerRequest

    async def answer(self, engine: Engine, spec: ModelSpec, body: PixanoNerRequest, files: Sequence[Media]) -> Any:
        answer = await engine.manager.run(spec.model_type, [NerRequest(body.text)])
        result: NerResult = answer.results[0]
        return {"entities": [asdict(entity) for entity in result.entities]}
