"""Masks to COCO's compressed run lengths: from the network's logits to large photographs, and from pixels.

The first table goes from what SAM3 gives to run lengths at the image's size: ours, and transformers' post-processing
with a loop over the pixels in Python behind it. Each way runs in a process of its own. The second goes from pixels:
ours, pycocotools, and the loop.

python -m benchmarks.masks
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as coco
from transformers import Sam3Processor

from benchmarks.report import at_least, elapsed_ms, median_ms, print_table
from vision_model_repo.formats.masks import coco_rle, encode_mask
from vision_model_repo.models.hub import Hub
from vision_model_repo.models.sam3_answers import Answer, Found, Item, to_result

LOGITS = 288
"""Side of the published SAM3's masks before they are enlarged."""
FULL_HD = (1080, 1920)
FULL_HD_MASKS = 50
LOOP_MASKS = 2
GOAL_TIMES, GOAL_MEMORY = 20.0, 10.0


class Cost(NamedTuple):
    """Of a number of masks: time, and the most memory that was added meanwhile."""

    masks: int
    milliseconds: float
    megabytes: float


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--masks", type=int, default=100)
    parser.add_argument("--size", type=int, nargs=2, default=(3000, 4000), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument(
        "--their-masks", type=int, default=8, help="that transformers is measured on, and scaled up from"
    )
    parser.add_argument("--full-hd-masks", type=int, default=FULL_HD_MASKS)
    options = parser.parse_args()
    print_from_logits(options.masks, tuple(options.size), options.their_masks)
    print_from_pixels(options.full_hd_masks)


# From logits


def print_from_logits(masks: int, size: tuple[int, int], their_masks: int) -> None:
    ours = alone(with_ours, masks, size)
    theirs = alone(with_transformers, their_masks, size)
    loop = alone(with_transformers_and_a_loop, 1, size)
    # The loop goes over one mask after the other, and adds no memory to what is there.
    loop_only = loop.milliseconds - theirs.milliseconds / theirs.masks
    scaled = Cost(
        masks, masks * (theirs.milliseconds / theirs.masks + loop_only), masks / theirs.masks * theirs.megabytes
    )
    print_table(
        f"{masks} masks from {LOGITS} x {LOGITS} logits to COCO RLE at {size[1]} x {size[0]}",
        ("way", "masks measured", f"s for {masks}", f"MB for {masks}", "times ours", "MB, times ours"),
        (
            (
                name,
                measured,
                f"{cost.milliseconds / 1000:.2f}",
                f"{cost.megabytes:.0f}",
                f"{cost.milliseconds / ours.milliseconds:.0f}",
                f"{cost.megabytes / ours.megabytes:.0f}",
            )
            for name, measured, cost in (
                ("this server", str(masks), ours),
                ("transformers and a loop", f"{theirs.masks}, loop 1", scaled),
            )
        ),
        notes=[
            at_least("time, of theirs to ours", scaled.milliseconds / ours.milliseconds, GOAL_TIMES, " x"),
            at_least("memory, of theirs to ours", scaled.megabytes / ours.megabytes, GOAL_MEMORY, " x"),
        ],
    )


def alone(way: Callable[[NDArray[np.float32], tuple[int, int]], object], masks: int, size: tuple[int, int]) -> Cost:
    """Measures in a new process, which has imported what takes long and done nothing else."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["transformers", "vision_model_repo.models.sam3_answers"])
    with ProcessPoolExecutor(1, mp_context=context) as process:
        return process.submit(cost_of, way, masks, size).result()


def cost_of(way: Callable[[NDArray[np.float32], tuple[int, int]], object], masks: int, size: tuple[int, int]) -> Cost:
    logits = np.stack([10 * blob(seed, LOGITS, LOGITS) for seed in range(masks)])
    way(logits[:1], (LOGITS, LOGITS))
    # Linux forgets the process's highest memory so far.
    Path("/proc/self/clear_refs").write_text("5")
    before = peak_mb()
    milliseconds = elapsed_ms(partial(way, logits, size))
    return Cost(masks, milliseconds, peak_mb() - before)


def peak_mb() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def with_ours(logits: NDArray[np.float32], size: tuple[int, int]) -> list[dict[str, Any]]:
    found = Found(np.ones(len(logits), np.float32), logits, presence=1.0)
    item = Item(*size, prompts=(), objects=(), threshold=0.5, mask_threshold=0.5, overlap_weights=None)
    (instances,) = to_result(Answer([found], []), item).prompts
    return [coco_rle(mask) for mask in instances.masks]


def with_transformers(logits: NDArray[np.float32], size: tuple[int, int]) -> Any:
    count = len(logits)
    outputs = SimpleNamespace(
        pred_logits=torch.full((1, count), 10.0),
        pred_boxes=torch.zeros(1, count, 4),
        pred_masks=torch.from_numpy(logits)[None],
        presence_logits=torch.full((1, 1), 10.0),
    )
    return processor().post_process_instance_segmentation(outputs, target_sizes=[size])[0]["masks"]


@cache
def processor() -> Any:
    return Sam3Processor.from_pretrained(Hub(offline=True).resolve("demo/sam3").folder)


def with_transformers_and_a_loop(logits: NDArray[np.float32], size: tuple[int, int]) -> list[dict[str, Any]]:
    return [with_a_loop(mask.numpy()) for mask in with_transformers(logits, size)]


# From pixels


def print_from_pixels(count: int) -> None:
    masks = [blob(seed, *FULL_HD) > 0 for seed in range(count)]
    for mask in masks[:1]:
        assert coco_rle(encode_mask(mask)) == with_pycocotools(mask) == with_a_loop(mask)
    ways: dict[str, tuple[Callable[[NDArray[np.bool_]], object], Sequence[NDArray[np.bool_]]]] = {
        "this server": (lambda mask: coco_rle(encode_mask(mask)), masks),
        "pycocotools.mask.encode": (with_pycocotools, masks),
        "a loop over the pixels": (with_a_loop, masks[:LOOP_MASKS]),
    }
    times = {name: median_ms(partial(way, mask) for mask in measured) for name, (way, measured) in ways.items()}
    print_table(
        f"Masks of {FULL_HD[1]} x {FULL_HD[0]} to COCO RLE, the same strings from each",
        ("way", "masks measured", "ms a mask", "times ours"),
        (
            (name, str(len(ways[name][1])), f"{each:.2f}", f"{each / times['this server']:.1f}")
            for name, each in times.items()
        ),
    )


def blob(seed: int, height: int, width: int) -> NDArray[np.float32]:
    """A mask as models give them, positive inside: a few percent of the image, with a hole and a wavy edge."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    cx, cy = rng.uniform(0.2, 0.8, 2) * (width, height)
    rx, ry = rng.uniform(0.08, 0.22, 2) * height
    angle = np.arctan2(y - cy, x - cx)
    distance = np.hypot((x - cx) / rx, (y - cy) / ry)
    return np.minimum(1 + 0.1 * np.sin(9 * angle) - distance, distance - 0.15).astype(np.float32)


def with_pycocotools(mask: NDArray[np.bool_]) -> dict[str, Any]:
    rle: dict[str, Any] = coco.encode(np.asfortranarray(mask, np.uint8))  # type: ignore[assignment]
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}


def with_a_loop(mask: NDArray[np.integer[Any]] | NDArray[np.bool_]) -> dict[str, Any]:
    """Pixel by pixel, down each column, as it is often written."""
    counts, previous, length = [], 0, 0
    height, width = mask.shape
    for x in range(width):
        for y in range(height):
            value = int(mask[y, x])
            if value != previous:
                counts.append(length)
                previous, length = value, 0
            length += 1
    counts.append(length)
    uncompressed: Any = {"size": [height, width], "counts": counts}
    rle = coco.frPyObjects(uncompressed, height, width)
    return {"size": [height, width], "counts": rle["counts"].decode()}


if __name__ == "__main__":
    main()
