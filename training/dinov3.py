"""Trains the embedded DINOv3 checkpoint on the tabletop world.

    python -m training.data
    python -m training.dinov3 --minutes 20

The big models learn without labels from a billion images; a tiny one has the labels of its world instead. The pooled
vector of a crop is drawn to a prototype of its colour and shape, patch vectors to one of what they show, and two
views of one scene to each other; nothing of that stays but the backbone.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as transforms
from tqdm import tqdm
from transformers import DINOv3ViTConfig, DINOv3ViTImageProcessor, DINOv3ViTModel

from training.common import CHECKPOINTS, Run, draw_scene, initialise, jitter, report, whiten
from training.data import SIZE, SceneCache, held_out
from vision_model_repo.demo.evaluation import FeatureTally, crop_square, object_crops
from vision_model_repo.demo.scenes import COLORS, SHAPES, View

IMAGE_SIZE = 112
PATCH_SIZE = 8
FIRST_SIZE = 80
"""Pixels at first, at half the price: positions are relative, so what is learnt small holds at full size."""
FIRST_SHARE = 0.85
"""Of the run, at the first size."""
WIDTH = 128
KINDS = [f"{color} {shape}" for color in COLORS for shape in SHAPES]
GROUND = len(KINDS)
NEAREST = transforms.InterpolationMode.NEAREST_EXACT


def build_processor() -> DINOv3ViTImageProcessor:
    return DINOv3ViTImageProcessor(size={"height": IMAGE_SIZE, "width": IMAGE_SIZE})


def build_model() -> DINOv3ViTModel:
    config = DINOv3ViTConfig(
        image_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
        hidden_size=WIDTH,
        intermediate_size=3 * WIDTH,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_register_tokens=2,
    )
    model = DINOv3ViTModel(config)
    initialise(model)
    nn.init.normal_(model.embeddings.cls_token, std=1.0)
    nn.init.normal_(model.embeddings.register_tokens, std=1.0)
    return model


class Learner(nn.Module):
    """The backbone and the prototypes that its vectors are compared with by cosine.

    Colours and shapes have prototypes of their own: what tells a cube from a cylinder is then learnt once, from all
    colours together, rather than for each colour anew.
    """

    def __init__(self) -> None:
        super().__init__()
        self.backbone = build_model()
        self.colors = nn.Parameter(torch.randn(len(COLORS), WIDTH))
        self.shapes = nn.Parameter(torch.randn(len(SHAPES), WIDTH))
        self.patch_colors = nn.Parameter(torch.randn(len(COLORS) + 1, WIDTH))
        self.patch_shapes = nn.Parameter(torch.randn(len(SHAPES), WIDTH))
        self.patch_weights = torch.tensor([1.0] * len(COLORS) + [0.1])

    def losses(self, crops: Tensor, kinds: Tensor, scenes: Tensor, grids: Tensor) -> tuple[dict[str, Tensor], float]:
        """Grids say what each patch shows, of the crops and then of the scenes, which come in pairs of views."""
        output = self.backbone(torch.cat([crops, scenes]))
        pooled, tokens = output.pooler_output, output.last_hidden_state[:, -grids[0].numel() :].flatten(0, 1)
        colors, shapes = kinds // len(SHAPES), kinds % len(SHAPES)
        color_logits = _logits(pooled[: len(crops)], self.colors)
        shape_logits = _logits(pooled[: len(crops)], self.shapes)
        # Ground counts as one more colour, and has no shape.
        kind = grids.flatten()
        solid = kind != GROUND
        patch_colors = F.cross_entropy(_logits(tokens, self.patch_colors), kind // len(SHAPES), self.patch_weights)
        patch_shapes = F.cross_entropy(_logits(tokens[solid], self.patch_shapes), kind[solid] % len(SHAPES))
        views = F.normalize(pooled[len(crops) :], dim=-1)
        alike = (10 * views @ views.T).fill_diagonal_(-1e4)
        losses = {
            "color": F.cross_entropy(color_logits, colors),
            "shape": 2 * F.cross_entropy(shape_logits, shapes),
            "patch color": patch_colors,
            "patch shape": 2 * patch_shapes,
            "scene": 0.1 * F.cross_entropy(alike, torch.arange(len(views)) ^ 1),
        }
        right = (color_logits.argmax(1) == colors) & (shape_logits.argmax(1) == shapes)
        return losses, right.float().mean().item()


def _logits(vectors: Tensor, prototypes: Tensor) -> Tensor:
    return 16 * F.normalize(vectors, dim=-1) @ F.normalize(prototypes, dim=-1).T


def batch(
    cache: SceneCache, rng: np.random.Generator, crops: int, pairs: int, size: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Crops (C, 3, S, S) and their kinds (C,), pairs of views (2 P, 3, S, S), what each patch shows (C + 2 P, G, G)."""
    cut, kinds, views, grids = [], [], [], []
    while len(cut) < crops:
        image, instances, _, names = draw_scene(cache, rng)
        which, margin = int(rng.integers(len(names))), rng.uniform(1.1, 1.6)
        box = _box(instances == which)
        cut.append(_prepare(crop_square(image, box, margin), rng, size))
        grids.append(_labels(crop_square(instances, box, margin), names, size))
        kinds.append(KINDS.index(names[which]))
    for _ in range(pairs):
        image, instances, _, names = draw_scene(cache, rng, int(SIZE * rng.choice([1.0, 0.75])))
        labels = _labels(instances, names, size)
        views += [_prepare(image, rng, size), _prepare(image[:, ::-1], rng, size)]
        grids += [labels, labels.flip(1)]
    return torch.stack(cut), torch.tensor(kinds), torch.stack(views), torch.stack(grids)


def _labels(instances: NDArray[np.int8], names: list[str], size: int) -> Tensor:
    """The kind of what each patch shows at its centre, (G, G)."""
    grid = torch.from_numpy(np.ascontiguousarray(instances))[None]
    grid = transforms.resize_image(grid, [size // PATCH_SIZE] * 2, interpolation=NEAREST, antialias=False)[0]
    return torch.tensor([*(KINDS.index(name) for name in names), GROUND])[grid.long()]


def _box(mask: NDArray[np.bool_]) -> NDArray[np.floating]:
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)


def _prepare(image: NDArray[np.uint8], rng: np.random.Generator, size: int) -> Tensor:
    """What the processor does, to another size."""
    pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
    pixels = jitter(transforms.resize_image(pixels, [size, size], antialias=True).float() / 255, rng)
    mean, std = torch.tensor(DINOv3ViTImageProcessor.image_mean), torch.tensor(DINOv3ViTImageProcessor.image_std)
    return (pixels - mean[:, None, None]) / std[:, None, None]


@torch.inference_mode()
def evaluate(model: DINOv3ViTModel, processor: DINOv3ViTImageProcessor, views: list[View]) -> dict[str, float]:
    """For how many crops of single objects the nearest crop of another scene shows the same colour and shape."""
    model.eval()
    tally = FeatureTally()
    for view in views:
        if crops := object_crops(view):
            tally.add(view, model(**processor(crops, return_tensors="pt")).pooler_output.numpy())
    model.train()
    return {name: round(value, 4) for name, value in tally.figures().items()} | {"crops": len(tally.names)}


def export(model: DINOv3ViTModel, processor: DINOv3ViTImageProcessor, folder: Path) -> None:
    copy.deepcopy(model).half().save_pretrained(folder)
    processor.save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--save-minutes", type=float, default=4)
    parser.add_argument("--crops", type=int, default=24)
    parser.add_argument("--pairs", type=int, default=2)
    parser.add_argument("--learning-rate", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--output", type=Path, default=CHECKPOINTS / "dinov3")
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(1)
    rng = np.random.default_rng(arguments.seed)

    cache, processor, learner = SceneCache(), build_processor(), Learner()
    projection = learner.backbone.embeddings.patch_embeddings
    cast(nn.Parameter, projection.bias).data = whiten(projection, batch(cache, rng, 64, 1, IMAGE_SIZE)[0])
    run = Run("dinov3", learner, torch.optim.AdamW(learner.parameters(), weight_decay=0.02), arguments.minutes)
    if arguments.resume:
        run.resume()
    average = cast(Learner, run.average).backbone
    saved, smooth, steps = run.clock.minutes, {}, tqdm(initial=run.steps, mininterval=10)
    while run.clock.progress < 1:
        size = FIRST_SIZE if run.clock.progress < FIRST_SHARE else IMAGE_SIZE
        losses, right = learner.losses(*batch(cache, rng, arguments.crops, arguments.pairs, size))
        run.learn(sum(losses.values(), torch.zeros(())), arguments.learning_rate)
        report(steps, smooth, {name: loss.item() for name, loss in losses.items()} | {"crops right": right})
        if run.clock.minutes - saved > arguments.save_minutes:
            saved = run.clock.minutes
            run.save()
            export(average, processor, arguments.output)
            figures = evaluate(average, processor, [held_out(index) for index in range(100)])
            tqdm.write(f"{run.clock.minutes:.1f} min, {run.steps} steps: {figures}")
    run.save()
    export(average, processor, arguments.output)
    print(evaluate(average, processor, [held_out(index) for index in range(500)]))


if __name__ == "__main__":
    main()
