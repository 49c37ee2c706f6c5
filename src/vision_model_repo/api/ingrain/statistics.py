"""What each model has done, from the same registry that Prometheus reads, in the protocol's JSON.

Whole numbers of 64 bits are strings there, and what has not happened is null, as protocol buffers leave it out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from vision_model_repo.engine.engine import Engine
from vision_model_repo.engine.manager import ModelStatus

NANOSECONDS = 10**9
VERSION = "1"

PARTS = {"_sum": "sum", "_count": "count", "_total": "count", "": "count"}
"""Endings of the samples of a family that are read; others tell how times are spread, and since when."""

Tally = tuple[float, float]
"""How often, and seconds."""


def statistics(engine: Engine) -> dict[str, Any]:
    """`{"modelStats": [...]}`: every model in memory, and every one that has been asked."""
    readings = _Readings(engine)
    names = (status.spec.model_type for status in engine.manager.status() if status.loaded or readings.has(status))
    return {"modelStats": [readings.entry(name) for name in names]}


class _Readings:
    """The registry's samples of models, read once."""

    def __init__(self, engine: Engine) -> None:
        self._values: dict[str, dict[tuple[str, str], dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
        for family in engine.metrics.registry.collect():
            for sample in family.samples:
                labels = dict(sample.labels)
                model = labels.pop("model_type", None)
                part = PARTS.get(sample.name.removeprefix(family.name))
                if model is not None and part is not None:
                    self._values[model][family.name, "/".join(labels.values())][part] = sample.value

    def has(self, status: ModelStatus) -> bool:
        """Whether a model has been asked."""
        name = status.spec.model_type
        return name in self._values and any(self._tallies(name, "vision_stage_seconds", "vision_failures"))

    def entry(self, model: str) -> dict[str, Any]:
        """What is told of one model."""
        stages = dict(self._tallies(model, "vision_stage_seconds"))
        answered = stages.get("prepare", (0.0, 0.0))[0]
        cached = dict(self._tallies(model, "vision_encodings"))
        passes = self._passes(model)

        def told(*names: str) -> dict[str, str | None]:
            return _tally((answered, sum(stages[name][1] for name in names) if answered else 0.0))

        return {
            "name": model,
            "version": VERSION,
            "lastInference": _text(1000 * self._count(model, "vision_last_answer_timestamp_seconds")),
            "inferenceCount": _text(answered),
            "executionCount": _text(sum(count for count, _ in passes.values())),
            "inferenceStats": {
                "success": told(*stages),
                "fail": _tally((sum(count for _, (count, _) in self._tallies(model, "vision_failures")), 0.0)),
                "queue": told("queue"),
                "compute_input": told("prepare"),
                "compute_infer": told("encode", "prompt"),
                "compute_output": told("post"),
                "cache_hit": _tally((cached.get("hit", (0.0, 0.0))[0], 0.0)),
                "cache_miss": _tally((cached.get("miss", (0.0, 0.0))[0], 0.0)),
            },
            "batchStats": [_batch(size, tally) for size, tally in sorted(passes.items())] or None,
        }

    def _tallies(self, model: str, *families: str) -> Iterator[tuple[str, Tally]]:
        for (family, labels), parts in self._values[model].items():
            if family in families:
                yield labels, (parts.get("count", 0.0), parts.get("sum", 0.0))

    def _count(self, model: str, family: str) -> float:
        return next((count for _, (count, _) in self._tallies(model, family)), 0.0)

    def _passes(self, model: str) -> dict[int, Tally]:
        """By size, those of all steps together."""
        passes: dict[int, Tally] = {}
        for labels, (count, seconds) in self._tallies(model, "vision_pass_seconds"):
            size = int(labels.rpartition("/")[2])
            before = passes.get(size, (0.0, 0.0))
            passes[size] = before[0] + count, before[1] + seconds
        return passes


def _batch(size: int, tally: Tally) -> dict[str, Any]:
    # Preparing and finishing happen for each request alone, so they belong to no batch.
    alone = _tally((0.0, 0.0))
    return {"batchSize": str(size), "computeInput": alone, "computeInfer": _tally(tally), "computeOutput": alone}


def _tally(tally: Tally) -> dict[str, str | None]:
    return {"count": _text(tally[0]), "ns": _text(NANOSECONDS * tally[1])}


def _text(number: float) -> str | None:
    return str(round(number)) if number else None
