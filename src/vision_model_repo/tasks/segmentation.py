"""Promptable instance segmentation: every instance of what a phrase or an exemplar box names."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vision_model_repo.formats.masks import RunLengths


@dataclass(frozen=True, slots=True)
class SegmentationPrompt:
    """A phrase, exemplar boxes, or both; at least one of them.

    Attributes:
        text: a short noun phrase; empty when only boxes are given.
        boxes: xyxy pixels of the image as seen; each shows an example of what to find or to leave out.
        box_labels: 1 to take what the box shows, 0 to leave it out; one for each box.
    """

    text: str = ""
    boxes: tuple[tuple[float, float, float, float], ...] = ()
    box_labels: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ObjectPrompt:
    """Points, a box or both that mean one object, and not all that look like it.

    Attributes:
        points: xy pixels of the image as seen.
        point_labels: 1 for a point on the object, 0 for one beside it; one for each point.
        box: xyxy pixels around the object.
        logits: (h, w) float32 of an earlier answer about the object, to go on from.
    """

    points: tuple[tuple[float, float], ...] = ()
    point_labels: tuple[int, ...] = ()
    box: tuple[float, float, float, float] | None = None
    logits: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class SegmentationRequest:
    """One image and its prompts; at least one prompt or object.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        objects: single objects to outline.
        multimask: give several readings of each object (the whole, a part, a part of that); None gives them where an
            object is meant by a single point.
        threshold: least score of an instance, 0..1.
        mask_threshold: least probability of a mask pixel, 0..1.
        overlap_weights: None leaves overlapping masks alone; otherwise a weight per prompt, and each pixel goes to
            the mask with the highest score times weight.
        digest: of the pixels, from `formats.images.pixel_digest`, where it is known already.
    """

    image: NDArray[np.uint8]
    prompts: tuple[SegmentationPrompt, ...] = ()
    threshold: float = 0.5
    mask_threshold: float = 0.5
    overlap_weights: tuple[float, ...] | None = None
    objects: tuple[ObjectPrompt, ...] = ()
    multimask: bool | None = None
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class Instances:
    """What one prompt found, best first.

    Attributes:
        scores: (N,) float32, 0..1.
        boxes: (N, 4) float32 xyxy pixels, tight around the masks.
        masks: N masks at the image's full size.
        presence: the model's belief that the prompt's concept is in the image at all, 0..1; None where the model
            has no such notion. A low presence with no instance says "absent", a high one "threshold too high".
    """

    scores: NDArray[np.float32]
    boxes: NDArray[np.float32]
    masks: tuple[RunLengths, ...]
    presence: float | None = None


@dataclass(frozen=True, slots=True)
class ObjectMasks:
    """The readings of one object prompt, best first.

    Attributes:
        scores: (M,) float32, the model's estimate of each mask's overlap with the object, 0..1.
        boxes: (M, 4) float32 xyxy pixels, tight around the masks; zeros around an empty one.
        masks: M masks at the image's full size.
        logits: (M, h, w) float32, as coarse as the model gives them; one of them goes back in as `ObjectPrompt.logits`.
    """

    scores: NDArray[np.float32]
    boxes: NDArray[np.float32]
    masks: tuple[RunLengths, ...]
    logits: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class SegmentationResult:
    """The instances of each prompt, then the masks of each object, in the request's order."""

    prompts: tuple[Instances, ...]
    objects: tuple[ObjectMasks, ...] = ()
