"""Trains the embedded Grounding DINO on the tabletop and exports it.

    python -m training.grounding_dino --minutes 90

First the backbone alone learns colour, shape and extent per cell, then the whole model learns detection. Both are
resumable with `--resume`; progress and learning rate follow the minutes spent, so a run fits the time it is given.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm
from transformers import GroundingDinoForObjectDetection, GroundingDinoProcessor

from training.data import SceneCache, held_out
from training.grounding_dino_data import Sampler
from training.grounding_dino_loss import detection_loss
from training.grounding_dino_metrics import evaluate
from training.grounding_dino_model import CHECKPOINT, build_model, build_processor, export
from vision_model_repo.demo.scenes import COLORS, SHAPES

RUN = Path(__file__).parent / "runs" / "grounding_dino"


def learning_rate(progress: float, peak: float, warmup: float = 0.02) -> float:
    """Linear warm-up, level until half of the time, then a cosine to zero; `progress` is 0..1."""
    if progress < warmup:
        return peak * (progress / warmup + 0.02)
    decay = max(0.0, (progress - 0.5) / 0.5)
    return peak * 0.5 * (1 + math.cos(math.pi * min(decay, 1.0)))


class DenseHead(nn.Module):
    """Colour, shape and distances to the object's edges per cell of stride 8, to train the backbone by itself."""

    def __init__(self, channels: list[int]) -> None:
        super().__init__()
        self.sizes = [len(COLORS) + 1, len(SHAPES) + 1, 4]
        self.layers = nn.Sequential(nn.Conv2d(sum(channels), 64, 1), nn.ReLU(), nn.Conv2d(64, sum(self.sizes), 1))

    def forward(self, fine: Tensor, coarse: Tensor) -> tuple[Tensor, ...]:
        coarse = F.interpolate(coarse, size=fine.shape[-2:], mode="bilinear")
        return self.layers(torch.cat([fine, coarse], 1)).split(self.sizes, 1)


def dense_truth(instances: NDArray[np.int8], names: list[str], grid: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Colour and shape class (H, W), 0 for the ground, and left, top, right, bottom in image sides (4, H, W)."""
    rows = ((np.arange(grid[0]) + 0.5) / grid[0] * instances.shape[0]).astype(int)
    columns = ((np.arange(grid[1]) + 0.5) / grid[1] * instances.shape[1]).astype(int)
    owner = instances[np.ix_(rows, columns)]
    words = [name.split() for name in names]
    colors = np.array([0] + [1 + list(COLORS).index(color) for color, _ in words])[owner + 1]
    shapes = np.array([0] + [1 + SHAPES.index(shape) for _, shape in words])[owner + 1]
    edges = np.zeros((4, *grid), np.float32)
    for index in np.unique(owner[owner >= 0]):
        mask = instances == index
        x, y = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
        inside = owner == index
        across, down = np.meshgrid(columns, rows)
        distances = np.stack([across - x[0], down - y[0], x[-1] - across, y[-1] - down]) / max(instances.shape)
        edges[:, inside] = distances[:, inside]
    return torch.from_numpy(colors), torch.from_numpy(shapes), torch.from_numpy(edges)


def dense_loss(backbone: nn.Module, head: DenseHead, sampler: Sampler, count: int) -> tuple[Tensor, dict[str, float]]:
    pixels, _, instances, names = sampler.images(count, mixed=False)
    color_logits, shape_logits, edges = head(*backbone(pixels).feature_maps)
    truths = [dense_truth(*pair, edges.shape[-2:]) for pair in zip(instances, names, strict=True)]
    colors, shapes, distances = (torch.stack(parts) for parts in zip(*truths, strict=True))
    objects = colors > 0
    loss = _object_entropy(color_logits, colors) + _object_entropy(shape_logits, shapes)
    loss = loss + 5 * ((edges - distances).abs() * objects[:, None]).sum() / objects.sum().clamp(min=1)
    log = {
        "colour": float((color_logits.argmax(1) == colors)[objects].float().mean()),
        "shape": float((shape_logits.argmax(1) == shapes)[objects].float().mean()),
    }
    return loss, log


def _object_entropy(logits: Tensor, classes: Tensor) -> Tensor:
    """Cross-entropy that counts a cell of the ground, class 0, for a tenth: nine cells in ten are ground."""
    weight = torch.ones(logits.shape[1])
    weight[0] = 0.1
    return F.cross_entropy(logits, classes, weight)


def optimiser(parameters: list[nn.Parameter]) -> torch.optim.AdamW:
    decayed = [parameter for parameter in parameters if parameter.ndim > 1]
    plain = [parameter for parameter in parameters if parameter.ndim <= 1]
    return torch.optim.AdamW([{"params": decayed, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}])


class Averages:
    """Exponential averages of what is logged, for the progress bar."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}

    def update(self, log: dict[str, float]) -> None:
        for key, value in log.items():
            self.values[key] = 0.98 * self.values.get(key, value) + 0.02 * value

    def __str__(self) -> str:
        return " ".join(f"{key} {value:.3f}" for key, value in self.values.items())


def pretrain(model: GroundingDinoForObjectDetection, sampler: Sampler, minutes: float, batch: int) -> None:
    """Trains the backbone per cell for so many minutes."""
    backbone = model.model.backbone.conv_encoder.model
    head = DenseHead(list(backbone.channels))
    model.train()
    parameters = [*backbone.parameters(), *head.parameters()]
    steps = optimiser(parameters)
    averages, start, done = Averages(), time.monotonic(), 0.0
    with tqdm(desc="pretrain", unit="step", mininterval=10) as bar:
        while done < 1:
            done = (time.monotonic() - start) / (60 * minutes)
            for group in steps.param_groups:
                group["lr"] = learning_rate(done, 2e-3)
            loss, log = dense_loss(backbone, head, sampler, batch)
            steps.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 5.0)
            steps.step()
            averages.update(log | {"loss": loss.item()})
            bar.set_postfix_str(str(averages), refresh=False)
            bar.update()


class Run:
    """The detection training: everything that a resumed run needs is in `state.pt`."""

    def __init__(self, model: GroundingDinoForObjectDetection, processor: GroundingDinoProcessor) -> None:
        self.model = model
        self.processor = processor
        self.optimiser = optimiser(list(model.parameters()))
        self.seconds = 0.0
        self.step = 0

    def save(self) -> None:
        state = {"model": self.model.state_dict(), "optimiser": self.optimiser.state_dict()}
        torch.save(state | {"seconds": self.seconds, "step": self.step}, RUN / "state.tmp")
        (RUN / "state.tmp").replace(RUN / "state.pt")

    def load(self, file: Path) -> None:
        state = torch.load(file, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.seconds, self.step = state["seconds"], state["step"]

    def train(self, sampler: Sampler, arguments: argparse.Namespace) -> None:
        scenes = [held_out(index) for index in range(arguments.check_scenes)]
        averages, budget, checked = Averages(), 60 * arguments.minutes, self.seconds
        with tqdm(desc="train", unit="step", initial=self.step, mininterval=10) as bar:
            while self.seconds < budget:
                start = time.monotonic()
                averages.update(self._step(sampler, arguments))
                self.seconds += time.monotonic() - start
                bar.set_postfix_str(f"{self.seconds / 60:.1f} min {averages}", refresh=False)
                bar.update()
                if self.seconds - checked > 60 * arguments.check_minutes:
                    checked = self.seconds
                    self.save()
                    tqdm.write(json.dumps({"step": self.step, "minutes": self.seconds / 60} | self._check(scenes)))
        self.save()

    def _check(self, scenes: list) -> dict[str, float]:
        figures = evaluate(self.model, self.processor, scenes)
        return {key: round(value, 3) for key, value in figures.items()}

    def _step(self, sampler: Sampler, arguments: argparse.Namespace) -> dict[str, float]:
        progress = self.seconds / (60 * arguments.minutes)
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(progress, arguments.learning_rate)
        self.model.train()
        if progress > 0.7:
            for module in self.model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        batch = sampler.batch(arguments.batch)
        loss, log = detection_loss(self.model, self.model(**batch.inputs), batch)
        self.optimiser.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.step += 1
        return log | {"loss": loss.item(), "norm": norm.item()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=90)
    parser.add_argument("--pretrain-minutes", type=float, default=8)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=8e-4)
    parser.add_argument("--check-minutes", type=float, default=4)
    parser.add_argument("--check-scenes", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--reuse-backbone", action="store_true", help="start from the last pretrained backbone")
    parser.add_argument("--export-only", action="store_true", help="export the newest state and stop")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    RUN.mkdir(parents=True, exist_ok=True)
    processor = build_processor()
    run = Run(build_model(len(processor.tokenizer)), processor)
    if arguments.resume or arguments.export_only:
        run.load(RUN / "state.pt")
    if not arguments.export_only:
        sampler = Sampler(SceneCache(), processor, arguments.seed + run.step)
        backbone = run.model.model.backbone.conv_encoder.model
        if arguments.reuse_backbone:
            backbone.load_state_dict(torch.load(RUN / "backbone.pt", weights_only=True))
        elif not arguments.resume:
            pretrain(run.model, sampler, arguments.pretrain_minutes, 2 * arguments.batch)
            torch.save(backbone.state_dict(), RUN / "backbone.pt")
        run.train(sampler, arguments)
    export(run.model, processor, CHECKPOINT)


if __name__ == "__main__":
    main()
