"""A segmenter and a detector that find what is of a plain colour: exact, without weights, for tests of tracking."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vision_model_repo.formats.masks import RunLengths, encode_mask
from vision_model_repo.models.base import Checkpoint, Model
from vision_model_repo.models.catalog import Catalog, ModelSpec
from vision_model_repo.tasks.detection import DetectionRequest, DetectionResult
from vision_model_repo.tasks.segmentation import (
    Instances,
    ObjectMasks,
    ObjectPrompt,
    SegmentationRequest,
    SegmentationResult,
)

COLORS = {"red": (220, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 220)}
FORWARDS: list[int] = []
"""The sizes of the batches that were run."""


class Colorful(Model[Any, Any, list[tuple[str, RunLengths]], Any]):
    """Every colour is a phrase, and "object" is all of them. Clicks are answered by segmenters called "clicking"."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.model_id, self.device, self.dtype = checkpoint.model_id, "cpu", "float32"

    def preprocess(self, request: Any) -> Any:
        return request

    def forward(self, items: Sequence[Any]) -> list[list[tuple[str, RunLengths]]]:
        FORWARDS.append(len(items))
        return [_find(item.image) for item in items]

    def postprocess(self, raw: list[tuple[str, RunLengths]], item: Any) -> Any:
        if isinstance(item, DetectionRequest):
            named = [(mask, phrase) for phrase in item.phrases for name, mask in raw if phrase in (name, "object")]
            boxes = np.array([mask.box for mask, _ in named], np.float32).reshape(-1, 4)
            return DetectionResult(boxes, np.ones(len(named), np.float32), tuple(phrase for _, phrase in named))
        assert isinstance(item, SegmentationRequest)
        return SegmentationResult(
            tuple(
                _instances([mask for name, mask in raw if prompt.text in (name, "object")]) for prompt in item.prompts
            ),
            tuple(_clicked(each, raw) for each in item.objects) if "clicking" in self.model_id else (),
        )

    def memory_bytes(self) -> int:
        return 0

    def unload(self) -> None:
        """Nothing to give back."""


def _find(image: np.ndarray) -> list[tuple[str, RunLengths]]:
    found = ((name, encode_mask((image == color).all(axis=2))) for name, color in COLORS.items())
    return [(name, mask) for name, mask in found if mask.area]


def _instances(masks: list[RunLengths]) -> Instances:
    boxes = np.array([mask.box for mask in masks], np.float32).reshape(-1, 4)
    return Instances(np.ones(len(masks), np.float32), boxes, tuple(masks))


def _clicked(prompt: ObjectPrompt, raw: list[tuple[str, RunLengths]]) -> ObjectMasks:
    left, top, right, bottom = prompt.box or (*prompt.points[0], *prompt.points[0])
    x, y = int(left + right) // 2, int(top + bottom) // 2
    masks = [mask for _, mask in raw if mask.to_dense()[y, x]]
    found = _instances(masks)
    return ObjectMasks(
        found.scores * np.float32(0.7), found.boxes, found.masks, np.zeros((len(masks), 4, 4), np.float32)
    )


def load(checkpoint: Checkpoint, *, device: str, dtype: str) -> Colorful:
    return Colorful(checkpoint)


def catalog() -> Catalog:
    here = "tests.engine.colorful"
    return Catalog(
        (
            ModelSpec("segmenter", "segmentation", here, ("nobody/nothing",)),
            ModelSpec("detector", "detection", here, ("nobody/nothing",)),
            ModelSpec("other", "depth", here, ("nobody/nothing",)),
        )
    )
