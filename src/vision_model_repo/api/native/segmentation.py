"""Segmentation on the wire."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from vision_model_repo.api.native.prompts import PROMPT_EXAMPLES, PROMPTS, Prompts, check_prompts, prompts_of
from vision_model_repo.api.native.task import Answer, Images, NativeTask, Options, Unit, check_listed, rounded
from vision_model_repo.api.wire import extend, write, write_base64, write_bits, write_list, write_object
from vision_model_repo.errors import InvalidInput, TooLarge
from vision_model_repo.formats.drawing import draw_masks
from vision_model_repo.formats.masks import RunLengths, coco_rle, encode_mask_png, polygons
from vision_model_repo.settings import Settings
from vision_model_repo.tasks.segmentation import (
    Instances,
    SegmentationPrompt,
    SegmentationRequest,
    SegmentationResult,
)

# What a prompt without words is called.
VISUAL = "visual"
# How far a box may reach over the image's edge, in pixels, before it is taken for a mistake.
BOX_TOLERANCE = 1.0

Box = tuple[float, float, float, float]
Corner = Annotated[list[float], Field(min_length=2, max_length=2)]
OutputFormat = Literal["rle", "polygons", "dense", "png"]


class SegmentationOptions(Options):
    """How to segment: by phrases, by exemplar boxes, or by both."""

    repeated: ClassVar[frozenset[str]] = frozenset({"prompts"})

    prompts: Prompts | None = Field(None, description=PROMPTS, examples=PROMPT_EXAMPLES)
    threshold: Unit = Field(0.5, description="Least score of an instance, 0..1.", examples=[0.5])
    mask_threshold: Unit = Field(0.5, description="Least probability of a mask's pixel, 0..1.", examples=[0.5])
    resolve_overlaps: bool | list[Annotated[float, Field(gt=0)]] = Field(
        False,
        description="Give each pixel to one mask only, the one with the highest score; or, with a list of weights, "
        "one for each prompt, the highest score times weight.",
        examples=[True, [1.0, 0.5]],
    )
    output_format: OutputFormat = Field(
        "rle",
        description="How masks are written: COCO's compressed run lengths, polygons, lists of 0 and 1, or base64 PNGs.",
        examples=["rle"],
    )
    boxes: list[list[Box]] | None = Field(
        None,
        description="Exemplar boxes of each image, `[x0, y0, x1, y1]` in pixels. They accompany every prompt, or, "
        f"without prompts, are a prompt by themselves that the answer calls {VISUAL!r}.",
        examples=[[[[40, 30, 120, 110]]]],
    )
    box_labels: list[list[Literal[0, 1]]] | None = Field(
        None,
        description="For each box, 1 to find what it shows (the default) or 0 to leave that out.",
        examples=[[[1]]],
    )


class SegmentationBody(SegmentationOptions, Images):
    """Images, and what to segment in them."""


class RunLengthMask(BaseModel):
    """A mask in COCO's compressed form; `pycocotools.mask.decode` reads it."""

    size: list[int] = Field(description="Height and width in pixels.", examples=[[480, 640]])
    counts: str = Field(description="Compressed run lengths.", examples=["`n\\\\4>1N2000O1"])


class SegmentationInstances(BaseModel):
    """What one prompt found, best first; empty lists if nothing. Of the masks, the requested form is present."""

    scores: list[float] = Field(description="Scores, 0..1.", examples=[[0.93]])
    boxes: list[list[float]] = Field(
        description="Boxes `[x0, y0, x1, y1]` in pixels.", examples=[[[40.0, 30.0, 120.0, 110.0]]]
    )
    presence: float | None = Field(
        description="Belief that the prompt's concept is in the image at all, 0..1; null if the model has none.",
        examples=[0.98],
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


class PromptResult(BaseModel):
    """One prompt's answer on one image."""

    prompt_index: int = Field(description="Position of the prompt in the request.", examples=[0])
    prompt: str = Field(description=f"The prompt as written, or {VISUAL!r} for boxes alone.", examples=["person"])
    result: SegmentationInstances = Field(description="Its instances.")


class SegmentationAnswer(Answer):
    """Instances by image and prompt."""

    results: list[list[PromptResult]] = Field(description="For each image, for each of its prompts, the instances.")


class NativeSegmentation(
    NativeTask[SegmentationOptions, SegmentationRequest, SegmentationResult, bytes],
):
    options = SegmentationOptions
    body = SegmentationBody
    answer = SegmentationAnswer
    summary = "Instance segmentation"

    def check(self, options: SegmentationOptions, images: int, limits: Settings) -> None:
        prompts = options.prompts or []
        check_prompts(prompts, images, limits)
        _check_boxes(options, images, limits)
        for index in range(images):
            count = len(prompts_of(prompts, index)) or int(bool(options.boxes and options.boxes[index]))
            if not count:
                raise InvalidInput(f"images[{index}] has nothing to look for. Give prompts, boxes, or both.")
            weights = options.resolve_overlaps
            if isinstance(weights, list) and len(weights) != count:
                raise InvalidInput(f"resolve_overlaps has {len(weights)} weights; images[{index}] has {count} prompts.")

    def request(self, options: SegmentationOptions, index: int, image: NDArray[np.uint8]) -> SegmentationRequest:
        boxes = options.boxes[index] if options.boxes else []
        inside = tuple(_fit(box, image, f"boxes[{index}][{number}]") for number, box in enumerate(boxes))
        labels = tuple(options.box_labels[index]) if options.box_labels else (1,) * len(boxes)
        phrases = prompts_of(options.prompts or [], index) or ("",)
        weights = options.resolve_overlaps
        if isinstance(weights, bool):
            weights = [1.0] * len(phrases) if weights else None
        return SegmentationRequest(
            image,
            tuple(SegmentationPrompt(phrase, inside, labels) for phrase in phrases),
            threshold=options.threshold,
            mask_threshold=options.mask_threshold,
            overlap_weights=tuple(weights) if weights else None,
        )

    def check_results(
        self, options: SegmentationOptions, results: Sequence[SegmentationResult], limits: Settings
    ) -> None:
        masks = [mask for result in results for prompt in result.prompts for mask in prompt.masks]
        if options.output_format == "dense":
            check_listed(
                sum(mask.height * mask.width for mask in masks), limits, "Ask for output_format rle or png instead."
            )
        elif options.output_format == "polygons":
            # Every end of a run is a corner of two coordinates, or two.
            check_listed(sum(4 * len(mask.counts) for mask in masks), limits, "Ask for output_format rle instead.")

    def encode(self, options: SegmentationOptions, request: SegmentationRequest, result: SegmentationResult) -> bytes:
        return write_list(
            extend(
                write({"prompt_index": index, "prompt": prompt.text or VISUAL}),
                result=_write_instances(instances, options.output_format),
            )
            for index, (prompt, instances) in enumerate(zip(request.prompts, result.prompts, strict=True))
        )

    def join(self, options: SegmentationOptions, parts: Sequence[bytes]) -> bytes:
        return write_object(results=write_list(parts))

    def draw(self, request: SegmentationRequest, result: SegmentationResult) -> NDArray[np.uint8]:
        found = [
            (float(score), prompt.text or VISUAL, mask)
            for prompt, instances in zip(request.prompts, result.prompts, strict=True)
            for score, mask in zip(instances.scores, instances.masks, strict=True)
        ]
        found.sort(key=lambda entry: -entry[0])
        scores, labels, masks = zip(*found, strict=True) if found else ((), (), ())
        return draw_masks(request.image, masks, labels, scores)


def _check_boxes(options: SegmentationOptions, images: int, limits: Settings) -> None:
    boxes, labels = options.boxes, options.box_labels
    if boxes is not None and len(boxes) != images:
        raise InvalidInput(f"boxes has {len(boxes)} lists for {images} images. Give one list for each image.")
    if labels is not None and [len(row) for row in labels] != [len(row) for row in boxes or []]:
        raise InvalidInput("box_labels must have one label for each box, in one list for each image.")
    for index, row in enumerate(boxes or []):
        if len(row) > limits.max_boxes:
            raise TooLarge(f"boxes[{index}] has {len(row)} boxes; at most {limits.max_boxes} are accepted.")


def _fit(box: Box, image: NDArray[np.uint8], name: str) -> Box:
    """The box, clipped to the image where rounding has moved it over the edge."""
    height, width = image.shape[:2]
    x0, y0, x1, y1 = box
    if x1 <= x0 or y1 <= y0:
        raise InvalidInput(f"{name} has no area. A box is [x0, y0, x1, y1] with x0 < x1 and y0 < y1.")
    if min(x0, y0) < -BOX_TOLERANCE or x1 > width + BOX_TOLERANCE or y1 > height + BOX_TOLERANCE:
        raise InvalidInput(f"{name} reaches outside the image, which is {width} x {height} pixels.")
    x0, y0, x1, y1 = max(0.0, x0), max(0.0, y0), min(float(width), x1), min(float(height), y1)
    if x1 <= x0 or y1 <= y0:
        raise InvalidInput(f"{name} lies outside the image, which is {width} x {height} pixels.")
    return x0, y0, x1, y1


def _write_instances(instances: Instances, output_format: OutputFormat) -> bytes:
    name, write_mask = MASK_WRITERS[output_format]
    head = {
        "scores": rounded(instances.scores, 6),
        "boxes": rounded(instances.boxes, 2),
        "presence": None if instances.presence is None else round(float(instances.presence), 6),
    }
    return extend(write(head), **{name: write_list(write_mask(mask) for mask in instances.masks)})


MASK_WRITERS: dict[OutputFormat, tuple[str, Callable[[RunLengths], bytes]]] = {
    "rle": ("masks_rle", lambda mask: write(coco_rle(mask))),
    "polygons": ("masks_polygon", lambda mask: write(polygons(mask))),
    "dense": ("masks", lambda mask: write_bits(mask.to_dense())),
    "png": ("masks_png", lambda mask: write_base64(encode_mask_png(mask))),
}
"""For each output format, the field that carries the masks and how one mask is written."""
