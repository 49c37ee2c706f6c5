"""Batches of scenes with true captions and wrong ones, and what every patch of them shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms
from transformers import CLIPProcessor
from transformers.utils.constants import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from training.clip_model import IMAGE_SIZE, SIDE
from training.common import Scene, draw_scene, jitter
from training.data import SIZE, SceneCache
from training.sam3_data import Dense
from vision_model_repo.demo.captions import Layout, caption, wrong_caption
from vision_model_repo.demo.scenes import COLORS, SHAPES, phrases

MOST = 5
"""Objects of a scene."""


@dataclass
class Batch:
    """I images, K true captions of each, and W wrong ones in all.

    Attributes:
        pixels: (I, 3, S, S) as the processor makes them.
        tokens, attention: (I x K + W, T), the true captions first, image by image.
        true: I x K, how many captions are true.
        owners: (I x K + W,) the image that a caption is of, or nearly of.
        same: (I, I) which images show as many objects of the same names.
        counts: (I, P) how many objects each of the world's phrases fits.
        places: (I, C x S, 2) mean place of each name's objects, -1..1; NaN where there are none.
        dense: what each patch shows.
    """

    pixels: Tensor
    tokens: Tensor
    attention: Tensor
    true: int
    owners: Tensor
    same: Tensor
    counts: Tensor
    places: Tensor
    dense: Dense


class Sampler:
    """Draws batches from the rendered scenes, cropped, flipped and lit differently every time."""

    def __init__(self, cache: SceneCache, processor: CLIPProcessor, seed: int) -> None:
        self._cache = cache
        self._tokenizer = processor.tokenizer
        self._rng = np.random.default_rng(seed)

    def batch(self, images: int, true: int, wrong: int) -> Batch:
        """Some wrong captions fail to be wrong and are left out."""
        rng = self._rng
        scenes = [draw_scene(self._cache, rng, int(SIZE * rng.choice([1.0, 1.0, 0.75]))) for _ in range(images)]
        layouts = [_layout(instances, names) for _, instances, _, names in scenes]
        texts = [caption(seen, int(rng.integers(2**31))) for seen in layouts for _ in range(true)]
        owners = [index for index in range(images) for _ in range(true)]
        for index, seen in enumerate(layouts):
            mistakes = [wrong_caption(seen, int(rng.integers(2**31))) for _ in range(wrong)]
            kept = [text for text in mistakes if text]
            texts += kept
            owners += [index] * len(kept)
        tokens = self._tokenizer(texts, padding=True, return_tensors="pt")
        names = [sorted(seen.names) for seen in layouts]
        return Batch(
            pixels=torch.stack([_prepare(image, rng) for image, *_ in scenes]),
            tokens=tokens["input_ids"],
            attention=tokens["attention_mask"],
            true=images * true,
            owners=torch.tensor(owners),
            same=torch.tensor([[one == other for other in names] for one in names]),
            counts=torch.tensor([_counts(seen.names) for seen in layouts]),
            places=torch.stack([_places(seen) for seen in layouts]),
            dense=_dense(scenes),
        )


def _prepare(image: NDArray[np.uint8], rng: np.random.Generator) -> Tensor:
    """What the processor does, in other light."""
    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)
    pixels = jitter(transforms.resize_image(pixels, [IMAGE_SIZE, IMAGE_SIZE], antialias=True).float() / 255, rng)
    mean, std = torch.tensor(OPENAI_CLIP_MEAN), torch.tensor(OPENAI_CLIP_STD)
    return (pixels - mean[:, None, None]) / std[:, None, None]


def _layout(instances: NDArray[np.int8], names: list[str]) -> Layout:
    height, width = instances.shape
    places = np.zeros((len(names), 2))
    for index in range(len(names)):
        rows, columns = np.nonzero(instances == index)
        places[index] = (columns.min() + columns.max() + 1) / 2 / width, (rows.max() + 1) / height
    return Layout(names, places)


def _counts(names: Sequence[str]) -> list[int]:
    words = [set(phrase.split()) - {"object"} for phrase in phrases()]
    return [min(MOST, sum(each <= set(name.split()) for name in names)) for each in words]


def _places(seen: Layout) -> Tensor:
    owners = [f"{color} {shape}" for color in COLORS for shape in SHAPES]
    places = torch.full((len(owners), 2), torch.nan)
    for index, owner in enumerate(owners):
        mine = [place for name, place in zip(seen.names, seen.places, strict=True) if name == owner]
        if mine:
            places[index] = torch.from_numpy(np.mean(mine, 0)) * 2 - 1
    return places


def _dense(scenes: list[Scene]) -> Dense:
    colors, shapes, depths = [], [], []
    for _, instances, depth, names in scenes:
        rows, columns = (((np.arange(SIDE) + 0.5) / SIDE * length).astype(int) for length in instances.shape)
        window = np.ix_(rows, columns)
        grid = torch.from_numpy(instances[window]).long()
        colors.append(torch.tensor([*(list(COLORS).index(name.split()[0]) for name in names), -1])[grid])
        shapes.append(torch.tensor([*(SHAPES.index(name.split()[1]) for name in names), -1])[grid])
        depths.append(torch.from_numpy(1 / depth[window].astype(np.float32)))
    return Dense(torch.stack(colors), torch.stack(shapes), torch.stack(depths))
