"""Detection on the wire."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from vision_model_repo.api.json_bounds import AtMost
from vision_model_repo.api.pixano.media import Media, read_picture
from vision_model_repo.api.pixano.task import Capability, CapabilityRequest
from vision_model_repo.engine.engine import Engine
from vision_model_repo.errors import TooLarge
from vision_model_repo.models.catalog import ModelSpec
from vision_model_repo.tasks.detection import DetectionRequest, DetectionResult

Classes = Annotated[list[str], AtMost(lambda limits: limits.max_prompts)]
Unit = Annotated[float, Field(ge=0, le=1)]


class PixanoDetectionRequest(CapabilityRequest):
    """An image, and what to find in it."""

    image: str = Field(
        description="URL, or data URI with base64; or a path, where settings allow one.",
        examples=["http://images.cocodataset.org/val2017/000000039769.jpg"],
    )
    classes: Classes | str | None = Field(
        None,
        description="What to find; a model with classes of its own needs none.",
        examples=[["cat", "remote control"]],
    )
    box_threshold: Unit = Field(0.5, description="Least score of a box, 0..1.", examples=[0.3])
    text_threshold: Unit = Field(0.5, description="Least score of a class's words, 0..1.", examples=[0.2])

    @property
    def phrases(self) -> tuple[str, ...]:
        return (self.classes,) if isinstance(self.classes, str) else tuple(self.classes or ())


class PixanoDetection(Capability[PixanoDetectionRequest]):
    name: ClassVar[str] = "detection"
    light: ClassVar[bool] = True
    body = PixanoDetectionRequest

    async def answer(
        self, engine: Engine, spec: ModelSpec, body: PixanoDetectionRequest, files: Sequence[Media]
    ) -> Any:
        check_phrases(body.phrases, engine)
        image = await read_picture(files[0] if files else body.image, engine, "image")
        request = DetectionRequest(image, body.phrases, body.box_threshold, body.text_threshold)
        answer = await engine.manager.run(spec.model_type, [request])
        result: DetectionResult = answer.results[0]
        return {
            # The clients take whole pixels alone.
            "boxes": np.rint(result.boxes).astype(int).tolist(),
            "scores": result.scores.astype(float).round(6).tolist(),
            "classes": list(result.labels),
            "masks": None,
        }


def check_phrases(phrases: Sequence[str], engine: Engine) -> None:
    """Raises TooLarge for more or longer phrases than settings accept."""
    limits = engine.settings
    if len(phrases) > limits.max_prompts:
        raise TooLarge(f"There are {len(phrases)} classes; at most {limits.max_prompts} are accepted.")
    if (longest := max(map(len, phrases), default=0)) > limits.max_prompt_characters:
        raise TooLarge(f"A class has {longest} characters; at most {limits.max_prompt_characters} are accepted.")
