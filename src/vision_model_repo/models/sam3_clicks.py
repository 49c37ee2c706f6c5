"""SAM 3's clicks: points, a box and an earlier mask that mean one object, on what the detector's image encoder saw.

The tracker of SAM 3 has a neck, a prompt encoder and a mask decoder of its own above the ViT that it shares with the
detector. They are small, so that after a phrase has been answered, a click on the same image costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vision_model_repo.errors import InvalidInput
from vision_model_repo.formats.boxes import clip_boxes
from vision_model_repo.models.latest import Latest
from vision_model_repo.tasks.segmentation import ObjectPrompt

OBJECTS_TOGETHER = 16
"""Objects decoded together; at the published size each takes some 50 MB for its activations, in float32."""


@dataclass(frozen=True, slots=True)
class EncodedObject:
    """An object prompt as arrays.

    Attributes:
        points: (N, 2) float32 xy relative to the image, 0..1.
        point_labels: (N,) int64, 1 on the object and 0 beside it.
        box: (4,) float32 xyxy relative to the image.
        logits: (h, w) float32 of an earlier answer.
        multimask: whether to give several readings of the object.
    """

    points: NDArray[np.float32]
    point_labels: NDArray[np.int64]
    box: NDArray[np.float32] | None
    logits: NDArray[np.float32] | None
    multimask: bool

    @property
    def kind(self) -> tuple[int, bool, bool, bool]:
        """Objects of one kind can be decoded together as they are: the model would see padding as points."""
        return len(self.points), self.box is not None, self.logits is not None, self.multimask


class Readings(NamedTuple):
    """The readings of one object, best first: mask logits (M, h, w) and estimated overlaps (M,) 0..1, in float32."""

    logits: NDArray[np.float32]
    scores: NDArray[np.float32]


class Pyramid(NamedTuple):
    """Features of B images for the mask decoder: (B, C/8, 4h, 4w), (B, C/4, 2h, 2w) and (B, C, h, w)."""

    fine: Tensor
    middle: Tensor
    coarse: Tensor

    def select(self, rows: Tensor) -> Pyramid:
        """Those of the images that `rows` (N,) names, one for each prompt."""
        return Pyramid(*(level[rows] for level in self))


class Prompts(NamedTuple):
    """B prompts of one kind: points (B, N, 2) and boxes (B, 4) 0..1, labels (B, N), logits (B, h, w)."""

    points: Tensor | None
    point_labels: Tensor | None
    boxes: Tensor | None
    logits: Tensor | None


def encode_object(
    prompt: ObjectPrompt,
    name: str,
    *,
    height: int,
    width: int,
    mask_size: tuple[int, int],
    multimask: bool | None = None,
) -> EncodedObject:
    """Encodes one object prompt about an image.

    Args:
        name: what an error calls the prompt.
        height, width: of the image in pixels.
        mask_size: of the model's mask logits, (h, w).
        multimask: whether to give several readings; None gives them where one point on the object is all there is.

    Raises:
        InvalidInput: nothing marks the object, or a point, the box or the logits cannot be about this image.
    """
    if not prompt.points and prompt.box is None:
        raise InvalidInput(f"{name} has neither points nor a box. Give a point on the object or a box around it.")
    points, labels = _relative_points(prompt, name, height, width)
    if prompt.box is None and prompt.logits is None and not labels.any():
        raise InvalidInput(f"{name} has no point on the object. Give one with label 1, or a box around the object.")
    lone_point = len(labels) == 1 and prompt.box is None and prompt.logits is None
    return EncodedObject(
        points=points,
        point_labels=labels,
        box=None if prompt.box is None else _relative_box(prompt.box, name, height, width),
        logits=None if prompt.logits is None else _checked_logits(prompt.logits, name, mask_size),
        multimask=lone_point if multimask is None else multimask,
    )


class ClickDecoder:
    """What turns object prompts into masks: the neck, the prompt encoder and the mask decoder of SAM 3's tracker.

    Args:
        network: a Sam3VideoModel.
    """

    def __init__(self, network: Any) -> None:
        self._neck, self._tracker = network.tracker_neck, network.tracker_model
        self._latest: Latest[Pyramid] = Latest()

    @property
    def mask_size(self) -> tuple[int, int]:
        """Height and width of mask logits, those given and those taken."""
        height, width = self._tracker.prompt_encoder.mask_input_size
        return height, width

    def decode(self, features: Tensor, objects: Sequence[EncodedObject]) -> list[Readings]:
        """The readings of every object of one image, each as if it had been asked about alone.

        Args:
            features: (T, D) last hidden state of the ViT, on any device.
        """
        weight = self._tracker.no_memory_embedding
        # Clicks come in a row on one image, and the neck is by far the most that is to do for one.
        pyramid = self._latest.of(features, lambda: self.pyramid(features[None].to(weight.device, weight.dtype)))
        readings: dict[int, Readings] = {}
        for group in _groups(objects):
            rows = torch.zeros(len(group), dtype=torch.long, device=weight.device)
            prompts = self._prompts([objects[index] for index in group])
            logits, scores = self.predict(pyramid.select(rows), prompts, multimask=objects[group[0]].multimask)
            answers = zip(logits.float().cpu().numpy(), scores.float().cpu().numpy(), strict=True)
            readings.update(zip(group, (_best_first(*answer) for answer in answers), strict=True))
        return [readings[index] for index in range(len(objects))]

    def forget(self) -> None:
        """Lets go of what is kept of the last image."""
        self._latest.clear()

    def pyramid(self, features: Tensor) -> Pyramid:
        """What the mask decoder sees of B images, from the ViT's last hidden states (B, T, D)."""
        grid = self._tracker.prompt_encoder.image_embedding_size
        fine, middle, coarse, *_ = self._neck(features.transpose(1, 2).unflatten(2, grid))[0]
        decoder = self._tracker.mask_decoder
        # An image is a video's first frame, which no memory comes before.
        coarse = coarse + self._tracker.no_memory_embedding.reshape(1, -1, 1, 1)
        return Pyramid(decoder.conv_s0(fine), decoder.conv_s1(middle), coarse)

    def predict(self, pyramid: Pyramid, prompts: Prompts, *, multimask: bool) -> tuple[Tensor, Tensor]:
        """Mask logits (B, M, h, w) and estimated overlaps (B, M) of B prompts, from the features of their B images."""
        encoder = self._tracker.prompt_encoder
        pixels = encoder.input_image_size
        sparse, dense = encoder(
            input_points=None if prompts.points is None else prompts.points[:, None] * pixels,
            input_labels=None if prompts.point_labels is None else prompts.point_labels[:, None],
            input_boxes=None if prompts.boxes is None else prompts.boxes[:, None] * pixels,
            input_masks=None if prompts.logits is None else prompts.logits[:, None],
        )
        positions = self._tracker.get_image_wide_positional_embeddings()
        logits, scores, _, _ = self._tracker.mask_decoder(
            image_embeddings=pyramid.coarse,
            image_positional_embeddings=positions.expand(len(pyramid.coarse), -1, -1, -1),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask,
            high_resolution_features=[pyramid.fine, pyramid.middle],
        )
        return logits[:, 0], scores[:, 0]

    def _prompts(self, objects: Sequence[EncodedObject]) -> Prompts:
        """Objects of one kind, stacked on the device."""
        weight = self._tracker.no_memory_embedding

        def stack(arrays: Sequence[NDArray[Any] | None]) -> Tensor | None:
            given = [array for array in arrays if array is not None and array.size]
            return torch.from_numpy(np.stack(given)).to(weight.device) if given else None

        logits = stack([item.logits for item in objects])
        return Prompts(
            points=stack([item.points for item in objects]),
            point_labels=stack([item.point_labels for item in objects]),
            boxes=stack([item.box for item in objects]),
            logits=None if logits is None else logits.to(weight.dtype),
        )


def _groups(objects: Sequence[EncodedObject]) -> Iterator[list[int]]:
    """Indices of objects to decode together."""
    order = sorted(range(len(objects)), key=lambda index: objects[index].kind)
    for _, group in groupby(order, key=lambda index: objects[index].kind):
        alike = list(group)
        for start in range(0, len(alike), OBJECTS_TOGETHER):
            yield alike[start : start + OBJECTS_TOGETHER]


def _best_first(logits: NDArray[np.float32], scores: NDArray[np.float32]) -> Readings:
    order = np.argsort(-scores, kind="stable")
    return Readings(logits[order], scores[order])


def _relative_points(
    prompt: ObjectPrompt, name: str, height: int, width: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    labels = prompt.point_labels
    if len(labels) != len(prompt.points) or any(label not in (0, 1) for label in labels):
        raise InvalidInput(
            f"{name} has {len(prompt.points)} points and the labels {list(labels)}. Give a label for each point: 1 on "
            "the object, 0 beside it."
        )
    for index, (x, y) in enumerate(prompt.points):
        # Also false where a coordinate is not a number.
        if not (0 <= x <= width and 0 <= y <= height):
            raise InvalidInput(
                f"{name}, point {index} {(x, y)} lies outside the image, which is {width} x {height} pixels. Give "
                "points as [x, y] in pixels of the image."
            )
    points = np.asarray(prompt.points, np.float32).reshape(-1, 2) / np.array([width, height], np.float32)
    return points, np.asarray(labels, np.int64)


def _relative_box(box: tuple[float, float, float, float], name: str, height: int, width: int) -> NDArray[np.float32]:
    clipped = clip_boxes(np.asarray([box], np.float32), width, height)[0]
    x0, y0, x1, y1 = clipped.tolist()
    # Also false where a coordinate is not a number.
    if not (x0 < x1 and y0 < y1):
        raise InvalidInput(
            f"{name}, box {box} covers nothing of the image, which is {width} x {height} pixels. A box is "
            "[x0, y0, x1, y1] with x0 < x1 and y0 < y1."
        )
    return clipped / np.array([width, height, width, height], np.float32)


def _checked_logits(logits: NDArray[np.float32], name: str, mask_size: tuple[int, int]) -> NDArray[np.float32]:
    if logits.shape != mask_size:
        raise InvalidInput(
            f"{name} has logits of shape {logits.shape}, and this model's are {mask_size}. Give one mask's logits from "
            "an earlier answer of this model."
        )
    if not np.isfinite(logits).all():
        raise InvalidInput(f"{name} has logits that are not finite. Give those of an earlier answer as they were.")
    return np.ascontiguousarray(logits, np.float32)
