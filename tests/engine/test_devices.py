"""What the machine has, and how much of it a forward pass gets."""

from __future__ import annotations

import os

import psutil
import pytest

from vision_model_repo.engine.devices import forward_threads


@pytest.mark.parametrize(("physical", "ours", "threads"), [(1, 1, 1), (2, 2, 1), (8, 16, 7), (16, 4, 3), (None, 4, 1)])
def test_a_forward_pass_leaves_one_core_to_others(
    monkeypatch: pytest.MonkeyPatch, physical: int | None, ours: int, threads: int
) -> None:
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: physical)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(ours)), raising=False)
    assert forward_threads() == threads
