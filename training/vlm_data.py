"""Batches of scenes, each with many questions about it, and what every patch of them shows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torchvision.transforms.v2 import functional as transforms
from transformers import DINOv3ViTImageProcessor, PreTrainedTokenizerFast

from training.common import draw_scene, jitter
from training.data import SIZE, SceneCache
from training.vlm_model import ASSISTANT, END, IMAGE_TOKENS, PATCH_SIZE, USER
from vision_model_repo.demo.questions import Question, ask, count_of
from vision_model_repo.demo.scenes import COLORS, SHAPES, phrases

SHARES = {"count": 0.3, "existence": 0.2, "color": 0.15, "shape": 0.15, "list": 0.2}
"""How often each kind is asked in the middle of the run."""
PLAIN_SHARES = {"count": 0.3, "existence": 0.2, "color": 0.25, "shape": 0.25}
"""How often at first."""
HARD_SHARES = {"count": 0.45, "existence": 0.08, "color": 0.06, "shape": 0.06, "list": 0.35}
"""How often in the end, when the plain ones are known."""
FOLLOW_UP = 0.25
"""How often a question continues the conversation before it."""
CARELESS = 0.1
"""How often a question lacks its last mark."""
MOST = 5
"""Objects of a scene."""
PREFIX = 2 + IMAGE_TOKENS
"""Tokens before the words: begin, user, the picture."""


@dataclass
class Batch:
    """I images, and the words of all questions about each in one row, T tokens long.

    Attributes:
        pixels: (I, 3, S, S) as the processor makes them.
        tokens: (I, T).
        talks: (I, T) number of the conversation that a token belongs to, from 1; 0 for padding.
        positions: (I, T) of each token in its own conversation.
        targets: (I, T) the next token where it is the answer's, -100 elsewhere.
        kinds: (I, T) index of the question's kind.
        colors, shapes: (I, G, G) what each patch shows at its centre, -1 on the ground.
        centres: (I, G, G) 1 where the middle of an object's visible part lies.
        counts: (I, P) how many objects each of the world's phrases fits.
    """

    pixels: Tensor
    tokens: Tensor
    talks: Tensor
    positions: Tensor
    targets: Tensor
    kinds: Tensor
    colors: Tensor
    shapes: Tensor
    centres: Tensor
    counts: Tensor

    def mask(self) -> Tensor:
        """What attends to what, (I, 1, L, L) of L = prefix + T, to be added: conversations see the picture and
        themselves."""
        images, words = self.talks.shape
        talks = torch.cat([torch.zeros(images, PREFIX, dtype=torch.long), self.talks], 1)
        same = (talks[:, None] == 0) & (torch.arange(PREFIX + words) < PREFIX) | (talks[:, :, None] == talks[:, None])
        causal = torch.ones(PREFIX + words, PREFIX + words, dtype=torch.bool).tril()
        return torch.zeros(same.shape).masked_fill(~(same & causal), torch.finfo(torch.float32).min)[:, None]


class Sampler:
    """Draws batches from the rendered scenes, cropped, flipped and lit differently every time."""

    def __init__(self, cache: SceneCache, tokenizer: PreTrainedTokenizerFast, size: int, seed: int) -> None:
        self._cache = cache
        self._tokenizer = tokenizer
        self._size = size
        self._rng = np.random.default_rng(seed)
        self._known: dict[str, list[int]] = {}
        self._user, self._assistant, self._end = (self._ids(token)[0] for token in (USER, ASSISTANT, END))
        self.shares = PLAIN_SHARES

    def batch(self, images: int, questions: int) -> Batch:
        rng = self._rng
        pixels, grids, rows, counts = [], [], [], []
        for _ in range(images):
            image, instances, _, names = draw_scene(self._cache, rng, int(SIZE * rng.choice([1.0, 1.0, 0.75])))
            pixels.append(prepare(image, self._size, rng))
            grids.append(_labels(instances, names, self._size // PATCH_SIZE))
            counts.append(torch.tensor([min(count_of(names, phrase), MOST) for phrase in phrases()]))
            rows.append(self._row([self._question(names) for _ in range(questions)]))
        tokens, talks, positions, targets, kinds = (pad_sequence(list(each), True) for each in zip(*rows, strict=True))
        colors, shapes, centres = (torch.stack(each) for each in zip(*grids, strict=True))
        return Batch(
            pixels=torch.stack(pixels),
            tokens=tokens,
            talks=talks,
            positions=positions,
            targets=targets.masked_fill(talks == 0, -100),
            kinds=kinds,
            colors=colors,
            shapes=shapes,
            centres=centres,
            counts=torch.stack(counts),
        )

    def _question(self, names: list[str]) -> Question:
        kinds, shares = list(self.shares), list(self.shares.values())
        while True:
            if question := ask(names, str(self._rng.choice(kinds, p=shares)), self._rng):
                return question

    def _row(self, questions: list[Question]) -> list[Tensor]:
        """Tokens, conversations, positions, targets and kinds, (T,) each."""
        tokens: list[int] = []
        talks: list[int] = []
        positions: list[int] = []
        targets: list[int] = []
        kinds: list[int] = []
        talk = 0
        for question in questions:
            text = question.text[:-1] if self._rng.random() < CARELESS else question.text
            follows = talk > 0 and self._rng.random() < FOLLOW_UP
            asked = [*([self._user] if follows else []), *self._ids(text), self._assistant]
            answer = [*self._ids(question.answer), self._end]
            talk += not follows
            start = positions[-1] + 1 if follows else PREFIX
            length = len(asked) + len(answer)
            tokens += asked + answer
            talks += [talk] * length
            positions += range(start, start + length)
            targets += [-100] * (len(asked) - 1) + answer + [-100]
            kinds += [list(SHARES).index(question.kind)] * length
        return [torch.tensor(values) for values in (tokens, talks, positions, targets, kinds)]

    def _ids(self, text: str) -> list[int]:
        if text not in self._known:
            self._known[text] = self._tokenizer.encode(text, add_special_tokens=False)
        return self._known[text]


def prepare(image: NDArray[np.uint8], size: int, rng: np.random.Generator) -> Tensor:
    """What the processor does, in other light."""
    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)
    pixels = jitter(transforms.resize_image(pixels, [size, size], antialias=True).float() / 255, rng)
    mean, std = torch.tensor(DINOv3ViTImageProcessor.image_mean), torch.tensor(DINOv3ViTImageProcessor.image_std)
    return (pixels - mean[:, None, None]) / std[:, None, None]


def _labels(instances: NDArray[np.int8], names: list[str], side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Colours and shapes of patches, and where objects have their middle, (G, G) each."""
    height, width = instances.shape
    rows, columns = (((np.arange(side) + 0.5) / side * length).astype(int) for length in (height, width))
    grid = torch.from_numpy(instances[np.ix_(rows, columns)]).long()
    colors, shapes = torch.tensor([*map(_kind, names), (-1, -1)]).unbind(1)
    centres = torch.zeros(side, side)
    for index in range(len(names)):
        y, x = np.argwhere(instances == index).mean(0)
        centres[int(y / height * side), int(x / width * side)] = 1
    return colors[grid], shapes[grid], centres


def _kind(name: str) -> tuple[int, int]:
    color, shape = name.split()
    return list(COLORS).index(color), SHAPES.index(shape)
