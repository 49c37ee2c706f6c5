"""Segmentation on the wire."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from vision_model_repo.api.json_bounds import AtMost
from vision_model_repo.api.native.geometry import Box, fit_box
from vision_model_repo.api.native.images import Picture
from vision_model_repo.api.native.masks import (
    FoundMasks,
    OutputFormat,
    check_mask_arrays,
    check_masks,
    mask_arrays,
    write_masks,
)
from vision_model_repo.api.native.objects import ObjectOptions, ObjectResult, PerImage, check_objects
from vision_model_repo.api.native.prompts import PROMPT_EXAMPLES, PROMPTS, Prompts, check_prompts, prompts_of
from vision_model_repo.api.native.task import Answer, Arrays, Images, NativeTask, Unit
from vision_model_repo.api.wire import extend, write, write_list, write_object
from vision_model_repo.engine.images import MaskStore
from vision_model_repo.errors import InvalidInput, TooLarge
from vision_model_repo.formats.drawing import draw_masks
from vision_model_repo.formats.masks import RunLengths
from vision_model_repo.settings import Settings
from vision_model_repo.tasks.segmentation import (
    Instances,
    SegmentationPrompt,
    SegmentationRequest,
    SegmentationResult,
)

Weight = Annotated[float, Field(gt=0)]
BOXES = AtMost(lambda limits: limits.max_boxes)
VISUAL = "visual"
"""What a prompt without words is called."""


class SegmentationOptions(ObjectOptions):
    """What to segment: all that phrases or exemplar boxes name, and single objects that are pointed at."""

    repeated: ClassVar[frozenset[str]] = frozenset({"prompts"})

    prompts: Prompts | None = Field(None, description=PROMPTS, examples=PROMPT_EXAMPLES)
    threshold: Unit = Field(0.5, description="Least score of an instance, 0..1.", examples=[0.5])
    mask_threshold: Unit = Field(0.5, description="Least probability of a mask's pixel, 0..1.", examples=[0.5])
    resolve_overlaps: bool | Annotated[list[Weight], AtMost(lambda limits: limits.max_prompts)] = Field(
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
    boxes: PerImage[Annotated[list[Box], BOXES]] | None = Field(
        None,
        description="Exemplar boxes of each image, `[x0, y0, x1, y1]` in pixels. They accompany every prompt, or, "
        f"without prompts, are a prompt by themselves that the answer calls {VISUAL!r}.",
        examples=[[[[40, 30, 120, 110]]]],
    )
    box_labels: PerImage[Annotated[list[Literal[0, 1]], BOXES]] | None = Field(
        None,
        description="For each box, 1 to find what it shows (the default) or 0 to leave that out.",
        examples=[[[1]]],
    )


class SegmentationBody(SegmentationOptions, Images):
    """Images, and what to segment in them."""


class SegmentationInstances(FoundMasks):
    """What one prompt found, best first; empty lists if nothing. Of the masks, the requested form is present."""

    presence: float | None = Field(
        description="Belief that the prompt's concept is in the image at all, 0..1; null if the model has none.",
        examples=[0.98],
    )


class PromptResult(BaseModel):
    """One prompt's answer on one image."""

    prompt_index: int = Field(description="Position of the prompt in the request.", examples=[0])
    prompt: str = Field(description=f"The prompt as written, or {VISUAL!r} for boxes alone.", examples=["person"])
    result: SegmentationInstances = Field(description="Its instances.")


class SegmentationAnswer(Answer):
    """Instances by image and prompt, and masks by image and object."""

    results: list[list[PromptResult]] = Field(description="For each image, for each of its prompts, the instances.")
    objects: list[list[ObjectResult]] = Field(description="For each image, for each of its objects, the masks.")


@dataclass(frozen=True, slots=True)
class KeptResult(SegmentationResult):
    """A result of which the logits are kept.

    Attributes:
        mask_ids: for each object, an id for each mask.
    """

    mask_ids: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class SegmentationPart:
    """What is written of one image, as JSON."""

    prompts: bytes
    objects: bytes


class NativeSegmentation(NativeTask[SegmentationOptions, SegmentationRequest, KeptResult, SegmentationPart]):
    options = SegmentationOptions
    body = SegmentationBody
    answer = SegmentationAnswer
    summary = "Instance segmentation"

    def check(self, options: SegmentationOptions, images: int, limits: Settings) -> None:
        prompts = options.prompts or []
        check_prompts(prompts, images, limits)
        _check_boxes(options, images, limits)
        check_objects(options, images, limits)
        for index in range(images):
            count = len(prompts_of(prompts, index)) or int(bool(options.boxes and options.boxes[index]))
            if not count and not options.object_count(index):
                raise InvalidInput(f"images[{index}] has nothing to look for. Give prompts, boxes, or points.")
            weights = options.resolve_overlaps
            if isinstance(weights, list) and len(weights) != count:
                raise InvalidInput(f"resolve_overlaps has {len(weights)} weights; images[{index}] has {count} prompts.")

    def recall(self, options: SegmentationOptions, masks: MaskStore) -> None:
        options.recall(masks)

    def request(self, options: SegmentationOptions, index: int, picture: Picture) -> SegmentationRequest:
        boxes = options.boxes[index] if options.boxes else []
        height, width = picture.pixels.shape[:2]
        size = height, width
        inside = tuple(fit_box(box, size, f"boxes[{index}][{number}]") for number, box in enumerate(boxes))
        labels = tuple(options.box_labels[index]) if options.box_labels else (1,) * len(boxes)
        phrases = prompts_of(options.prompts or [], index) or (("",) if boxes else ())
        weights = options.resolve_overlaps
        if isinstance(weights, bool):
            weights = [1.0] * len(phrases) if weights else None
        return SegmentationRequest(
            picture.pixels,
            tuple(SegmentationPrompt(phrase, inside, labels) for phrase in phrases),
            threshold=options.threshold,
            mask_threshold=options.mask_threshold,
            overlap_weights=tuple(weights) if weights else None,
            objects=options.object_prompts(index, size),
            multimask=options.multimask,
            digest=picture.digest,
        )

    def keep(self, results: Sequence[SegmentationResult], masks: MaskStore) -> Sequence[KeptResult]:
        return [
            KeptResult(result.prompts, result.objects, tuple(tuple(masks.add(each.logits)) for each in result.objects))
            for result in results
        ]

    def check_results(self, options: SegmentationOptions, results: Sequence[KeptResult], limits: Settings) -> None:
        check_masks(_masks(results), options.output_format, limits)

    def encode(
        self, options: SegmentationOptions, request: SegmentationRequest, result: KeptResult
    ) -> SegmentationPart:
        prompts = write_list(
            extend(
                write({"prompt_index": index, "prompt": prompt.text or VISUAL}),
                result=write_masks(instances, options.output_format, {"presence": _presence(instances)}),
            )
            for index, (prompt, instances) in enumerate(zip(request.prompts, result.prompts, strict=True))
        )
        objects = write_list(
            write_masks(found, options.output_format, {"object_index": index, "mask_ids": mask_ids})
            for index, (found, mask_ids) in enumerate(zip(result.objects, result.mask_ids, strict=True))
        )
        return SegmentationPart(prompts, objects)

    def join(self, options: SegmentationOptions, parts: Sequence[SegmentationPart]) -> bytes:
        return write_object(
            results=write_list(part.prompts for part in parts), objects=write_list(part.objects for part in parts)
        )

    def arrays(
        self,
        options: SegmentationOptions,
        requests: Sequence[SegmentationRequest],
        results: Sequence[KeptResult],
        limits: Settings,
    ) -> Arrays:
        """`masks_0_1` and its kind are of image 0 and prompt 1, `object_masks_0_1` of image 0 and object 1."""
        check_mask_arrays(_masks(results), limits)
        arrays: Arrays = {}
        for image, (request, result) in enumerate(zip(requests, results, strict=True)):
            size = request.image.shape[:2]
            for index, instances in enumerate(result.prompts):
                presence = np.nan if instances.presence is None else instances.presence
                named = {**mask_arrays(instances, size), "presence": np.array(presence, np.float32)}
                arrays |= {f"{name}_{image}_{index}": array for name, array in named.items()}
            for index, (found, mask_ids) in enumerate(zip(result.objects, result.mask_ids, strict=True)):
                named = {**mask_arrays(found, size), "mask_ids": np.array(mask_ids)}
                arrays |= {f"object_{name}_{image}_{index}": array for name, array in named.items()}
        return arrays

    def draw(self, request: SegmentationRequest, result: KeptResult) -> NDArray[np.uint8]:
        """All instances, and the best reading of each object."""
        found = [
            (float(score), prompt.text or VISUAL, mask)
            for prompt, instances in zip(request.prompts, result.prompts, strict=True)
            for score, mask in zip(instances.scores, instances.masks, strict=True)
        ]
        objects = enumerate(result.objects)
        found += [(float(each.scores[0]), f"object {index}", each.masks[0]) for index, each in objects if each.masks]
        found.sort(key=lambda entry: -entry[0])
        scores, labels, masks = zip(*found, strict=True) if found else ((), (), ())
        return draw_masks(request.image, masks, labels, scores)


def _masks(results: Sequence[SegmentationResult]) -> list[RunLengths]:
    return [mask for result in results for found in (*result.prompts, *result.objects) for mask in found.masks]


def _presence(instances: Instances) -> float | None:
    return None if instances.presence is None else round(float(instances.presence), 6)


def _check_boxes(options: SegmentationOptions, images: int, limits: Settings) -> None:
    boxes, labels = options.boxes, options.box_labels
    if boxes is not None and len(boxes) != images:
        raise InvalidInput(f"boxes has {len(boxes)} lists for {images} images. Give one list for each image.")
    if labels is not None and [len(row) for row in labels] != [len(row) for row in boxes or []]:
        raise InvalidInput("box_labels must have one label for each box, in one list for each image.")
    for index, row in enumerate(boxes or []):
        if len(row) > limits.max_boxes:
            raise TooLarge(f"boxes[{index}] has {len(row)} boxes; at most {limits.max_boxes} are accepted.")
