"""From what SAM 3's networks say to masks and boxes at the image's size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vision_model_repo.formats.logits import upsample_mask
from vision_model_repo.formats.masks import RunLengths, resolve_overlaps
from vision_model_repo.models.sam3_clicks import EncodedObject, Readings
from vision_model_repo.models.sam3_prompts import EncodedPrompt
from vision_model_repo.tasks.segmentation import Instances, ObjectMasks, SegmentationResult


@dataclass(frozen=True, slots=True)
class Item:
    """What is asked about one image, its size in pixels, and its encoding: the last hidden state (T, D) of the ViT."""

    height: int
    width: int
    prompts: tuple[EncodedPrompt, ...]
    objects: tuple[EncodedObject, ...]
    threshold: float
    mask_threshold: float
    overlap_weights: tuple[float, ...] | None
    encoding: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """The queries of one prompt that pass the threshold: scores (N,) and mask logits (N, h, w), in float32."""

    scores: NDArray[np.float32]
    logits: NDArray[np.float32]
    presence: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What was found for each prompt, and the readings of each object."""

    found: list[Found]
    readings: list[Readings]


def to_result(answer: Answer, item: Item) -> SegmentationResult:
    """The masks at the image's size, in the order of what was asked."""
    masks = [_upsample(found.logits, item) for found in answer.found]
    if item.overlap_weights is not None:
        masks = _share_pixels(masks, [found.scores for found in answer.found], item.overlap_weights)
    return SegmentationResult(
        tuple(_instances(found, own) for found, own in zip(answer.found, masks, strict=True)),
        tuple(_object_masks(readings, item) for readings in answer.readings),
    )


def _upsample(logits: NDArray[np.float32], item: Item) -> list[RunLengths]:
    return [upsample_mask(each, item.height, item.width, threshold=item.mask_threshold) for each in logits]


def _object_masks(readings: Readings, item: Item) -> ObjectMasks:
    masks = _upsample(readings.logits, item)
    boxes = [mask.box or (0, 0, 0, 0) for mask in masks]
    return ObjectMasks(readings.scores, np.array(boxes, np.float32), tuple(masks), readings.logits)


def _share_pixels(
    masks: Sequence[Sequence[RunLengths]], scores: Sequence[NDArray[np.float32]], weights: Sequence[float]
) -> list[list[RunLengths]]:
    """Gives each pixel to the mask with the highest score times weight, across all prompts."""
    priorities = np.concatenate([own * weight for own, weight in zip(scores, weights, strict=True)])
    resolved = iter(resolve_overlaps([mask for own in masks for mask in own], priorities.tolist()))
    return [[next(resolved) for _ in own] for own in masks]


def _instances(found: Found, masks: Sequence[RunLengths]) -> Instances:
    """The masks that have a pixel, best first, with their boxes."""
    boxes = [mask.box for mask in masks]
    order = [index for index in np.argsort(-found.scores, kind="stable").tolist() if boxes[index] is not None]
    return Instances(
        scores=found.scores[order],
        boxes=np.array([boxes[index] for index in order], np.float32).reshape(-1, 4),
        masks=tuple(masks[index] for index in order),
        presence=found.presence,
    )
