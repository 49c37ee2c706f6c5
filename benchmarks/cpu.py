"""What the CPU is best given: how many threads a forward pass, and which arithmetic.

python -m benchmarks.cpu [--seconds 4]
"""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.checkpoints import write_dinov3
from benchmarks.load import Load, closed_loop, json_request, run
from benchmarks.pictures import fresh_base64
from benchmarks.report import elapsed_ms, print_table
from benchmarks.server import our_server
from vision_model_repo.models.base import EncoderModel, Model
from vision_model_repo.models.catalog import BUILT_IN, Catalog
from vision_model_repo.models.hub import Hub
from vision_model_repo.tasks.examples import examples

VIT = "dinov3 ViT-B/16, 224 x 224, random weights"
BODIES: dict[str, dict[str, Any]] = {
    "sam3": {"prompts": ["cube"], "model_id": "demo/sam3"},
    "dinov3": {"model_id": "demo/dinov3", "encoding": "base64"},
}
PICTURES = 64
NO_MEMORY: dict[str, Any] = {"CACHE_HOST_MB": "0", "CACHE_DEVICE_MB": "0"}
"""So that the same picture is computed anew each time."""
SECONDS = 4.0
REPEATS = 10
REPEAT_SECONDS = 5.0
"""After which a slow network is not repeated any more."""
FAMILIES = ("sam3", "grounding_dino", "depth_anything", "dinov3")
"""Those whose networks give numbers that can be compared."""
ARITHMETIC = ("float32", "bfloat16", "int8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of load for each row of the first table")
    seconds: float = parser.parse_args().seconds
    print_threads(seconds)
    print_arithmetic()


# Threads


def print_threads(seconds: float) -> None:
    pictures = list(islice(fresh_base64(640, 480), PICTURES))
    rows = [
        (
            model,
            str(threads),
            str(clients),
            f"{load.rate:.1f}",
            f"{load.percentile(50):.0f}",
            f"{load.percentile(99):.0f}",
        )
        for threads in sorted({1, os.cpu_count() or 1})
        for model, clients, load in measure_threads(threads, pictures, seconds)
    ]
    print_table(
        "Pictures of 640 x 480, none of them remembered, by the threads of one forward pass (TORCH_THREADS)",
        ("model", "threads", "clients", "images/s", "p50 ms", "p99 ms"),
        sorted(rows, key=lambda row: (row[0], int(row[2]), int(row[1]))),
    )


def measure_threads(threads: int, pictures: list[str], seconds: float) -> Iterator[tuple[str, int, Load]]:
    """Model, number of clients and what came of their requests, one server for all."""
    with TemporaryDirectory() as folder, our_server(cores=None, **NO_MEMORY, TORCH_THREADS=str(threads)) as server:
        models = {**BODIES, VIT: {**BODIES["dinov3"], "model_id": write_dinov3(Path(folder))}}
        for model, body in models.items():
            path = f"/inference/{model.split()[0]}"
            requests = [json_request(path, {**body, "images": [picture]}) for picture in pictures]
            run(closed_loop(server.url, requests[:4], clients=1))
            for clients in (1, 8):
                load = run(closed_loop(server.url, cycle(requests), clients=clients, seconds=seconds))
                if load.errors:
                    raise RuntimeError(f"{load.errors} requests to {model} failed.")
                yield model, clients, load


# Arithmetic


def print_arithmetic() -> None:
    with TemporaryDirectory() as folder:
        large = write_dinov3(Path(folder))
        models = {str(spec.demo): (spec.model_type, str(spec.demo)) for spec in BUILT_IN if spec.model_type in FAMILIES}
        models[VIT] = ("dinov3", large)
        rows = [row for name, (model_type, model_id) in models.items() for row in measure(name, model_type, model_id)]
    print_table(
        "One picture through the network (its encoder, where it has one) in this process",
        ("checkpoint", "arithmetic", "ms", "times as fast", "difference"),
        rows,
        [
            "difference: of what the network gives, root of the summed squares, as a share of float32's. Most of "
            "Grounding DINO's is that its queries come in another order.",
            f"int8: torch's dynamic quantisation of linear layers. {torch.get_num_threads()} threads; "
            f"{torch.backends.cpu.get_cpu_capability()}.",
        ],
    )


def measure(name: str, model_type: str, model_id: str) -> Iterator[tuple[str, ...]]:
    """A row for each arithmetic."""
    plain: tuple[float, NDArray[np.float32]] | None = None
    for arithmetic in ARITHMETIC:
        model = load(model_type, model_id, arithmetic)
        milliseconds, answer = fastest(model, examples(Catalog(BUILT_IN)[model_type].task)[0])
        model.unload()
        plain = plain or (milliseconds, answer)
        difference = np.linalg.norm(answer - plain[1]) / np.linalg.norm(plain[1])
        yield name, arithmetic, f"{milliseconds:.1f}", f"{plain[0] / milliseconds:.2f}", f"{difference:.4f}"


def load(model_type: str, model_id: str, arithmetic: str) -> Model:
    checkpoint = Hub(offline=True).resolve(model_id)
    dtype = "float32" if arithmetic == "int8" else arithmetic
    model: Any = Catalog(BUILT_IN)[model_type].loader()(checkpoint, device="cpu", dtype=dtype)
    if arithmetic == "int8":
        with warnings.catch_warnings():
            # It is deprecated for a package that serves the same kernels.
            warnings.simplefilter("ignore")
            torch.ao.quantization.quantize_dynamic(model.network, {nn.Linear}, torch.qint8, inplace=True)
    return model


def fastest(model: Model, request: Any) -> tuple[float, NDArray[np.float32]]:
    """Milliseconds of the network at best, and all that it gave as one vector."""
    if isinstance(model, EncoderModel):
        network = partial(model.encode, [model.prepare(request.image)])
    else:
        network = partial(model.forward, [model.preprocess(request)])
    answer = np.concatenate(list(numbers(network())))
    times: list[float] = []
    while len(times) < REPEATS and sum(times) < 1000 * REPEAT_SECONDS:
        times.append(elapsed_ms(network))
    return min(times), answer


def numbers(output: Any) -> Iterator[NDArray[np.float32]]:
    """What an output consists of, flat."""
    if isinstance(output, Tensor):
        yield output.float().numpy().ravel()
    elif isinstance(output, np.ndarray):
        yield output.ravel()
    elif isinstance(output, (list, tuple)):
        for each in output:
            yield from numbers(each)
    elif is_dataclass(output):
        for field in fields(output):
            yield from numbers(getattr(output, field.name))


if __name__ == "__main__":
    main()
