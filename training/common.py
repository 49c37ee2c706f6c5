"""What the training scripts share: a schedule by the clock, one optimiser step, a moving average, a progress line."""

from __future__ import annotations

import copy
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from training.data import SIZE, SceneCache
from vision_model_repo.demo.scenes import MIN_VISIBLE

RUNS = Path(__file__).parent / "runs"
CHECKPOINTS = Path(__file__).parents[1] / "src" / "vision_model_repo" / "demo" / "checkpoints"


class Clock:
    """Minutes spent of a budget, across interruptions.

    Schedules run by the clock, so that a slower machine still ends with a finished, if weaker, model.
    """

    def __init__(self, budget: float, spent: float = 0.0) -> None:
        self.budget = budget
        self._start = time.monotonic() - 60 * spent

    @property
    def minutes(self) -> float:
        return (time.monotonic() - self._start) / 60

    @property
    def progress(self) -> float:
        return self.minutes / self.budget


def cosine(progress: float, warmup: float = 0.03) -> float:
    """Learning rate factor at a share of the run: a linear warm-up, then half a cosine down to zero."""
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - warmup) / (1 - warmup))))


def step(optimizer: torch.optim.Optimizer, loss: Tensor, rate: float) -> None:
    """One update at a learning rate, the gradient's norm clipped at 1."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 1.0)
    optimizer.step()


@torch.no_grad()
def follow(average: nn.Module, model: nn.Module, steps: int) -> None:
    """Moves the average a little towards the model; in the first steps more than a little."""
    decay = min(0.998, (1 + steps) / (10 + steps))
    for slow, fast in zip(average.parameters(), model.parameters(), strict=True):
        slow.lerp_(fast, 1 - decay)


def report(steps: tqdm[Any], smooth: dict[str, float], values: dict[str, float]) -> None:
    """Counts a step and shows smoothed values beside it."""
    for name, value in values.items():
        smooth[name] = 0.98 * smooth.get(name, value) + 0.02 * value
    steps.set_postfix_str(" ".join(f"{name} {value:.3f}" for name, value in smooth.items()), refresh=False)
    steps.update()


class Run:
    """A training run on disk: the model, its moving average, the optimiser and the clock."""

    def __init__(self, name: str, model: nn.Module, optimizer: torch.optim.Optimizer, minutes: float) -> None:
        self.folder = RUNS / name
        self.model, self.average, self.optimizer = model, copy.deepcopy(model), optimizer
        self.clock, self.steps = Clock(minutes), 0

    def resume(self) -> None:
        """Continues where the saved run stopped, if there is one."""
        if (self.folder / "state.pt").is_file():
            state = torch.load(self.folder / "state.pt", weights_only=True)
            self.model.load_state_dict(state["model"])
            self.average.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.clock, self.steps = Clock(self.clock.budget, state["minutes"]), state["steps"]

    def save(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        state = {"minutes": self.clock.minutes, "steps": self.steps, "model": self.model.state_dict()}
        state |= {"average": self.average.state_dict(), "optimizer": self.optimizer.state_dict()}
        torch.save(state, self.folder / "state.part")
        (self.folder / "state.part").replace(self.folder / "state.pt")

    def learn(self, loss: Tensor, rate: float) -> None:
        """One step at the rate that the schedule allows by now."""
        step(self.optimizer, loss, rate * cosine(self.clock.progress))
        self.steps += 1
        follow(self.average, self.model, self.steps)


@torch.no_grad()
def initialise(model: nn.Module) -> None:
    """Replaces the 0.02 normal of transformers, which tiny models hardly train from, by Xavier and unit embeddings."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=1.0)


@torch.no_grad()
def whiten(projection: nn.Conv2d, pixels: Tensor) -> Tensor:
    """Lets a patch projection start from the principal components of patches, each brought to about unit variance.

    Random filters see colour before all else, since most of a patch's energy is its mean, and shapes are then learnt
    late: whitened ones show edges and shading as loudly.

    Args:
        projection: from pixels to tokens, with as many channels at most as a patch has values.
        pixels: (B, 3, H, W), some pictures as the model will see them.

    Returns:
        (C,) what to add to every token, so that their mean is zero.
    """
    patches = F.unfold(pixels, projection.kernel_size, stride=projection.stride).transpose(1, 2).flatten(0, 1)
    mean = patches.mean(0)
    variances, components = torch.linalg.eigh((patches - mean).T.cov())
    strongest = components[:, -projection.out_channels :] / (variances[-projection.out_channels :] + 0.02).sqrt()
    projection.weight.copy_(strongest.T.reshape(projection.weight.shape))
    return -(mean @ strongest)


Scene = tuple[NDArray[np.uint8], NDArray[np.int8], NDArray[np.float32], list[str]]


def draw_scene(cache: SceneCache, rng: np.random.Generator, rows: int = SIZE, columns: int = SIZE) -> Scene:
    """A rendered scene, cropped to its central band and perhaps mirrored: image, instances, depth and names.

    A band of the square is just what a picture of that aspect shows, since the field of view spans the longer side.
    """
    while True:
        index = int(rng.integers(len(cache)))
        top, left = (SIZE - rows) // 2, (SIZE - columns) // 2
        window = (slice(top, top + rows), slice(left, left + columns))
        image, instances, depth = (array[index][window] for array in (cache.images, cache.instances, cache.depth))
        instances, names = visible(instances, cache.names[index])
        if not names:
            continue
        if rng.random() < 0.5:
            image, instances, depth = image[:, ::-1], instances[:, ::-1], depth[:, ::-1]
        return np.ascontiguousarray(image), np.ascontiguousarray(instances), depth.astype(np.float32), names


def visible(instances: NDArray[np.int8], names: list[str]) -> tuple[NDArray[np.int8], list[str]]:
    """The objects that a crop has left, numbered anew."""
    counts = np.bincount(instances.ravel() + 1, minlength=len(names) + 1)[1:]
    kept = np.flatnonzero(counts >= MIN_VISIBLE * instances.size)
    renumber = np.full(len(names) + 1, -1, np.int8)
    renumber[kept + 1] = np.arange(len(kept), dtype=np.int8)
    return renumber[instances + 1], [names[index] for index in kept]


def jitter(pixels: Tensor, rng: np.random.Generator) -> Tensor:
    """Other light and a little noise, on pixels in 0..1."""
    return (pixels * float(rng.uniform(0.85, 1.15)) + 0.01 * torch.randn(pixels.shape)).clamp(0, 1)
