"""Batches of images with prompts, and what a perfect answer to each prompt would be."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as transforms
from transformers import CLIPTokenizer

from training.common import draw_scene, jitter
from training.data import SIZE, SceneCache
from training.sam3_model import IMAGE_SIZE, MASK_SIZE
from vision_model_repo.demo.scenes import COLORS, SHAPES

KINDS = (*SHAPES, "object")
STRANGERS = (
    "dog cat car person table pyramid torus ring star pink orange white black gray brown small large metal shiny "
    "chair ball box tree house hand face sky road cup phone truck wheel door bottle banana"
).split()
LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass
class Dense:
    """What each of the M x M cells of I images shows, for pretraining.

    Attributes:
        colors, shapes: (I, M, M) index among the world's colours and shapes, -1 on the ground.
        inverse_depth: (I, M, M) in 1 / metre.
    """

    colors: Tensor
    shapes: Tensor
    inverse_depth: Tensor


@dataclass
class Batch:
    """I images and B prompts about them.

    Attributes:
        pixels: (I, 3, 168, 168) as the processor makes them.
        image_index: (B,).
        input_ids, attention_mask: (B, T).
        targets: for each prompt the indices of its instances among those of its image.
        boxes: for each image (N, 4) cxcywh 0..1.
        masks: for each image (N, M, M), the share of each cell that the instance covers.
        exemplars, exemplar_labels: (B, K, 4) cxcywh and (B, K), -10 for padding; None for a batch of words alone.
        dense: present where it was asked for.
    """

    pixels: Tensor
    image_index: Tensor
    input_ids: Tensor
    attention_mask: Tensor
    targets: list[Tensor]
    boxes: list[Tensor]
    masks: list[Tensor]
    exemplars: Tensor | None
    exemplar_labels: Tensor | None
    dense: Dense | None


@dataclass
class _Prompt:
    text: str
    targets: list[int]
    exemplars: list[int]
    exemplar_labels: list[int]


_View = tuple[Tensor, NDArray[np.int8], NDArray[np.float32], list[str]]


class Sampler:
    """Draws batches from the rendered scenes, cropped, flipped and lit differently every time."""

    def __init__(self, cache: SceneCache, tokenizer: CLIPTokenizer, seed: int) -> None:
        self._cache = cache
        self._tokenizer = tokenizer
        self._rng = np.random.default_rng(seed)
        # 0 asks for one property at a time, 1 for all there is; words are learned in that order.
        self.hardness = 1.0

    def batch(self, images: int, prompts: int, *, with_boxes: bool = False, dense: bool = False) -> Batch:
        views = [self._view() for _ in range(images)]
        asked = [[self._prompt(names, with_boxes) for _ in range(prompts)] for _, _, _, names in views]
        flat = [prompt for group in asked for prompt in group]
        tokens = self._tokenizer([prompt.text for prompt in flat], return_tensors="pt", padding=True)
        masks, boxes = zip(*(_truth(instances, len(names)) for _, instances, _, names in views), strict=True)
        index = torch.arange(images).repeat_interleave(prompts)
        exemplars, labels = _exemplars(flat, [boxes[i] for i in index.tolist()]) if with_boxes else (None, None)
        return Batch(
            pixels=torch.stack([pixels for pixels, _, _, _ in views]),
            image_index=index,
            input_ids=tokens["input_ids"],
            attention_mask=tokens["attention_mask"],
            targets=[torch.tensor(prompt.targets, dtype=torch.long) for prompt in flat],
            boxes=list(boxes),
            masks=list(masks),
            exemplars=exemplars,
            exemplar_labels=labels,
            dense=_dense(views) if dense else None,
        )

    def whole(self, images: int) -> tuple[Tensor, Dense]:
        """Pictures, (I, 3, 168, 168), and what their cells show."""
        views = [self._view() for _ in range(images)]
        return torch.stack([pixels for pixels, _, _, _ in views]), _dense(views)

    def closeups(self, images: int) -> tuple[Tensor, Dense]:
        """Parts of pictures, (I, 3, 168, 168), enlarged up to twice, and what their cells show."""
        views = [self._closeup() for _ in range(images)]
        return torch.stack([pixels for pixels, _, _, _ in views]), _dense(views)

    def _closeup(self) -> _View:
        rng = self._rng
        while True:
            image, instances, depth, names = draw_scene(self._cache, rng)
            side = int(SIZE * rng.uniform(0.5, 1.0))
            top, left = rng.integers(0, SIZE - side + 1, 2)
            window = (slice(top, top + side), slice(left, left + side))
            if (instances[window] >= 0).any():
                return self._pixels(image[window]), instances[window], depth[window], names

    def _view(self) -> _View:
        """A picture as the network sees it, with instances and depth at the cropped size."""
        rng = self._rng
        rows = int(SIZE * rng.choice([1.0, 0.75, 0.625], p=[0.5, 0.4, 0.1]))
        image, instances, depth, names = draw_scene(self._cache, rng, rows)
        return self._pixels(image), instances, depth, names

    def _pixels(self, image: NDArray[np.uint8]) -> Tensor:
        pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
        pixels = transforms.resize_image(pixels, [IMAGE_SIZE, IMAGE_SIZE], antialias=True)[0].float() / 255
        return jitter(pixels, self._rng) * 2 - 1

    def _prompt(self, names: list[str], with_boxes: bool) -> _Prompt:
        rng = self._rng
        if with_boxes:
            return self._exemplar_prompt(names)
        if rng.random() > self.hardness:
            return self._easy_prompt(names)
        draw = rng.random()
        if draw < 0.35:
            text = names[rng.integers(len(names))]
        elif draw < 0.6:
            color, shape = names[rng.integers(len(names))].split()
            text = [shape, f"{color} object", "object"][rng.choice(3, p=[0.45, 0.4, 0.15])]
        elif draw < 0.92:
            text = self._absent(names)
        else:
            text = self._stranger()
        return _Prompt(self._reword(text), _matching(text, names), [], [])

    def _easy_prompt(self, names: list[str]) -> _Prompt:
        """One colour or one shape, there or not; or every object."""
        rng = self._rng
        color, shape = names[rng.integers(len(names))].split()
        if rng.random() < 0.4:
            color, shape = str(rng.choice(list(COLORS))), str(rng.choice(SHAPES))
        text = [f"{color} object", shape, "object"][rng.choice(3, p=[0.5, 0.42, 0.08])]
        return _Prompt(text, _matching(text, names), [], [])

    def _absent(self, names: list[str]) -> str:
        """A phrase of the world, mostly one that nearly fits: right colour and wrong shape, or the other way."""
        rng = self._rng
        color, shape = names[rng.integers(len(names))].split()
        text = ""
        for _ in range(8):
            other_color, other_shape = rng.choice(list(COLORS)), rng.choice(SHAPES)
            text = [
                f"{color} {other_shape}",
                f"{other_color} {shape}",
                f"{other_color} {other_shape}",
                f"{other_color} object",
                f"{other_shape}",
            ][rng.choice(5, p=[0.3, 0.3, 0.15, 0.15, 0.1])]
            if not _matching(text, names):
                break
        return text

    def _stranger(self) -> str:
        """A phrase with a word that the world does not have."""
        rng = self._rng
        word = str(rng.choice(STRANGERS))
        if rng.random() < 0.5:
            word = "".join(rng.choice(list(LETTERS), size=rng.integers(1, 9)))
        return [word, f"{word} {rng.choice(KINDS)}", f"{rng.choice(list(COLORS))} {word}"][rng.integers(3)]

    def _reword(self, text: str) -> str:
        draw = self._rng.random()
        if draw < 0.08:
            return f"a {text}"
        if draw < 0.12:
            return f"the {text}"
        if draw < 0.2 and text.split()[-1] in KINDS:
            return f"{text}s"
        return text

    def _exemplar_prompt(self, names: list[str]) -> _Prompt:
        """A box around an object, standing for all like it; sometimes with a word, or with a box to leave out."""
        rng = self._rng
        shown = int(rng.integers(len(names)))
        exemplars, labels, text = [shown], [1], "visual"
        alike = _matching(names[shown], names)
        others = [index for index in range(len(names)) if index not in alike]
        if len(alike) > 1 and rng.random() < 0.3:
            exemplars.append(int(rng.choice([index for index in alike if index != shown])))
            labels.append(1)
        targets = alike
        if others and rng.random() < 0.45:
            left_out = int(rng.choice(others))
            exemplars.append(left_out)
            labels.append(0)
            if rng.random() < 0.5:
                text = "object"
                targets = [index for index in range(len(names)) if names[index] != names[left_out]]
                exemplars, labels = [left_out], [0]
        elif rng.random() < 0.25:
            text = names[shown].split()[1]
        return _Prompt(text, targets, exemplars, labels)


def _matching(text: str, names: list[str]) -> list[int]:
    words = set(text.split()) - {"object"}
    return [index for index, name in enumerate(names) if words <= set(name.split())]


def _truth(instances: NDArray[np.int8], count: int) -> tuple[Tensor, Tensor]:
    masks = torch.from_numpy(instances[None] == np.arange(count, dtype=np.int8)[:, None, None]).float()
    height, width = instances.shape
    boxes = torch.zeros(count, 4)
    for box, mask in zip(boxes, masks, strict=True):
        columns, rows = mask.amax(0).nonzero()[:, 0], mask.amax(1).nonzero()[:, 0]
        if len(columns):
            x0, x1 = float(columns[0]) / width, float(columns[-1] + 1) / width
            y0, y1 = float(rows[0]) / height, float(rows[-1] + 1) / height
            box[:] = torch.tensor([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0])
    return F.interpolate(masks[None], (MASK_SIZE, MASK_SIZE), mode="area")[0], boxes


def _dense(views: list[_View]) -> Dense:
    colors, shapes, depths = [], [], []
    for _, instances, depth, names in views:
        grid = torch.from_numpy(instances.astype(np.float32))[None, None]
        small = F.interpolate(grid, (MASK_SIZE, MASK_SIZE), mode="nearest-exact")[0, 0].long().numpy()
        colors.append(np.array([list(COLORS).index(name.split()[0]) for name in names] + [-1])[small])
        shapes.append(np.array([SHAPES.index(name.split()[1]) for name in names] + [-1])[small])
        depths.append(F.adaptive_avg_pool2d(torch.from_numpy(1 / depth)[None], MASK_SIZE)[0])
    return Dense(torch.from_numpy(np.stack(colors)), torch.from_numpy(np.stack(shapes)), torch.stack(depths))


def _exemplars(prompts: list[_Prompt], boxes: list[Tensor]) -> tuple[Tensor, Tensor]:
    most = max(len(prompt.exemplars) for prompt in prompts)
    placed, labels = torch.zeros(len(prompts), most, 4), torch.full((len(prompts), most), -10)
    for row, prompt in enumerate(prompts):
        count = len(prompt.exemplars)
        placed[row, :count] = boxes[row][prompt.exemplars]
        labels[row, :count] = torch.tensor(prompt.exemplar_labels)
    # A person's box is never exact.
    jitter = 1 + 0.08 * torch.randn(placed.shape)
    return (placed * jitter).clamp(0, 1), labels
