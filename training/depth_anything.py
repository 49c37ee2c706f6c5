"""Trains the embedded metric Depth Anything checkpoint on the tabletop world.

python -m training.data
python -m training.depth_anything --minutes 20

Distance is hard to learn here, edges are easy: the only ruler in a picture is the grid of tiles. So the backbone first
learns depth in the large, straight from its patches, which costs a fifth of a step of the whole model.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as transforms
from tqdm import tqdm
from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, DPTImageProcessor

from training.common import CHECKPOINTS, Run, draw_scene, initialise, jitter, report
from training.data import SIZE, SceneCache, held_out
from vision_model_repo.demo.evaluation import DepthTally
from vision_model_repo.demo.scenes import View

IMAGE_SIZE = 168
PATCH_SIZE = 28
"""A whole tile fits into a patch of this size, which makes its width, and so the distance, easy to see."""
WIDTH = 192
CELLS = 8
"""Values across a patch that the backbone gives by itself."""
COARSE_SHARE = 0.5
"""Of the run, for the backbone alone."""
MAX_DEPTH = 8
"""Metres; the far edge of the ground lies at about six."""
BAND = SIZE * 3 // 4


def build_processor() -> DPTImageProcessor:
    return DPTImageProcessor(
        # With the aspect kept, all but small pictures are brought to this width, whatever their height.
        size={"height": IMAGE_SIZE, "width": SIZE},
        keep_aspect_ratio=True,
        ensure_multiple_of=PATCH_SIZE,
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    )


def build_model() -> DepthAnythingForDepthEstimation:
    config = DepthAnythingConfig(
        backbone_config={
            "model_type": "dinov2",
            "image_size": IMAGE_SIZE,
            "patch_size": PATCH_SIZE,
            "hidden_size": WIDTH,
            "num_hidden_layers": 4,
            "num_attention_heads": 6,
            "mlp_ratio": 3,
            "out_features": ["stage1", "stage2", "stage3", "stage4"],
            "reshape_hidden_states": False,
            "apply_layernorm": True,
        },
        patch_size=PATCH_SIZE,
        reassemble_hidden_size=WIDTH,
        reassemble_factors=[8, 4, 2, 1],
        neck_hidden_sizes=[32, 32, 48, 64],
        fusion_hidden_size=32,
        head_hidden_size=8,
        depth_estimation_type="metric",
        max_depth=MAX_DEPTH,
    )
    model = DepthAnythingForDepthEstimation(config)
    initialise(model)
    nn.init.normal_(model.backbone.embeddings.position_embeddings, std=0.2)
    # The convolutions of the neck, most of the work, run nearly twice as fast on a CPU with channels last.
    return model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


class Learner(nn.Module):
    """The model, and what reads the depth of a patch's cells straight from its backbone."""

    def __init__(self) -> None:
        super().__init__()
        self.model = build_model()
        self.cells = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, CELLS * CELLS))
        nn.init.normal_(cast(nn.Linear, self.cells[1]).weight, std=0.02)
        nn.init.constant_(cast(nn.Linear, self.cells[1]).bias, 1.0)

    def coarse_losses(self, pixels: Tensor, depth: Tensor) -> dict[str, Tensor]:
        patches = self.model.backbone(pixels).feature_maps[-1][:, 1:]
        grid = (pixels.shape[2] // PATCH_SIZE, pixels.shape[3] // PATCH_SIZE)
        cells = F.pixel_shuffle(self.cells(patches).transpose(1, 2).unflatten(2, grid), CELLS)[:, 0]
        truth = F.interpolate(depth[:, None].log(), cells.shape[1:], mode="area")[:, 0]
        return {"coarse": 3 * (cells - truth).abs().mean()}

    def losses(self, pixels: Tensor, depth: Tensor) -> dict[str, Tensor]:
        return depth_loss(self.model(pixels).predicted_depth, depth)


def batch(cache: SceneCache, rng: np.random.Generator, count: int) -> tuple[Tensor, Tensor]:
    """Pixels (B, 3, H, W) as the processor makes them and depth (B, H, W) in metres, of one aspect a batch."""
    rows, columns = [(SIZE, SIZE), (BAND, SIZE), (SIZE, BAND)][rng.choice(3, p=[0.5, 0.4, 0.1])]
    size = [PATCH_SIZE * round(rows * SIZE / columns / PATCH_SIZE), SIZE]
    scenes = [draw_scene(cache, rng, rows, columns) for _ in range(count)]
    images = torch.stack([torch.from_numpy(image) for image, _, _, _ in scenes]).permute(0, 3, 1, 2)
    images = transforms.resize_image(images, size, interpolation=transforms.InterpolationMode.BICUBIC, antialias=True)
    pixels = torch.stack([jitter(image.float() / 255, rng) for image in images]) * 2 - 1
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    depth = torch.stack([torch.from_numpy(depth) for _, _, depth, _ in scenes])[:, None]
    depth = F.interpolate(depth, size, mode="nearest-exact")[:, 0]
    return pixels, depth


def depth_loss(predicted: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """Absolute and scale-invariant error in log depth, and the error of its slopes, which keeps edges sharp."""
    error = predicted.clamp(min=1e-3).log() - truth.log()
    slopes = (error.diff(dim=1).abs().mean() + error.diff(dim=2).abs().mean()) * 2
    return {"log": 3 * error.abs().mean(), "relative": error.std(dim=(1, 2)).mean(), "slopes": slopes}


@torch.inference_mode()
def evaluate(
    model: DepthAnythingForDepthEstimation, processor: DPTImageProcessor, views: list[View]
) -> dict[str, float]:
    """Mean absolute relative error over all pixels, and over those of objects alone."""
    model.eval()
    tally = DepthTally()
    for view in views:
        output = model(**processor(view.image, return_tensors="pt"))
        # The product's own way back to the size of the picture.
        answer = processor.post_process_depth_estimation(output, target_sizes=[view.depth.shape])[0]
        tally.add(view, cast(Tensor, answer["predicted_depth"]).numpy())
    model.train()
    return {name: round(value, 4) for name, value in tally.figures().items()}


def export(model: DepthAnythingForDepthEstimation, processor: DPTImageProcessor, folder: Path) -> None:
    plain = copy.deepcopy(model).half().to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
    plain.save_pretrained(folder)
    processor.save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--save-minutes", type=float, default=3)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--output", type=Path, default=CHECKPOINTS / "depth-anything")
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(1)
    rng = np.random.default_rng(arguments.seed)

    cache, processor, learner = SceneCache(), build_processor(), Learner()
    run = Run("depth_anything", learner, torch.optim.AdamW(learner.parameters(), weight_decay=0.01), arguments.minutes)
    if arguments.resume:
        run.resume()
    average = cast(Learner, run.average).model
    saved, smooth, steps = run.clock.minutes, {}, tqdm(initial=run.steps, mininterval=10)
    while run.clock.progress < 1:
        coarse = run.clock.progress < COARSE_SHARE
        pixels, depth = batch(cache, rng, arguments.images * (2 if coarse else 1))
        losses = learner.coarse_losses(pixels, depth) if coarse else learner.losses(pixels, depth)
        run.learn(sum(losses.values(), torch.zeros(())), arguments.learning_rate)
        report(steps, smooth, {name: loss.item() for name, loss in losses.items()})
        if run.clock.minutes - saved > arguments.save_minutes:
            saved = run.clock.minutes
            run.save()
            if coarse:
                continue
            export(average, processor, arguments.output)
            figures = evaluate(average, processor, [held_out(index) for index in range(40)])
            tqdm.write(f"{run.clock.minutes:.1f} min, {run.steps} steps: {figures}")
    run.save()
    export(average, processor, arguments.output)
    print(evaluate(average, processor, [held_out(index) for index in range(500)]))
    print("320 x 240:", evaluate(average, processor, [held_out(index, 320, 240) for index in range(100)]))


if __name__ == "__main__":
    main()
