"""Prints the figures of the embedded checkpoints on held-out scenes, asked through the product's own models.

python -m training.evaluate
python -m training.evaluate sam3 --scenes 100 --width 640 --height 480

The vision-language model is asked one question a scene, and counts by kind of question. CLIP is given one caption a
scene, and looks for its scene among fifty.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import cast

import torch
from tqdm import tqdm

from training.clip_evaluation import evaluate_retrieval, load_clip
from training.common import CHECKPOINTS
from training.data import SIZE, held_out
from training.vlm_evaluation import evaluate_answers, load_vlm
from vision_model_repo.demo.evaluation import evaluate, evaluate_clicks
from vision_model_repo.demo.scenes import View
from vision_model_repo.errors import InvalidInput
from vision_model_repo.models.base import Model
from vision_model_repo.models.catalog import BUILT_IN, ModelSpec
from vision_model_repo.models.hub import Hub


def main() -> None:
    demos = {spec.demo.removeprefix("demo/"): spec for spec in BUILT_IN if spec.demo}
    known = [name for name in dict.fromkeys([*demos, *_APART]) if (CHECKPOINTS / name).is_dir()]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="name", help=f"{', '.join(known)}; all of them if left out")
    parser.add_argument("--scenes", type=int, default=500)
    parser.add_argument("--width", type=int, default=SIZE)
    parser.add_argument("--height", type=int, default=SIZE)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(known):
        parser.error(f"no embedded checkpoint {', '.join(sorted(unknown))}")
    torch.set_num_threads(arguments.threads)
    for name in arguments.names or known:
        started = time.monotonic()
        figures = _APART[name](arguments) if name in _APART else _figures(arguments, name, demos[name])
        line = "  ".join(f"{figure} {value:.3f}" for figure, value in figures.items())
        print(f"{name:16} {arguments.scenes} scenes, {time.monotonic() - started:.0f} s  {line}")


def _figures(arguments: argparse.Namespace, name: str, spec: ModelSpec) -> dict[str, float]:
    model = cast(Model, spec.loader()(Hub().resolve(f"demo/{name}"), device="cpu", dtype="float32"))
    figures = evaluate(spec.task, model, _views(arguments, name))
    if spec.task == "segmentation":
        # A checkpoint without a tracker refuses clicks.
        with suppress(InvalidInput):
            figures |= evaluate_clicks(model, _views(arguments, f"{name} clicks"))
    return figures


def _answers(arguments: argparse.Namespace) -> dict[str, float]:
    model, processor = load_vlm(CHECKPOINTS / "vlm")
    return evaluate_answers(model, processor, _views(arguments, "vlm"))


def _retrieval(arguments: argparse.Namespace) -> dict[str, float]:
    model, processor = load_clip(CHECKPOINTS / "clip")
    return evaluate_retrieval(model, processor, _views(arguments, "clip"))


def _views(arguments: argparse.Namespace, name: str) -> Iterator[View]:
    views = (held_out(index, arguments.width, arguments.height) for index in range(arguments.scenes))
    return iter(tqdm(views, total=arguments.scenes, desc=name, leave=False))


_APART: dict[str, Callable[[argparse.Namespace], dict[str, float]]] = {"vlm": _answers, "clip": _retrieval}
"""What is asked through transformers alone."""


if __name__ == "__main__":
    main()
