"""Clicks on the wire: points and boxes that mean one object each, and masks to go on from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PrivateAttr

from vision_model_repo.api.json_bounds import AtMost
from vision_model_repo.api.native.geometry import Box, Point, Size, fit_box, fit_point
from vision_model_repo.api.native.masks import FoundMasks
from vision_model_repo.api.native.task import Options
from vision_model_repo.engine.images import MaskStore
from vision_model_repo.errors import InvalidInput, NotFound, TooLarge
from vision_model_repo.settings import Settings
from vision_model_repo.tasks.segmentation import ObjectPrompt

Item = TypeVar("Item")
PerImage = Annotated[list[Item], AtMost(lambda limits: limits.max_images)]
PerObject = Annotated[list[Item], AtMost(lambda limits: limits.max_objects)]
POINTS = AtMost(lambda limits: limits.max_request_points, together=True)
LABELS = AtMost(lambda limits: limits.max_request_points, together=True)

BY_OBJECT = ("points", "point_labels", "object_boxes", "mask_input")
"""Fields with a list for each image, which has an entry for each object."""


class ObjectOptions(Options):
    """Objects to outline, each meant by points, a box, or both."""

    points: PerImage[PerObject[Annotated[list[Point], POINTS]]] | None = Field(
        None,
        description="For each image, for each object, points `[x, y]` in pixels. They mean this one object, and not "
        "all that look like it, and need no prompts.",
        examples=[[[[[80, 70]]]]],
    )
    point_labels: PerImage[PerObject[Annotated[list[Literal[0, 1]], LABELS]]] | None = Field(
        None,
        description="For each point, 1 if it lies on the object (the default) or 0 if it lies beside it.",
        examples=[[[[1]]]],
    )
    object_boxes: PerImage[PerObject[Box | None]] | None = Field(
        None,
        description="For each image, for each object, a box `[x0, y0, x1, y1]` around it in pixels, or null.",
        examples=[[[[40, 30, 120, 110]]]],
    )
    mask_input: PerImage[PerObject[str | None]] | None = Field(
        None,
        description="For each image, for each object, one of the mask_ids of an earlier answer, which points or boxes "
        "are to correct, or null.",
        examples=[[["5f6b0f3a9c3e4d0db1c9a87e3f0a2b11-0"]]],
    )
    multimask: bool | None = Field(
        None,
        description="Give several readings of each object (the whole, a part, a part of that), best first. By default "
        "where an object is meant by a single point.",
        examples=[True],
    )

    _recalled: dict[str, NDArray[np.float32]] = PrivateAttr(default_factory=dict)

    def recall(self, masks: MaskStore) -> None:
        """Looks up mask_input. Raises InvalidInput for a mask that is not kept."""
        for index, row in enumerate(self.mask_input or []):
            for number, mask_id in enumerate(row):
                if mask_id is not None:
                    try:
                        self._recalled[mask_id] = masks.get(mask_id)
                    except NotFound as error:
                        raise InvalidInput(f"mask_input[{index}][{number}]: {error.message}") from None

    def object_count(self, image: int) -> int:
        return max((len(rows[image]) for name in BY_OBJECT if (rows := getattr(self, name))), default=0)

    def object_prompts(self, index: int, size: Size) -> tuple[ObjectPrompt, ...]:
        """What is asked about the objects of an image of a size. Raises InvalidInput for what does not lie in it."""
        return tuple(self._object(index, number, size) for number in range(self.object_count(index)))

    def _object(self, index: int, number: int, size: Size) -> ObjectPrompt:
        at = f"[{index}][{number}]"
        given = _entry(self.points, index, number) or []
        points = tuple(fit_point(point, size, f"points{at}[{place}]") for place, point in enumerate(given))
        labels = _entry(self.point_labels, index, number) or [1] * len(points)
        box = _entry(self.object_boxes, index, number)
        mask_id = _entry(self.mask_input, index, number)
        return ObjectPrompt(
            points,
            tuple(labels),
            box=None if box is None else fit_box(box, size, f"object_boxes{at}"),
            logits=None if mask_id is None else self._recalled[mask_id],
        )


class ObjectResult(FoundMasks):
    """The readings of one object, best first."""

    object_index: int = Field(description="Position of the object in the request.", examples=[0])
    mask_ids: list[str] = Field(
        description="For each mask an id to give as mask_input with a next click that corrects it.",
        examples=[["5f6b0f3a9c3e4d0db1c9a87e3f0a2b11-0"]],
    )


def check_objects(options: ObjectOptions, images: int, limits: Settings) -> None:
    """Raises InvalidInput or TooLarge, naming the field, for what can be known without seeing the images."""
    for name in BY_OBJECT:
        rows = getattr(options, name)
        if rows is not None and len(rows) != images:
            raise InvalidInput(f"{name} has {len(rows)} lists for {images} images. Give one list for each image.")
    for index in range(images):
        count = options.object_count(index)
        if count > limits.max_objects:
            raise TooLarge(f"images[{index}] has {count} objects; at most {limits.max_objects} are accepted.")
        for name in BY_OBJECT:
            row = (getattr(options, name) or [[]] * images)[index]
            if len(row) not in (0, count):
                raise InvalidInput(
                    f"{name}[{index}] has {len(row)} entries for {count} objects. Give one for each object, or an "
                    "empty list."
                )
        for number in range(count):
            _check_object(options, index, number, limits)
    together = sum(len(points) for row in options.points or [] for points in row)
    if together > limits.max_request_points:
        raise TooLarge(f"There are {together} points; at most {limits.max_request_points} are accepted in one request.")


def _check_object(options: ObjectOptions, index: int, number: int, limits: Settings) -> None:
    at = f"[{index}][{number}]"
    points = _entry(options.points, index, number) or []
    labels = _entry(options.point_labels, index, number)
    if not points and _entry(options.object_boxes, index, number) is None:
        raise InvalidInput(f"Object {number} of images[{index}] has neither points nor a box. Give points{at}.")
    if len(points) > limits.max_points:
        raise TooLarge(f"points{at} has {len(points)} points; at most {limits.max_points} are accepted.")
    if labels and len(labels) != len(points):
        raise InvalidInput(f"point_labels{at} has {len(labels)} labels for {len(points)} points. Give one for each.")


def _entry(rows: Sequence[Sequence[Any]] | None, index: int, number: int) -> Any:
    """What a field says of an object; None where it says nothing."""
    return rows[index][number] if rows and rows[index] else None
