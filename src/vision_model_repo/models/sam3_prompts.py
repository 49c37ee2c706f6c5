"""SAM 3's prompts as tensors: phrases as tokens, exemplar boxes relative to the image."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vision_model_repo.errors import InvalidInput
from vision_model_repo.formats.boxes import clip_boxes
from vision_model_repo.tasks.segmentation import SegmentationPrompt

WORDLESS = "visual"
"""The text that SAM 3 was trained with where only boxes were given."""


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """A prompt as tensors: token ids and attention mask (T,), boxes (N, 4) cxcywh 0..1 and their labels (N,)."""

    text: str
    token_ids: Tensor
    attention_mask: Tensor
    boxes: Tensor
    box_labels: Tensor


class PromptEncoder:
    """Encodes prompts, in any thread.

    Args:
        tokenizer: of the checkpoint.
        max_tokens: how many the text encoder reads; shorter texts are padded to it.
    """

    def __init__(self, tokenizer: Any, max_tokens: int) -> None:
        self._tokenizer = tokenizer
        # The tokenizers of transformers set their padding anew on every call, and may not be shared meanwhile.
        self._lock = threading.Lock()
        self._max_tokens = max_tokens

    def encode(self, prompt: SegmentationPrompt, name: str, *, height: int, width: int) -> EncodedPrompt:
        """Encodes one prompt about an image.

        Args:
            name: what an error calls the prompt.
            height, width: of the image in pixels.

        Raises:
            InvalidInput: the prompt is empty or too long, or one of its boxes marks nothing.
        """
        text = prompt.text.strip()
        if not text and not prompt.boxes:
            raise InvalidInput(f"{name} is empty. Give it a text, exemplar boxes, or both.")
        text = text or WORDLESS
        with self._lock:
            # Not verbose: what is too long is refused below, in better words than the tokenizer's.
            ids = self._tokenizer(text, verbose=False)["input_ids"]
        if len(ids) > self._max_tokens:
            raise InvalidInput(
                f"{name} ({text[:40]!r}...) has {len(ids)} tokens, and this model reads {self._max_tokens}. Use a "
                "short noun phrase."
            )
        padding = self._max_tokens - len(ids)
        return EncodedPrompt(
            text=text,
            token_ids=torch.tensor(ids + [self._tokenizer.pad_token_id] * padding),
            attention_mask=torch.tensor([1] * len(ids) + [0] * padding),
            boxes=_relative_boxes(prompt, name, height, width),
            box_labels=torch.tensor(prompt.box_labels, dtype=torch.long),
        )


def _relative_boxes(prompt: SegmentationPrompt, name: str, height: int, width: int) -> Tensor:
    """The boxes as (N, 4) centre, width and height, cut to the image and relative to it."""
    if len(prompt.box_labels) != len(prompt.boxes) or any(label not in (0, 1) for label in prompt.box_labels):
        raise InvalidInput(f"{name} has {len(prompt.boxes)} boxes. Give a label for each: 1 to take, 0 to leave out.")
    boxes = clip_boxes(np.asarray(prompt.boxes, np.float32).reshape(-1, 4), width, height)
    for index, (x0, y0, x1, y1) in enumerate(boxes.tolist()):
        # Also false where a coordinate is not a number.
        if not (x0 < x1 and y0 < y1):
            raise InvalidInput(
                f"{name}, box {index} {prompt.boxes[index]} covers nothing of the image, which is {width} x {height} "
                "pixels. A box is [x0, y0, x1, y1] with x0 < x1 and y0 < y1."
            )
    boxes /= np.array([width, height, width, height], np.float32)
    return torch.from_numpy(np.hstack([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]]))
