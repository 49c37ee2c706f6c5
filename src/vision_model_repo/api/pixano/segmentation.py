"""Segmentation on the wire: each prompt is one object, meant by points, a box, or both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vision_model_repo.api.json_bounds import AtMost
from vision_model_repo.api.native.geometry import Box, Point, Size, fit_box, fit_point
from vision_model_repo.api.pixano.media import Media, read_picture
from vision_model_repo.api.pixano.task import Capability, CapabilityRequest
from vision_model_repo.api.pixano.wire import WireArray
from vision_model_repo.engine.engine import Engine
from vision_model_repo.errors import InvalidInput, TooLarge
from vision_model_repo.models.catalog import ModelSpec
from vision_model_repo.settings import Settings
from vision_model_repo.tasks.segmentation import ObjectMasks, ObjectPrompt, SegmentationRequest, SegmentationResult

POINTS = AtMost(lambda limits: limits.max_points)
PROMPTS = AtMost(lambda limits: limits.max_objects)


class PixanoSegmentationRequest(CapabilityRequest):
    """An image, and what is meant in it. Embeddings are kept by the server; those that are sent are not needed."""

    image: str = Field(
        description="URL, or data URI with base64; or a path, where settings allow one.",
        examples=["data:image/png;base64,iVBORw0KGgo..."],
    )
    points: Annotated[list[Annotated[list[Point], POINTS]], PROMPTS] | None = Field(
        None, description="For each prompt, points `[x, y]` in pixels.", examples=[[[[200, 175]]]]
    )
    labels: Annotated[list[Annotated[list[int], POINTS]], PROMPTS] | None = Field(
        None, description="For each point, 1 on the object (the default) or 0 beside it.", examples=[[[1]]]
    )
    boxes: Annotated[list[Box], PROMPTS] | None = Field(
        None, description="For each prompt, a box `[x1, y1, x2, y2]` in pixels.", examples=[[[40, 30, 120, 110]]]
    )
    mask_input: WireArray | None = Field(None, description="For each prompt, logits of an earlier answer to correct.")
    multimask_output: bool = Field(True, description="Give several readings of each prompt.", examples=[True])
    num_multimask_outputs: int = Field(3, ge=1, description="Most readings of a prompt.", examples=[3])
    return_logits: bool = Field(False, description="Give the coarse logits of the masks as well.", examples=[False])

    @property
    def count(self) -> int:
        """How many prompts there are."""
        return max(len(self.points or []), len(self.boxes or []))

    def check(self, limits: Settings) -> None:
        """Raises InvalidInput or TooLarge for what can be known without seeing the image."""
        if not self.count:
            raise InvalidInput("There is no prompt. Give points, boxes, or both.")
        if self.count > limits.max_objects:
            raise TooLarge(f"There are {self.count} prompts; at most {limits.max_objects} are accepted.")
        for name in ("points", "labels", "boxes"):
            given = getattr(self, name)
            if given and len(given) != self.count:
                raise InvalidInput(f"{name} has {len(given)} entries for {self.count} prompts. Give one for each.")
        for index, points in enumerate(self.points or []):
            if len(points) > limits.max_points:
                raise TooLarge(f"points[{index}] has {len(points)} points; at most {limits.max_points} are accepted.")
            if self.labels and len(self.labels[index]) != len(points):
                raise InvalidInput(f"labels[{index}] has {len(self.labels[index])} labels for {len(points)} points.")
        if self.labels and any(label not in (0, 1) for row in self.labels for label in row):
            raise InvalidInput("A label is 1, on the object, or 0, beside it.")
        if self.labels and not self.points:
            raise InvalidInput("There are labels, but no points.")

    def prompts(self, size: Size) -> tuple[ObjectPrompt, ...]:
        """What is meant in an image of a size. Raises InvalidInput for what lies outside it."""
        logits = None if self.mask_input is None else _per_prompt(self.mask_input, self.count)
        return tuple(
            self._prompt(index, size, None if logits is None else logits[index]) for index in range(self.count)
        )

    def _prompt(self, index: int, size: Size, logits: NDArray[np.float32] | None) -> ObjectPrompt:
        given = self.points[index] if self.points else []
        points = tuple(fit_point(point, size, f"points[{index}][{place}]") for place, point in enumerate(given))
        labels = tuple(self.labels[index]) if self.labels else (1,) * len(points)
        box = clip_box(self.boxes[index], size, f"boxes[{index}]") if self.boxes else None
        return ObjectPrompt(points, labels, box=box, logits=logits)


class PixanoSegmentation(Capability[PixanoSegmentationRequest]):
    name: ClassVar[str] = "segmentation"
    body = PixanoSegmentationRequest

    async def answer(
        self, engine: Engine, spec: ModelSpec, body: PixanoSegmentationRequest, files: Sequence[Media]
    ) -> Any:
        body.check(engine.settings)
        image = await read_picture(files[0] if files else body.image, engine, "image")
        height, width = image.shape[:2]
        prompts = body.prompts((height, width))
        request = SegmentationRequest(image, (), objects=prompts, multimask=body.multimask_output)
        answer = await engine.manager.run(spec.model_type, [request])
        result: SegmentationResult = answer.results[0]
        return _data(result.objects, body)


def clip_box(box: Box, size: Size, name: str) -> Box:
    """What of a box lies in an image of a size, since it may be drawn over the edge. Raises InvalidInput where none."""
    height, width = size
    x0, y0, x1, y1 = box
    return fit_box((max(0.0, x0), max(0.0, y0), min(float(width), x1), min(float(height), y1)), size, name)


def _per_prompt(given: WireArray, count: int) -> NDArray[np.float32]:
    """Logits (count, h, w) from (h, w) for a single prompt, (count, h, w) or (count, 1, h, w)."""
    logits = given.to_numpy("maskInput")
    if logits.ndim == 4 and logits.shape[1] == 1:
        logits = logits[:, 0]
    if logits.ndim == 2:
        logits = logits[None]
    if logits.ndim != 3 or len(logits) != count:
        raise InvalidInput(
            f"maskInput has the shape {given.shape}. Give [prompts, 1, height, width] for {count} prompts."
        )
    return logits


def _data(objects: Sequence[ObjectMasks], body: PixanoSegmentationRequest) -> dict[str, Any]:
    most = body.num_multimask_outputs if body.multimask_output else 1
    masks = [each.masks[:most] for each in objects]
    return {
        "masks": masks if any(masks) else [],
        # An array without numbers cannot be said.
        "scores": _stacked([each.scores[:most] for each in objects]) if any(masks) else np.zeros(1, np.float32),
        "image_embedding": None,
        "high_resolution_features": None,
        "mask_logits": _stacked([each.logits[:most] for each in objects])
        if body.return_logits and any(masks)
        else None,
    }


def _stacked(arrays: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Arrays (M, ...) of the prompts as one (N, M, ...), with zeros where one has fewer readings than another."""
    longest = max(map(len, arrays))
    return np.stack([np.pad(each, [(0, longest - len(each))] + [(0, 0)] * (each.ndim - 1)) for each in arrays])
