"""A model family for tests of the manager: really loaded from a checkpoint, with weights of a chosen size."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from vision_model_repo.models.base import Checkpoint, Model
from vision_model_repo.models.catalog import Catalog, ModelSpec

NAMES = ("first", "second", "third")
LOADED: list[str] = []
"""Every load that ran, by model id."""
FAILURES: list[Exception] = []
"""Errors that the next loads and forward passes raise, taken from the end."""
BROKEN = 666
DEVICE_THREADS: set[str] = set()


class Weighty(Model[int, int, int, int]):
    """Doubles a number; negative numbers are refused by preprocess, and BROKEN breaks the forward pass."""

    def __init__(self, checkpoint: Checkpoint, device: str) -> None:
        self.model_id = checkpoint.model_id
        self.device = device
        self.dtype = "float32"
        self.weights: np.ndarray | None = load_file(checkpoint.folder / "model.safetensors")["weight"]

    def preprocess(self, request: int) -> int:
        if request < 0:
            raise ValueError("negative")
        return request

    def forward(self, items: Sequence[int]) -> list[int]:
        DEVICE_THREADS.add(threading.current_thread().name)
        if FAILURES:
            raise FAILURES.pop()
        if BROKEN in items:
            raise ZeroDivisionError
        assert self.weights is not None, "used after unload"
        time.sleep(0.005)
        return [2 * item for item in items]

    def postprocess(self, raw: int, item: int) -> int:
        return raw

    def memory_bytes(self) -> int:
        return 0 if self.weights is None else self.weights.nbytes

    def unload(self) -> None:
        self.weights = None


def load(checkpoint: Checkpoint, *, device: str, dtype: str) -> Weighty:
    time.sleep(0.02)
    LOADED.append(checkpoint.model_id)
    if FAILURES:
        raise FAILURES.pop()
    return Weighty(checkpoint, device)


def write_checkpoint(folder: Path, megabytes: float = 1.0) -> str:
    """A folder that the hub accepts as a model id."""
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    save_file({"weight": np.zeros(int(megabytes * 2**18), np.float32)}, folder / "model.safetensors")
    return str(folder)


def catalog() -> Catalog:
    return Catalog(tuple(ModelSpec(name, "features", "tests.engine.weighty", ("nobody/nothing",)) for name in NAMES))
