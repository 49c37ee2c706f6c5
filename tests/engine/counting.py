"""A model whose answers grow, and one that answers at once, for tests of what happens while an answer grows."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any

from vision_model_repo.models.base import Checkpoint, GenerativeModel, RemoteModel, Servable
from vision_model_repo.models.catalog import REMOTE, Catalog, ModelSpec

STEP_SECONDS = 0.002
STEPS: list[int] = []
"""Every step that was taken, by the number that was counted to; tests clear it."""
FAILURES: list[Exception] = []
"""Errors that the next steps raise, taken from the end."""
CLOSED: list[int] = []
"""Answers of the model elsewhere that ended, whole or not."""


@dataclass
class Count:
    to: int
    reached: int = 0
    abandoned: threading.Event = field(default_factory=threading.Event)


class Counter(GenerativeModel[int, Count, int, int]):
    """Counts to a number, three steps in a pass. Negative numbers are refused."""

    model_id, device, dtype, max_batch = "counter", "cpu", "float32", 4

    def preprocess(self, request: int) -> Count:
        if request < 0:
            raise ValueError("negative")
        return Count(request)

    def forward(self, items: Sequence[Count]) -> list[int]:
        [item] = items
        if FAILURES:
            item.reached = 0
            raise FAILURES.pop()
        for _ in range(3):
            if item.reached == item.to or item.abandoned.is_set():
                break
            time.sleep(STEP_SECONDS)
            STEPS.append(item.to)
            item.reached += 1
        return [-1 if item.reached == item.to else item.reached]

    def finished(self, raw: int) -> bool:
        return raw < 0

    def abandon(self, item: Count) -> None:
        item.abandoned.set()

    def postprocess(self, raw: int, item: Count) -> int:
        return item.reached

    def memory_bytes(self) -> int:
        return 0

    def unload(self) -> None:
        """Nothing to give back."""


class Elsewhere(RemoteModel[int, int, int]):
    """Counts to a number, as another server would."""

    model_id, device, dtype, max_batch = "elsewhere", REMOTE, REMOTE, 2

    def preprocess(self, request: int) -> int:
        return request

    async def stream(self, item: int) -> AsyncGenerator[int]:
        try:
            for number in range(item):
                yield number + 1
        finally:
            CLOSED.append(item)

    def memory_bytes(self) -> int:
        return 0

    def unload(self) -> None:
        """Nothing to give back."""


def load(checkpoint: Checkpoint, *, device: str, dtype: str) -> Servable:
    return Counter()


def load_elsewhere(checkpoint: Checkpoint, *, device: str, dtype: str) -> Servable:
    return Elsewhere()


def catalog() -> Catalog:
    def spec(name: str, function: str, **changes: Any) -> ModelSpec:
        return ModelSpec(name, "chat", f"tests.engine.{function}", (), **changes)

    return Catalog(
        (
            spec("counter", "counting:load"),
            spec("elsewhere", "counting:load_elsewhere", device=REMOTE),
            ModelSpec("quick", "features", "tests.engine.weighty", ("nobody/nothing",)),
        )
    )
