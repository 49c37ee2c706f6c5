"""Whether this machine computes what it should: the embedded checkpoints, scored on scenes they have never seen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vision_model_repo.demo.evaluation import evaluate
from vision_model_repo.demo.scenes import render, sample_scene
from vision_model_repo.engine.devices import resolve_device, resolve_dtype
from vision_model_repo.models.catalog import Catalog, Task
from vision_model_repo.models.hub import Hub
from vision_model_repo.settings import Settings

FIRST_SEED = 11_000_000
"""Scenes from here on are in no training set."""
SIZE = 224
CROWD = 6
"""Times as many scenes for features: an object's nearest neighbour is its like only if there is one."""

# What a sound installation reaches on a dozen scenes; the model cards have the figures on five hundred.
AT_LEAST: dict[Task, dict[str, float]] = {
    "segmentation": {"mean_iou": 0.75, "precision": 0.7, "recall": 0.7},
    "detection": {"ap50": 0.7},
    "depth": {},
    "features": {"nearest_same": 0.7},
}
AT_MOST: dict[Task, dict[str, float]] = {
    "segmentation": {"absent_answered": 0.15},
    "detection": {},
    "depth": {"abs_rel": 0.1},
    "features": {},
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """One checkpoint's figures and what was asked of them."""

    model_id: str
    task: Task
    figures: dict[str, float]

    @property
    def passed(self) -> bool:
        enough = all(self.figures[name] >= bound for name, bound in AT_LEAST[self.task].items())
        return enough and all(self.figures[name] <= bound for name, bound in AT_MOST[self.task].items())

    @property
    def measured(self) -> str:
        names = [*AT_LEAST[self.task], *AT_MOST[self.task]]
        return ", ".join(f"{name} {self.figures[name]:.3f}" for name in names)

    @property
    def required(self) -> str:
        least = [f"{name} >= {bound}" for name, bound in AT_LEAST[self.task].items()]
        return ", ".join([*least, *(f"{name} <= {bound}" for name, bound in AT_MOST[self.task].items())])


def check_all(settings: Settings, scenes: int) -> Iterator[Outcome]:
    """Scores every embedded checkpoint on the device and in the dtype that settings choose."""
    device = resolve_device(settings.device)
    dtype = resolve_dtype(settings.dtype, device)
    for spec in Catalog.installed().values():
        if spec.demo is not None:
            count = scenes * (CROWD if spec.task == "features" else 1)
            views = (render(sample_scene(FIRST_SEED + index), SIZE) for index in range(count))
            model = spec.loader()(Hub().resolve(spec.demo), device=device, dtype=dtype)
            yield Outcome(spec.demo, spec.task, evaluate(spec.task, model, views))
            model.unload()
