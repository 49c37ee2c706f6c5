"""Masks in an answer: four forms in JSON, and booleans as arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, Field

from vision_model_repo.api.json_bounds import AtMost
from vision_model_repo.api.native.task import Arrays, check_listed, rounded
from vision_model_repo.api.wire import extend, write, write_base64, write_bits, write_list
from vision_model_repo.errors import TooLarge
from vision_model_repo.formats.masks import RunLengths, coco_rle, encode_mask_png, polygons
from vision_model_repo.settings import Settings
from vision_model_repo.tasks.segmentation import Instances, ObjectMasks

Corner = Annotated[list[float], Field(min_length=2, max_length=2)]
OutputFormat = Literal["rle", "polygons", "dense", "png"]


class RunLengthMask(BaseModel):
    """A mask in COCO's compressed form; `pycocotools.mask.decode` reads it."""

    size: Annotated[list[int], AtMost(2)] = Field(description="Height and width in pixels.", examples=[[480, 640]])
    counts: str = Field(description="Compressed run lengths.", examples=["`n\\\\4>1N2000O1"])


class FoundMasks(BaseModel):
    """Masks, best first. Of their forms, the requested one is present."""

    scores: list[float] = Field(description="Scores, 0..1.", examples=[[0.93]])
    boxes: list[list[float]] = Field(
        description="Boxes `[x0, y0, x1, y1]` in pixels.", examples=[[[40.0, 30.0, 120.0, 110.0]]]
    )
    masks_rle: list[RunLengthMask] | None = Field(None, description="Masks for output_format rle.")
    masks_polygon: list[list[list[Corner]]] | None = Field(
        None,
        description="Masks for output_format polygons: for each the rings of its outline, in pixels, holes included.",
        examples=[[[[[40, 30], [120, 30], [120, 110], [40, 110]]]]],
    )
    masks: list[list[list[int]]] | None = Field(
        None, description="Masks for output_format dense: rows of 0 and 1.", examples=[[[[0, 1], [1, 1]]]]
    )
    masks_png: list[str] | None = Field(
        None,
        description="Masks for output_format png: base64 of one-bit PNGs, white where set.",
        examples=[["iVBORw0KGgo..."]],
    )


def check_masks(masks: Sequence[RunLengths], output_format: OutputFormat, limits: Settings) -> None:
    """Raises TooLarge for masks that would be more numbers in JSON than settings allow."""
    if output_format == "dense":
        check_listed(_pixels(masks), limits, "Ask for output_format rle or png instead.")
    elif output_format == "polygons":
        # Every end of a run is a corner of two coordinates, or two.
        check_listed(sum(4 * len(mask.counts) for mask in masks), limits, "Ask for output_format rle instead.")


def write_masks(found: Instances | ObjectMasks, output_format: OutputFormat, head: dict[str, Any]) -> bytes:
    """Scores, boxes and masks as a JSON object that begins with some other members."""
    name, write_mask = MASK_WRITERS[output_format]
    members = {**head, "scores": rounded(found.scores, 6), "boxes": rounded(found.boxes, 2)}
    return extend(write(members), **{name: write_list(write_mask(mask) for mask in found.masks)})


def check_mask_arrays(masks: Sequence[RunLengths], limits: Settings) -> None:
    """Raises TooLarge for masks with more pixels than settings let an answer have."""
    if (pixels := _pixels(masks)) > limits.max_dense_values:
        raise TooLarge(
            f"The masks have {pixels} pixels; at most {limits.max_dense_values} are written. "
            "Ask for JSON with output_format rle instead."
        )


def mask_arrays(found: Instances | ObjectMasks, size: tuple[int, ...]) -> Arrays:
    """Scores (N,), boxes (N, 4) and masks (N, H, W) bool of an image of size (H, W)."""
    masks = np.empty((len(found.masks), *size), bool)
    for index, mask in enumerate(found.masks):
        masks[index] = mask.to_dense()
    return {"scores": found.scores, "boxes": found.boxes, "masks": masks}


def _pixels(masks: Sequence[RunLengths]) -> int:
    return sum(mask.height * mask.width for mask in masks)


MASK_WRITERS: dict[OutputFormat, tuple[str, Callable[[RunLengths], bytes]]] = {
    "rle": ("masks_rle", lambda mask: write(coco_rle(mask))),
    "polygons": ("masks_polygon", lambda mask: write(polygons(mask))),
    "dense": ("masks", lambda mask: write_bits(mask.to_dense())),
    "png": ("masks_png", lambda mask: write_base64(encode_mask_png(mask))),
}
"""For each output format, the field that carries the masks and how one mask is written."""
