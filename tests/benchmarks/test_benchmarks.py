"""Every benchmark, as small as it goes: it runs to its end and prints its table."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import nullcontext
from importlib import import_module

import pytest

from benchmarks.report import at_least, at_most
from benchmarks.server import Server, our_server

SHARED = {
    "prompts": ("--tiny --prompts 1 2 --repeats 1", "a full forward per prompt"),
    "second_look": ("--tiny --repeats 1", "the next click"),
    "batching": ("--clients 2 --requests 4 --rounds 1 --models dinov3", "demo/dinov3"),
    "features": ("--images 1 --repeats 1 --layers 1", "npz of float16"),
    "responsive": ("--clients 1 --probes 10", "GET /health"),
}
"""Arguments of each benchmark that asks our server, and something that its table says."""
ALONE = {
    "overhead": ("--clients 8 --seconds 0.1 --rounds 1 --idle-seconds 0.1 --peers FastAPI", "the floor"),
    "masks": ("--masks 2 --their-masks 1 --size 200 300 --full-hd-masks 1", "pycocotools.mask.encode"),
    "embeddings": ("--clients 2 --seconds 0.2 --peers 0", "/embed_text"),
    "startup": ("--repeats 1 --requests /inference/dinov3", "/inference/dinov3"),
    "growth": ("--jobs 20 --minutes 0", "20 jobs submitted"),
    "long_clip": ("--minutes 0.05 --frames-per-second 2", "minute"),
    "gpu": ("--tiny --repeats 1 --models dinov3", "images/s"),
}
"""The same of those that start what they measure, or need no server."""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with our_server() as server:
        yield server


def printed(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    arguments, _ = (SHARED | ALONE)[name]
    monkeypatch.setattr(sys, "argv", [name, *arguments.split()])
    import_module(f"benchmarks.{name}").main()
    return capsys.readouterr().out


# They run what users run: what other packages warn of there is no fault of ours.
@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", SHARED)
def test_it_prints_its_table_and_the_machine(
    name: str, server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # One server for all: most of the time would be that of starting them.
    monkeypatch.setattr(f"benchmarks.{name}.our_server", lambda **_: nullcontext(server))
    said = printed(name, monkeypatch, capsys)
    assert SHARED[name][1] in said
    assert "cores, load" in said


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", ALONE)
def test_it_prints_its_table_and_the_machine_without_the_shared_server(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = printed(name, monkeypatch, capsys)
    assert ALONE[name][1] in said
    assert "cores, load" in said


def test_without_a_gpu_the_benchmark_of_gpus_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu = import_module("benchmarks.gpu")
    monkeypatch.setattr(sys, "argv", ["gpu"])
    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: False)
    gpu.main()
    assert capsys.readouterr().out == "no CUDA device\n"


def test_a_goal_is_met_on_its_bound_and_missed_beyond_it() -> None:
    assert at_least("speed", 1.5, 1.5, " x") == "goal met:    speed: 1.5 x (goal: at least 1.5 x)"
    assert at_least("speed", 1.4, 1.5, " x").startswith("goal MISSED:")
    assert at_most("wait", 20.0, 20, " ms").startswith("goal met:")
    assert at_most("wait", 21.0, 20, " ms").startswith("goal MISSED:")


def test_what_could_not_be_measured_meets_no_goal() -> None:
    assert at_most("wait", float("nan"), 20).startswith("goal MISSED:")
    assert at_least("speed", float("nan"), 1).startswith("goal MISSED:")
