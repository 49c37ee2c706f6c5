"""What the engine counts and times, for Prometheus.

Counters and histograms are told as things happen; gauges are read from the engine's parts when someone asks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from vision_model_repo.engine.timings import Timings

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
STAGES = ("prepare", "queue", "encode", "prompt", "post")
SIZES = (1, 2, 4, 8, 16, 32, 64)

Reason = Literal["asked", "idle", "room"]
"""Why a model leaves memory: someone wants it so, nobody has asked it for long, or another one needs the room."""

Readings = Mapping[tuple[str, ...], float]
"""Values of one gauge by the values of its labels."""


class Metrics:
    """The engine's metrics, in a registry of their own.

    Args:
        known: whether there is a model of a name; of others nothing is counted. All are, where left out.
    """

    def __init__(self, known: Callable[[str], bool] = lambda model_type: True) -> None:
        self.registry = CollectorRegistry()
        self._known = known
        self._stages = Histogram(
            "vision_stage_seconds",
            "Time of one image in each stage of its request.",
            ("model_type", "stage"),
            buckets=SECONDS,
            registry=self.registry,
        )
        self._batches = Histogram(
            "vision_batch_size",
            "Requests that shared one pass over the device.",
            ("model_type", "step"),
            buckets=SIZES,
            registry=self.registry,
        )
        self._encodings = Counter(
            "vision_encodings",
            "Images that met the encoder, by whether their encoding was at hand.",
            ("model_type", "cache"),
            registry=self.registry,
        )
        self._failures = Counter(
            "vision_failures",
            "Images whose request failed, by error.",
            ("model_type", "error"),
            registry=self.registry,
        )

        self._passes = Summary(
            "vision_pass_seconds",
            "Time of one pass over the device, by the number of requests that shared it.",
            ("model_type", "step", "size"),
            registry=self.registry,
        )
        self._last = Gauge(
            "vision_last_answer_timestamp_seconds",
            "When a model answered last, in seconds since the epoch.",
            ("model_type",),
            registry=self.registry,
        )
        self._unloads = Counter(
            "vision_unloads",
            "Models taken out of memory, by reason: asked for, idle for long, or to make room.",
            ("model_type", "reason"),
            registry=self.registry,
        )

    def answered(self, model_type: str, timings: Timings) -> None:
        """Counts one image's answer."""
        if not self._known(model_type):
            return
        self._last.labels(model_type).set(time.time())
        for stage in STAGES:
            self._stages.labels(model_type, stage).observe(getattr(timings, stage))
        if timings.cached is not None:
            self._encodings.labels(model_type, "hit" if timings.cached else "miss").inc()

    def usage(self, model_type: str) -> tuple[int, float]:
        """How many images a model has answered, and the seconds that they took in all stages."""
        labels = {"model_type": model_type, "stage": "prepare"}
        count = self.registry.get_sample_value("vision_stage_seconds_count", labels) or 0
        seconds = (
            self.registry.get_sample_value("vision_stage_seconds_sum", {**labels, "stage": stage}) or 0.0
            for stage in STAGES
        )
        return int(count), sum(seconds)

    def failed(self, model_type: str, error: BaseException) -> None:
        """Counts one image that got no answer."""
        if self._known(model_type):
            self._failures.labels(model_type, type(error).__name__).inc()

    def batched(self, model_type: str, step: str, size: int, seconds: float) -> None:
        """Counts one pass over the device."""
        if self._known(model_type):
            self._batches.labels(model_type, step).observe(size)
            self._passes.labels(model_type, step, size).observe(seconds)

    def unloaded(self, model_type: str, reason: Reason) -> None:
        """Counts one model that left memory."""
        if self._known(model_type):
            self._unloads.labels(model_type, reason).inc()

    def forget(self, model_type: str) -> None:
        """Drops all that was counted of a model that is no longer there, so that names do not add up for ever."""
        for metric in (
            *(self._stages, self._batches, self._encodings, self._failures),
            *(self._passes, self._last, self._unloads),
        ):
            metric.remove_by_labels({"model_type": model_type})

    def gauge(self, name: str, documentation: str, labels: tuple[str, ...], read: Callable[[], Readings]) -> None:
        """Adds a gauge that is read whenever the metrics are."""
        self.registry.register(_Gauge(name, documentation, labels, read))


class _Gauge(Collector):
    def __init__(self, name: str, documentation: str, labels: tuple[str, ...], read: Callable[[], Readings]) -> None:
        self._name, self._documentation, self._labels, self._read = name, documentation, labels, read

    def describe(self) -> Iterable[Metric]:
        return [GaugeMetricFamily(self._name, self._documentation, labels=self._labels)]

    def collect(self) -> Iterable[Metric]:
        family = GaugeMetricFamily(self._name, self._documentation, labels=self._labels)
        for labels, value in self._read().items():
            family.add_metric(labels, value)
        return [family]
