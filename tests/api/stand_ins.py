"""One small model for each task, whose answers can be worked out by hand from the request.

They go through the real catalog, manager and device thread; only the network is missing.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.engine.weighty import write_checkpoint
from vision_model_repo.formats.masks import RunLengths, encode_mask
from vision_model_repo.models import dummy
from vision_model_repo.models.base import Checkpoint, Model
from vision_model_repo.models.catalog import Catalog, ModelSpec
from vision_model_repo.tasks.depth import DepthRequest, DepthResult
from vision_model_repo.tasks.features import FeatureRequest, FeatureResult
from vision_model_repo.tasks.segmentation import (
    Instances,
    ObjectMasks,
    ObjectPrompt,
    SegmentationRequest,
    SegmentationResult,
)

GATE = threading.Event()
"""Cleared, it stops the device inside a detector's forward pass."""
GATE.set()
SEEN: list[Any] = []
"""Requests in the order in which models got them; tests clear it."""
BROKEN = "broken"
"""A phrase on which the segmenter fails in a way that nobody foresaw."""


class StandIn(Model[Any, Any, Any, Any]):
    def __init__(self, checkpoint: Checkpoint, device: str) -> None:
        self.model_id = checkpoint.model_id
        self.device = device
        self.dtype = "float32"

    def preprocess(self, request: Any) -> Any:
        SEEN.append(request)
        return request

    def forward(self, items: Sequence[Any]) -> Sequence[Any]:
        return items

    def memory_bytes(self) -> int:
        return 2**20

    def unload(self) -> None:
        """Nothing to give back."""


class Detector(dummy.DummyDetector):
    """The middle half of the image for every phrase, once the gate is open."""

    def forward(self, items: Sequence[Any]) -> Sequence[Any]:
        SEEN.extend(items)
        GATE.wait(30)
        return super().forward(items)


class Segmenter(StandIn):
    """A phrase finds the left half of the image; "nothing" finds nothing; every box to take is an instance.

    An object is its box or, around its first point, four by four pixels; where several readings are wanted, the whole
    image and the left half follow. The logits count the clicks about the object so far.
    """

    def postprocess(self, raw: SegmentationRequest, item: SegmentationRequest) -> SegmentationResult:
        prompts = tuple(self._find(item, index) for index in range(len(item.prompts)))
        return SegmentationResult(prompts, tuple(self._outline(item, prompt) for prompt in item.objects))

    def _outline(self, request: SegmentationRequest, prompt: ObjectPrompt) -> ObjectMasks:
        height, width = request.image.shape[:2]
        x, y = prompt.points[0] if prompt.points else (0.0, 0.0)
        boxes = [prompt.box or (x - 2, y - 2, x + 2, y + 2)]
        single = len(prompt.points) == 1 and prompt.box is None
        if single if request.multimask is None else request.multimask:
            boxes += [(0, 0, width, height), (0, 0, width // 2, height)]
        clicks = 1 if prompt.logits is None else prompt.logits[0, 0] + 1
        return ObjectMasks(
            np.linspace(0.8, 0.6, len(boxes), dtype=np.float32),
            np.array(boxes, np.float32),
            tuple(rectangle(height, width, box) for box in boxes),
            np.full((len(boxes), 2, 2), clicks, np.float32),
        )

    def _find(self, request: SegmentationRequest, index: int) -> Instances:
        prompt = request.prompts[index]
        if prompt.text == BROKEN:
            raise ZeroDivisionError("secret detail")
        height, width = request.image.shape[:2]
        boxes = [box for box, label in zip(prompt.boxes, prompt.box_labels, strict=True) if label]
        if prompt.text and prompt.text != "nothing":
            boxes.append((0, 0, width // 2, height))
        scores = np.linspace(0.9, 0.5, len(boxes), dtype=np.float32)
        masks = tuple(rectangle(height, width, box) for box in boxes)
        return Instances(scores, np.array(boxes, np.float32).reshape(-1, 4), masks, presence=0.75)


def rectangle(height: int, width: int, box: Sequence[float]) -> RunLengths:
    x0, y0, x1, y1 = map(round, box)
    mask = np.zeros((height, width), bool)
    mask[y0:y1, x0:x1] = True
    return encode_mask(mask)


class MetricDepth(StandIn):
    """One metre at the top row, one more with every row."""

    def postprocess(self, raw: DepthRequest, item: DepthRequest) -> DepthResult:
        height, width = item.image.shape[:2]
        rows = np.arange(1, height + 1, dtype=np.float32)
        return DepthResult(np.repeat(rows[:, None], width, axis=1), "metre")


class CameraDepth(StandIn):
    """Relative depth, with the camera that the model saw."""

    def postprocess(self, raw: DepthRequest, item: DepthRequest) -> DepthResult:
        height, width = item.image.shape[:2]
        disparity = np.repeat(np.linspace(0, 1, height, dtype=np.float32)[:, None], width, axis=1)
        intrinsics = np.diag([50, 50, 1]).astype(np.float32)
        return DepthResult(disparity, "relative", intrinsics, np.eye(4, dtype=np.float32))


class Backbone(StandIn):
    """A token for the whole image and one for every four rows; features count up from 0.5 in steps of 1."""

    def postprocess(self, raw: FeatureRequest, item: FeatureRequest) -> FeatureResult:
        rows = item.image.shape[0] // 4
        tokens = np.arange((1 + rows) * 3, dtype=np.float32).reshape(1 + rows, 3) + 0.5
        if item.normalize:
            tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
        return FeatureResult(tokens, tokens[0], (rows, 1))


FAMILIES: dict[str, Any] = {
    "detector": ("detection", Detector),
    "seg_menter": ("segmentation", Segmenter),
    "depth": ("depth", MetricDepth),
    "camera": ("depth", CameraDepth),
    "backbone": ("features", Backbone),
}


def load(checkpoint: Checkpoint, *, device: str, dtype: str) -> Model:
    _, family = FAMILIES[checkpoint.folder.name.rpartition("-")[0]]
    return family(checkpoint, device=device)


def write_catalog(folder: Path) -> Catalog:
    """A catalog of all stand-ins, with two checkpoints each in a folder."""
    specs = []
    for name, (task, _) in FAMILIES.items():
        variants = tuple(write_checkpoint(folder / f"{name}-{size}", 0.01) for size in ("small", "large"))
        specs.append(ModelSpec(name, task, "tests.api.stand_ins", variants))
    return Catalog(tuple(specs))
