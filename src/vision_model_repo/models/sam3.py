"""SAM 3, which finds every instance of what a phrase or an exemplar box names.

Segment Anything Model 3 (https://huggingface.co/facebook/sam3), through transformers' `Sam3Model`. Nearly all of the
work is in the image encoder, so a forward pass encodes each image once, whatever the number of its prompts, and each
distinct text once for as long as it is remembered.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import Sam3Model, Sam3Processor
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.sam3.modeling_sam3 import Sam3SinePositionEmbedding, Sam3VisionEncoderOutput

from vision_model_repo.errors import InvalidInput
from vision_model_repo.formats.logits import upsample_mask
from vision_model_repo.formats.masks import RunLengths, resolve_overlaps
from vision_model_repo.models.base import Checkpoint, EncoderModel
from vision_model_repo.models.sam3_prompts import EncodedPrompt, PromptEncoder
from vision_model_repo.models.torch_model import (
    TorchModel,
    check_architecture,
    place,
    read,
    read_prompt_processor,
    resize_and_normalize,
)
from vision_model_repo.tasks.segmentation import Instances, SegmentationRequest, SegmentationResult

MAX_BATCH = 4
"""Images encoded together; one of the published size nearly fills a GPU by itself."""
PROMPTS_TOGETHER = 8
"""Prompts decoded together; each takes some 300 MB for its activations and the masks of 200 queries, in float32."""
TEXTS_REMEMBERED = 512
"""Texts whose features are kept; 16 kB each in bfloat16."""


@dataclass(frozen=True, slots=True)
class Item:
    """Prompts about one image, its size in pixels, and its encoding: the last hidden state (T, D) of the ViT."""

    height: int
    width: int
    prompts: tuple[EncodedPrompt, ...]
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


class Sam3(
    TorchModel[SegmentationRequest, Item, list[Found], SegmentationResult],
    EncoderModel[SegmentationRequest, Item, list[Found], SegmentationResult, Tensor, Tensor],
):
    """SAM 3 on one device.

    A score is the query's own times the prompt's presence, as in the paper.
    """

    def __init__(self, checkpoint: Checkpoint, network: Sam3Model, processor: Sam3Processor) -> None:
        super().__init__(checkpoint, network, max_batch=MAX_BATCH)
        self._images: Any = processor.image_processor
        self._prompts = PromptEncoder(
            processor.tokenizer, max_tokens=int(self.network.config.text_config.max_position_embeddings)
        )
        self._patch_size = int(self.network.config.vision_config.backbone_config.patch_size)
        self._texts: OrderedDict[str, Tensor] = OrderedDict()

    def preprocess(self, request: SegmentationRequest) -> Item:
        """Raises InvalidInput for a prompt that is empty or too long, or a box that marks nothing."""
        if not request.prompts:
            raise InvalidInput("Give at least one prompt: a phrase, exemplar boxes, or both.")
        if request.overlap_weights is not None and len(request.overlap_weights) != len(request.prompts):
            raise InvalidInput(
                f"There are {len(request.overlap_weights)} weights for overlaps but {len(request.prompts)} prompts. "
                "Give one weight for each prompt."
            )
        height, width = request.image.shape[:2]
        return Item(
            height=height,
            width=width,
            prompts=tuple(
                self._prompts.encode(prompt, f"Prompt {index}", height=height, width=width)
                for index, prompt in enumerate(request.prompts)
            ),
            threshold=request.threshold,
            mask_threshold=request.mask_threshold,
            overlap_weights=request.overlap_weights,
        )

    def prepare(self, image: NDArray[np.uint8]) -> Tensor:
        """(3, H, W) as the network wants it."""
        size = self._images.size
        return resize_and_normalize(
            image,
            (size["height"], size["width"]),
            mean=self._images.image_mean,
            std=self._images.image_std,
            resample=self._images.resample,
        )

    def encode(self, images: Sequence[Tensor]) -> list[Tensor]:
        """What the ViT sees, by far most of the work; the pyramid above it is several times larger, and cheap."""
        with torch.inference_mode():
            states = self.network.vision_encoder.backbone(self._to_network(images)).last_hidden_state
            return [state.clone() for state in states]

    def attach(self, item: Item, encoding: Tensor) -> Item:
        return replace(item, encoding=encoding)

    def forward(self, items: Sequence[Item]) -> list[list[Found]]:
        asked = [(index, prompt) for index, item in enumerate(items) for prompt in item.prompts]
        found: dict[int, Found] = {}
        with torch.inference_mode():
            vision, rows = self._pyramid([item.encoding for item in items])
            texts = self._text_features([prompt for _, prompt in asked])
            for chunk in _chunks([len(prompt.boxes) for _, prompt in asked]):
                owners = [asked[index][0] for index in chunk]
                answers = self._decode(
                    _select(vision, [rows[owner] for owner in owners]),
                    torch.stack([texts[asked[index][1].text] for index in chunk]),
                    [asked[index][1] for index in chunk],
                    [items[owner].threshold for owner in owners],
                )
                found.update(zip(chunk, answers, strict=True))
        answers = iter([found[index] for index in range(len(asked))])
        return [[next(answers) for _ in item.prompts] for item in items]

    def _pyramid(self, encodings: Sequence[Tensor | None]) -> tuple[Sam3VisionEncoderOutput, list[int]]:
        """The feature pyramid of every image that is asked about, once, and the row of each question's image."""
        different = {id(encoding): encoding for encoding in encodings if encoding is not None}
        rows = list(different)
        states = torch.stack([encoding.to(self.device) for encoding in different.values()])
        # As Sam3VisionModel goes on from its backbone.
        grid = self._images.size["height"] // self._patch_size, self._images.size["width"] // self._patch_size
        levels, positions = self.network.vision_encoder.neck(states.transpose(1, 2).unflatten(2, grid))
        vision = Sam3VisionEncoderOutput(fpn_hidden_states=levels, fpn_position_encoding=positions)
        return vision, [rows.index(id(encoding)) for encoding in encodings]

    def postprocess(self, raw: list[Found], item: Item) -> SegmentationResult:
        masks = [
            [upsample_mask(logits, item.height, item.width, threshold=item.mask_threshold) for logits in found.logits]
            for found in raw
        ]
        if item.overlap_weights is not None:
            masks = _share_pixels(masks, [found.scores for found in raw], item.overlap_weights)
        return SegmentationResult(tuple(_instances(found, own, item) for found, own in zip(raw, masks, strict=True)))

    def unload(self) -> None:
        self._texts.clear()
        super().unload()
        _forget_positions()

    def _to_network(self, tensors: Sequence[Tensor]) -> Tensor:
        """Stacks tensors and copies them to the device in the dtype of the weights."""
        return self.to_device(tensors, getattr(torch, self.dtype))

    def _text_features(self, prompts: Sequence[EncodedPrompt]) -> dict[str, Tensor]:
        """Features (T, D) of every text, from memory where they are."""
        new = {prompt.text: prompt for prompt in prompts if prompt.text not in self._texts}
        if new:
            features = self.network.get_text_features(
                input_ids=self.to_device([prompt.token_ids for prompt in new.values()]),
                attention_mask=self.to_device([prompt.attention_mask for prompt in new.values()]),
            ).pooler_output
            # Cloned, since a row would keep the whole batch in memory for as long as it is remembered.
            self._texts.update((text, row.clone()) for text, row in zip(new, features, strict=True))
        texts = {prompt.text: self._texts[prompt.text] for prompt in prompts}
        for text in texts:
            self._texts.move_to_end(text)
        while len(self._texts) > TEXTS_REMEMBERED:
            self._texts.popitem(last=False)
        return texts

    def _decode(
        self,
        vision: Sam3VisionEncoderOutput,
        texts: Tensor,
        prompts: Sequence[EncodedPrompt],
        thresholds: Sequence[float],
    ) -> list[Found]:
        """Answers B prompts with the same number of boxes from the features of B images and B texts."""
        has_boxes = len(prompts[0].boxes) > 0
        outputs = self.network(
            vision_embeds=vision,
            text_embeds=BaseModelOutputWithPooling(pooler_output=texts),
            # Without it the padding would be read as text, and every score would change.
            attention_mask=self.to_device([prompt.attention_mask for prompt in prompts]),
            input_boxes=self._to_network([prompt.boxes for prompt in prompts]) if has_boxes else None,
            input_boxes_labels=self.to_device([prompt.box_labels for prompt in prompts]) if has_boxes else None,
        )
        presence = outputs.presence_logits.float().sigmoid()
        scores = outputs.pred_logits.float().sigmoid() * presence
        # Only what passes leaves the device: the masks of all queries would be 66 MB a prompt.
        keep = scores > torch.tensor(thresholds, device=scores.device)[:, None]
        counts = keep.sum(1).tolist()
        logits = outputs.pred_masks[keep].cpu().float().numpy()
        kept = scores[keep].cpu().numpy()
        ends = np.cumsum(counts)[:-1]
        return [
            Found(*answer)
            for answer in zip(np.split(kept, ends), np.split(logits, ends), presence[:, 0].tolist(), strict=True)
        ]


def load(checkpoint: Checkpoint, *, device: str, dtype: str) -> Sam3:
    """Reads a checkpoint in the format of `facebook/sam3`, whose tracker for video is left out.

    Raises:
        NotFound: the checkpoint is of another kind, or a part of it is missing.
    """
    check_architecture(checkpoint, ("sam3", "sam3_video"))
    processor = read_prompt_processor(Sam3Processor, checkpoint)
    network = place(read(Sam3Model, checkpoint), device=device, dtype=dtype)
    return Sam3(checkpoint, network, processor)


def _chunks(box_counts: Sequence[int]) -> Iterator[list[int]]:
    """Indices of prompts to decode together: as many boxes in each, so that none is padded."""
    order = sorted(range(len(box_counts)), key=lambda index: box_counts[index])
    for _, group in groupby(order, key=lambda index: box_counts[index]):
        alike = list(group)
        for start in range(0, len(alike), PROMPTS_TOGETHER):
            yield alike[start : start + PROMPTS_TOGETHER]


def _select(vision: Sam3VisionEncoderOutput, images: Sequence[int]) -> Sam3VisionEncoderOutput:
    """The features of some images, one for each prompt; without a copy where all prompts are about one image."""
    first, count = images[0], len(images)

    def select(level: Tensor) -> Tensor:
        if all(image == first for image in images):
            return level[first : first + 1].expand(count, -1, -1, -1)
        return level[torch.tensor(images, device=level.device)]

    return Sam3VisionEncoderOutput(
        fpn_hidden_states=tuple(select(level) for level in vision.fpn_hidden_states),
        # Positions are those of any image.
        fpn_position_encoding=tuple(level[:1].expand(count, -1, -1, -1) for level in vision.fpn_position_encoding),
    )


def _share_pixels(
    masks: Sequence[Sequence[RunLengths]], scores: Sequence[NDArray[np.float32]], weights: Sequence[float]
) -> list[list[RunLengths]]:
    """Gives each pixel to the mask with the highest score times weight, across all prompts."""
    priorities = np.concatenate([own * weight for own, weight in zip(scores, weights, strict=True)])
    resolved = iter(resolve_overlaps([mask for own in masks for mask in own], priorities.tolist()))
    return [[next(resolved) for _ in own] for own in masks]


def _instances(found: Found, masks: Sequence[RunLengths], item: Item) -> Instances:
    """The masks that have a pixel, best first, with their boxes."""
    boxes = [mask.box for mask in masks]
    order = [index for index in np.argsort(-found.scores, kind="stable").tolist() if boxes[index] is not None]
    return Instances(
        scores=found.scores[order],
        boxes=np.array([boxes[index] for index in order], np.float32).reshape(-1, 4),
        masks=tuple(masks[index] for index in order),
        presence=found.presence,
    )


def _forget_positions() -> None:
    """Makes transformers let go of the last four position encodings, which it keeps on the device for ever.

    Its cache has no other way to be emptied from outside than by four entries of no size.
    """
    for size in range(1, 5):
        Sam3SinePositionEmbedding.build_sine_position_embedding(torch.Size([1, 1, 1, size]), "cpu", torch.float32, 2)
