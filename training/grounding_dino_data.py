"""Requests of several phrases and batches of scenes for training Grounding DINO."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from transformers import GroundingDinoProcessor

from training.common import draw_scene, jitter
from training.data import SIZE, SceneCache
from training.grounding_dino_model import LONGEST_EDGE
from vision_model_repo.demo.scenes import COLORS, SHAPES, phrases

MAX_PHRASES = 10
LONG_REQUEST = 24
"""Phrases at most in the tenth of the batches that teaches long requests."""
FORMS = ((SIZE, SIZE), (SIZE * 3 // 4, SIZE), (SIZE, SIZE * 3 // 4))
"""Rows and columns of a whole scene and of its middle 4:3 and 3:4 bands, which hold every object."""
UNKNOWN = ("dog", "wooden", "person", "fish")
"""Stand-ins for every word that the tokenizer does not know: they all become [UNK]."""


@dataclass(frozen=True)
class Batch:
    """One step's input and truth.

    Attributes:
        inputs: pixel_values (B, 3, H, W), pixel_mask (B, H, W), input_ids and attention_mask (B, T).
        boxes: (B, M, 4) centre x, centre y, width, height relative to the unpadded image; rows past an image's
            own count are zero.
        positives: (B, M, T), 1 where the token belongs to a phrase that names the object.
        counts: how many rows of `boxes` each image has.
    """

    inputs: dict[str, Tensor]
    boxes: Tensor
    positives: Tensor
    counts: list[int]


def names(phrase: str, name: str) -> bool:
    """Whether a phrase such as "green object" is true of an object called `name`, such as "green cube"."""
    return all(word in (*name.split(), "object") for word in phrase.split())


def sample_request(rng: np.random.Generator, objects: list[str], most: int = MAX_PHRASES) -> list[str]:
    """One to `most` distinct phrases, about half of them true of one of the objects, in random order."""
    present = [phrase for phrase in phrases() if any(names(phrase, name) for name in objects)]
    absent = [phrase for phrase in phrases() if phrase not in present]
    request: list[str] = []
    for _ in range(rng.integers(1, most + 1)):
        draw = rng.uniform()
        if draw < 0.5 and present:
            request.append(str(rng.choice(present)))
        elif draw < 0.92 and absent:
            request.append(str(rng.choice(absent)))
        else:
            request.append(_unknown_phrase(rng))
    return list(dict.fromkeys(request))


def _unknown_phrase(rng: np.random.Generator) -> str:
    unknown = str(rng.choice(UNKNOWN))
    return str(
        rng.choice(
            [unknown, f"{rng.choice(list(COLORS))} {unknown}", f"{unknown} {rng.choice(SHAPES)}", f"{unknown} dog"]
        )
    )


def phrase_tokens(processor: GroundingDinoProcessor, phrase: str) -> list[int]:
    """Token ids of a phrase alone, without [CLS], [SEP] or the separating dot."""
    return _phrase_tokens(processor.tokenizer, phrase)


@cache
def _phrase_tokens(tokenizer: object, phrase: str) -> list[int]:
    return tokenizer(phrase, add_special_tokens=False)["input_ids"]  # pyright: ignore[reportCallIssue]


class Sampler:
    """Draws batches from the rendered scenes: flips, jitter, 4:3 and 3:4 bands, alone or padded in one batch."""

    def __init__(self, scenes: SceneCache, processor: GroundingDinoProcessor, seed: int) -> None:
        self.scenes = scenes
        self.processor = processor
        self.rng = np.random.default_rng(seed)
        image_processor = processor.image_processor
        self.mean = torch.tensor(image_processor.image_mean).view(1, 3, 1, 1)
        self.std = torch.tensor(image_processor.image_std).view(1, 3, 1, 1)

    def images(
        self, count: int, *, mixed: bool = True
    ) -> tuple[Tensor, Tensor, list[NDArray[np.int8]], list[list[str]]]:
        """`count` scenes of one aspect ratio, or, now and then if `mixed`, of several and then padded.

        Returns:
            pixel values (B, 3, H, W), pixel mask (B, H, W), instance maps before resizing, names of the instances.
        """
        form = self.rng.choice(4, p=[0.45, 0.2, 0.15, 0.2]) if mixed else self.rng.choice(3, p=[0.6, 0.2, 0.2])
        forms = np.full(count, form) if form < len(FORMS) else self.rng.integers(len(FORMS), size=count)
        pixels, instances, objects = [], [], []
        for rows, columns in np.array(FORMS)[forms].tolist():
            image, owner, _, names = draw_scene(self.scenes, self.rng, rows, columns)
            pixels.append(self._prepare(image))
            instances.append(owner)
            objects.append(names)
        height, width = (max(image.shape[axis] for image in pixels) for axis in (-2, -1))
        values = torch.zeros(count, 3, height, width)
        mask = torch.zeros(count, height, width, dtype=torch.long)
        for row, image in enumerate(pixels):
            values[row, :, : image.shape[-2], : image.shape[-1]] = image
            mask[row, : image.shape[-2], : image.shape[-1]] = 1
        return values.contiguous(memory_format=torch.channels_last), mask, instances, objects

    def _prepare(self, image: NDArray[np.uint8]) -> Tensor:
        """Resizes and normalises as the image processor does, with some jitter in between."""
        scale = LONGEST_EDGE / max(image.shape[:2])
        size = [round(side * scale) for side in image.shape[:2]]
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None]
        pixels = F.interpolate(pixels, size, mode="bilinear", antialias=True).float() / 255
        return ((jitter(pixels, self.rng) - self.mean) / self.std)[0]

    def batch(self, count: int) -> Batch:
        """`count` scenes, each with a request of its own."""
        values, mask, instances, objects = self.images(count)
        most = LONG_REQUEST if self.rng.uniform() < 0.1 else MAX_PHRASES
        requests = [sample_request(self.rng, present, most) for present in objects]
        tokens, spans = zip(*(encode(self.processor, self._decorate(request)) for request in requests), strict=True)
        length = max(map(len, tokens))
        ids = torch.zeros(count, length, dtype=torch.long)
        truths = []
        for row, (request, span) in enumerate(zip(requests, spans, strict=True)):
            ids[row, : len(tokens[row])] = torch.tensor(tokens[row])
            truths.append(_truth(instances[row], objects[row], request, span, length))
        rows = max(1, *(len(boxes) for boxes, _ in truths))
        boxes, positives = torch.zeros(count, rows, 4), torch.zeros(count, rows, length)
        for row, (own_boxes, own_positives) in enumerate(truths):
            boxes[row, : len(own_boxes)], positives[row, : len(own_boxes)] = own_boxes, own_positives
        inputs = {"pixel_values": values, "pixel_mask": mask, "input_ids": ids, "attention_mask": (ids > 0).long()}
        return Batch(inputs, boxes, positives, [len(own) for own, _ in truths])

    def _decorate(self, request: list[str]) -> list[str]:
        """Now and then with an article or in the plural, as people write."""
        draws = self.rng.uniform(size=len(request))
        articles = ("a ", "the ", "an ")
        return [
            f"{articles[int(draw * 100) % 3]}{phrase}" if draw < 0.12 else f"{phrase}s" if draw > 0.94 else phrase
            for draw, phrase in zip(draws, request, strict=True)
        ]


def encode(processor: GroundingDinoProcessor, request: list[str]) -> tuple[list[int], list[slice]]:
    """Token ids of "phrase. phrase." with [CLS] and [SEP], and the tokens of each phrase."""
    tokenizer = processor.tokenizer
    dot = tokenizer.convert_tokens_to_ids(".")
    tokens, spans = [tokenizer.cls_token_id], []
    for phrase in request:
        words = phrase_tokens(processor, phrase)
        spans.append(slice(len(tokens), len(tokens) + len(words)))
        tokens += [*words, dot]
    return [*tokens, tokenizer.sep_token_id], spans


def _truth(
    instances: NDArray[np.int8], objects: list[str], request: list[str], spans: list[slice], length: int
) -> tuple[Tensor, Tensor]:
    """Boxes (N, 4) and positive tokens (N, T) of the visible objects that some phrase names."""
    boxes, positives = [], []
    for index, name in enumerate(objects):
        tokens = np.zeros(length, np.float32)
        for phrase, span in zip(request, spans, strict=True):
            if names(phrase, name):
                tokens[span] = 1
        mask = instances == index
        columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
        if not tokens.any() or not len(columns):
            continue
        x0, y0, x1, y1 = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
        height, width = instances.shape
        boxes.append([(x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height])
        positives.append(tokens)
    if not boxes:
        return torch.zeros(0, 4), torch.zeros(0, length)
    return torch.tensor(boxes), torch.from_numpy(np.stack(positives))
