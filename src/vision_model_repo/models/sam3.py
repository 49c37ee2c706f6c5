"""SAM 3, which finds every instance of what a phrase or an exemplar box names.

Segment Anything Model 3 (https://huggingface.co/facebook/sam3), through transformers' `Sam3Model`. Nearly all of the
work is in the image encoder, so a forward pass encodes each image once, whatever the number of its prompts, and each
distinct text once for as long as it is remembered.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel, Sam3Model, Sam3Processor, Sam3VideoModel
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.sam3.modeling_sam3 import Sam3SinePositionEmbedding, Sam3VisionEncoderOutput

from vision_model_repo.errors import InvalidInput
from vision_model_repo.models.base import Checkpoint, EncoderModel
from vision_model_repo.models.checkpoint_files import reads_checkpoint
from vision_model_repo.models.latest import Latest
from vision_model_repo.models.sam3_answers import Answer, Found, Item, to_result
from vision_model_repo.models.sam3_clicks import ClickDecoder, EncodedObject, Readings, encode_object
from vision_model_repo.models.sam3_prompts import EncodedPrompt, PromptEncoder
from vision_model_repo.models.token_ids import check_vocabulary
from vision_model_repo.models.torch_model import (
    ImageInput,
    TorchModel,
    check_architecture,
    place,
    read,
    read_prompt_processor,
)
from vision_model_repo.tasks.segmentation import SegmentationRequest, SegmentationResult

NETWORKS: dict[str, type[PreTrainedModel]] = {"sam3": Sam3Model, "sam3_video": Sam3VideoModel}
MAX_BATCH = 4
"""Images encoded together; one of the published size nearly fills a GPU by itself."""
PROMPTS_TOGETHER = 8
"""Prompts decoded together; each takes some 300 MB for its activations and the masks of 200 queries, in float32."""
TEXTS_REMEMBERED = 512
"""Texts whose features are kept; 16 kB each in bfloat16."""


class Sam3(
    TorchModel[SegmentationRequest, Item, Answer, SegmentationResult],
    EncoderModel[SegmentationRequest, Item, Answer, SegmentationResult, Tensor, Tensor],
):
    """SAM 3 on one device.

    A score is the query's own times the prompt's presence, as in the paper.
    """

    def __init__(self, checkpoint: Checkpoint, network: PreTrainedModel, processor: Sam3Processor) -> None:
        super().__init__(checkpoint, network, max_batch=MAX_BATCH)
        self._clicks = ClickDecoder(network) if isinstance(network, Sam3VideoModel) else None
        images: Any = processor.image_processor
        self._size = size = (images.size["height"], images.size["width"])
        self._images = ImageInput(
            lambda height, width: size,
            mean=images.image_mean,
            std=images.image_std,
            resample=images.resample,
            device=self.device,
        )
        self._prompts = PromptEncoder(
            processor.tokenizer, max_tokens=int(self._detector.config.text_config.max_position_embeddings)
        )
        self._patch_size = int(self._detector.config.vision_config.backbone_config.patch_size)
        self._texts: OrderedDict[str, Tensor] = OrderedDict()
        self._latest: Latest[Sam3VisionEncoderOutput] = Latest()

    @property
    def _detector(self) -> Any:
        """What finds by phrases and exemplars: all of the network, or its part where there is a tracker too."""
        return self.network if self._clicks is None else self.network.detector_model

    def preprocess(self, request: SegmentationRequest) -> Item:
        """Raises InvalidInput for a prompt that is empty or too long, or one that marks nothing in the image."""
        if not request.prompts and not request.objects:
            raise InvalidInput("Give at least one prompt (a phrase, exemplar boxes, or both) or an object.")
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
            objects=self._encode_objects(request),
            threshold=request.threshold,
            mask_threshold=request.mask_threshold,
            overlap_weights=request.overlap_weights,
        )

    def _encode_objects(self, request: SegmentationRequest) -> tuple[EncodedObject, ...]:
        if not request.objects:
            return ()
        if self._clicks is None:
            raise InvalidInput(
                f"{self.model_id} has no tracker, which is what answers points and boxes of single objects. Use a "
                "checkpoint that has one, such as facebook/sam3, or exemplar boxes."
            )
        height, width = request.image.shape[:2]
        mask_size = self._clicks.mask_size
        return tuple(
            encode_object(
                prompt,
                f"Object {index}",
                height=height,
                width=width,
                mask_size=mask_size,
                multimask=request.multimask,
            )
            for index, prompt in enumerate(request.objects)
        )

    def prepare(self, image: NDArray[np.uint8]) -> Tensor:
        return self._images.prepare(image)

    @property
    def encoders(self) -> list[nn.Module]:
        return [self._detector.vision_encoder.backbone]

    def encode(self, images: Sequence[Tensor]) -> list[Tensor]:
        """What the ViT sees, by far most of the work; the pyramid above it is several times larger, and cheap."""
        with torch.inference_mode():
            states = self._detector.vision_encoder.backbone(
                self._images.batch(images, getattr(torch, self.dtype))
            ).last_hidden_state
            return [state.clone() for state in states]

    def attach(self, item: Item, encoding: Tensor) -> Item:
        return replace(item, encoding=encoding)

    def weight(self, item: Item) -> int:
        return len(item.prompts) + len(item.objects)

    def forward(self, items: Sequence[Item]) -> list[Answer]:
        with torch.inference_mode():
            found = self._find([item for item in items if item.prompts])
            return [
                Answer(next(found) if item.prompts else [], self._outline(item) if item.objects else [])
                for item in items
            ]

    def _find(self, items: Sequence[Item]) -> Iterator[list[Found]]:
        """What the detector finds for the prompts of each item."""
        if not items:
            return
        asked = [(index, prompt) for index, item in enumerate(items) for prompt in item.prompts]
        found: dict[int, Found] = {}
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
        yield from [[next(answers) for _ in item.prompts] for item in items]

    def _outline(self, item: Item) -> list[Readings]:
        """What the tracker makes of the objects of an item."""
        assert self._clicks is not None and item.encoding is not None
        return self._clicks.decode(item.encoding, item.objects)

    def _pyramid(self, encodings: Sequence[Tensor | None]) -> tuple[Sam3VisionEncoderOutput, list[int]]:
        """The feature pyramid of every image that is asked about, once, and the row of each question's image."""
        different = {id(encoding): encoding for encoding in encodings if encoding is not None}
        rows, states = list(different), list(different.values())
        # One image's is kept for the next question: it costs as much as a prompt, and 56 MB in bfloat16.
        vision = self._latest.of(states[0], lambda: self._raise(states)) if len(states) == 1 else self._raise(states)
        return vision, [rows.index(id(encoding)) for encoding in encodings]

    def _raise(self, encodings: Sequence[Tensor]) -> Sam3VisionEncoderOutput:
        """The pyramid above what the ViT sees, as Sam3VisionModel goes on from its backbone."""
        states = torch.stack([encoding.to(self.device) for encoding in encodings])
        grid = self._size[0] // self._patch_size, self._size[1] // self._patch_size
        levels, positions = self._detector.vision_encoder.neck(states.transpose(1, 2).unflatten(2, grid))
        return Sam3VisionEncoderOutput(fpn_hidden_states=levels, fpn_position_encoding=positions)

    def postprocess(self, raw: Answer, item: Item) -> SegmentationResult:
        return to_result(raw, item)

    def unload(self) -> None:
        self._texts.clear()
        self._latest.clear()
        if self._clicks is not None:
            self._clicks.forget()
        super().unload()
        _forget_positions()

    def _to_network(self, tensors: Sequence[Tensor]) -> Tensor:
        """Stacks tensors and copies them to the device in the dtype of the weights."""
        return self.to_device(tensors, getattr(torch, self.dtype))

    def _text_features(self, prompts: Sequence[EncodedPrompt]) -> dict[str, Tensor]:
        """Features (T, D) of every text, from memory where they are."""
        new = {prompt.text: prompt for prompt in prompts if prompt.text not in self._texts}
        if new:
            features = self._detector.get_text_features(
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
        outputs = self._detector(
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


@reads_checkpoint
def load(checkpoint: Checkpoint, *, device: str, dtype: str) -> Sam3:
    """Reads a checkpoint in the format of `facebook/sam3`, or one that has the detector alone and answers no clicks.

    Raises:
        NotFound: the checkpoint is of another kind, or a part of it is missing.
    """
    network_class = NETWORKS[check_architecture(checkpoint, list(NETWORKS))]
    processor = read_prompt_processor(Sam3Processor, checkpoint)
    network = place(read(network_class, checkpoint), device=device, dtype=dtype)
    check_vocabulary(checkpoint.model_id, processor.tokenizer, network)
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


def _forget_positions() -> None:
    """Makes transformers let go of the last four position encodings, which it keeps on the device for ever.

    Its cache has no other way to be emptied from outside than by four entries of no size.
    """
    for size in range(1, 5):
        Sam3SinePositionEmbedding.build_sine_position_embedding(torch.Size([1, 1, 1, size]), "cpu", torch.float32, 2)
