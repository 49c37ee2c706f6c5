"""Whether this machine computes what it should: the embedded checkpoints, scored on scenes they have never seen."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from vision_model_repo.demo.evaluation import evaluate
from vision_model_repo.demo.scenes import render, sample_scene
from vision_model_repo.engine.devices import resolve_device, resolve_dtype
from vision_model_repo.models.base import Model
from vision_model_repo.models.catalog import Catalog, Task
from vision_model_repo.models.hub import Hub
from vision_model_repo.settings import Settings

FIRST_SEED = 11_000_000
"""Scenes from here on are in no training set."""
SIZE = 224
CROWD = 4
"""Times as many scenes for features: an object's nearest neighbour is its like only if there is one."""
THREADS = 1
"""Threads of a forward pass unless settings say otherwise: networks this small only wait for one another on more."""

# What a sound installation reaches on a dozen scenes; the model cards have the figures on five hundred.
AT_LEAST: dict[Task, dict[str, float]] = {
    "segmentation": {"mean_iou": 0.75, "precision": 0.7, "recall": 0.7},
    "detection": {"ap50": 0.7},
    "depth": {},
    "features": {"nearest_same": 0.7},
}
AT_MOST: dict[Task, dict[str, float]] = {
    "segmentation": {"absent_answered": 0.1},
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


def check_all(settings: Settings, scenes: int, catalog: Catalog | None = None) -> Iterator[Outcome]:
    """Scores the embedded checkpoints of the tabletop's own tasks on the device and in the dtype that settings choose.

    Args:
        scenes: how many to ask about; for features a few times as many.
        catalog: model families to check; those installed if None.
    """
    # Read by torch when it is imported, which the first checkpoint causes.
    os.environ["OMP_NUM_THREADS"] = str(settings.torch_threads or THREADS)
    views = [render(sample_scene(FIRST_SEED + index), SIZE) for index in range(CROWD * scenes)]
    device = resolve_device(settings.device)
    dtype = resolve_dtype(settings.dtype, device)
    for spec in (catalog or Catalog.installed()).values():
        if spec.demo is not None and spec.task in AT_LEAST:
            loaded = spec.loader()(Hub().resolve(spec.demo), device=device, dtype=dtype)
            model = cast(Model[Any, Any, Any, Any], loaded)
            asked = views if spec.task == "features" else views[:scenes]
            yield Outcome(spec.demo, spec.task, evaluate(spec.task, model, asked))
            model.unload()
