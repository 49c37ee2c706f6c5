"""Rendered tabletop scenes on disk, shared by every training script.

    python -m training.data --count 16000

writes memory-mapped arrays under `training/cache/` once; the scripts then read random scenes at memory speed.
Training uses seeds from 0, evaluation seeds from `HELD_OUT`.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from vision_model_repo.demo.scenes import View, render, sample_scene

CACHE = Path(__file__).parent / "cache"
SIZE = 224
HELD_OUT = 10_000_000
CHUNK = 250


class SceneCache:
    """The rendered training scenes.

    Attributes:
        images: (N, 224, 224, 3) uint8.
        instances: (N, 224, 224) int8, index into `names[i]`, -1 for the ground.
        depth: (N, 224, 224) float16, metres.
        names: for each scene the name of each visible object, such as "red cube".
    """

    def __init__(self, folder: Path = CACHE) -> None:
        self.images: NDArray[np.uint8] = np.load(folder / "images.npy", mmap_mode="r")
        self.instances: NDArray[np.int8] = np.load(folder / "instances.npy", mmap_mode="r")
        self.depth: NDArray[np.float16] = np.load(folder / "depth.npy", mmap_mode="r")
        self.names: list[list[str]] = json.loads((folder / "names.json").read_text())

    def __len__(self) -> int:
        return len(self.names)


def held_out(index: int, width: int = SIZE, height: int | None = None) -> View:
    """The evaluation scene of that index, which no training run has seen."""
    return render(sample_scene(HELD_OUT + index), width, height)


def _fill(first: int, count: int, folder: Path) -> list[list[str]]:
    images, instances, depth = (
        np.load(folder / f"{name}.npy", mmap_mode="r+") for name in ("images", "instances", "depth")
    )
    names = []
    for index in range(first, first + count):
        view = render(sample_scene(index), SIZE)
        images[index], instances[index], depth[index] = view.image, view.instances, view.depth
        names.append(view.names)
    return names


def build(count: int, processes: int, folder: Path = CACHE) -> None:
    """Renders `count` scenes with the given number of processes."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, shape, dtype in (
        ("images", (count, SIZE, SIZE, 3), np.uint8),
        ("instances", (count, SIZE, SIZE), np.int8),
        ("depth", (count, SIZE, SIZE), np.float16),
    ):
        np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=dtype, shape=shape)
    firsts = range(0, count, CHUNK)
    with ProcessPoolExecutor(processes) as pool:
        chunks = pool.map(_fill, firsts, [min(CHUNK, count - first) for first in firsts], [folder] * len(firsts))
        names = [scene for chunk in tqdm(chunks, total=len(firsts), unit_scale=CHUNK, unit="scene") for scene in chunk]
    (folder / "names.json").write_text(json.dumps(names))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=16_000)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    build(arguments.count, arguments.processes)
