"""The self-test passes a sound installation and fails one that computes something else."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
import torch

from vision_model_repo.demo.selftest import AT_LEAST, check_all
from vision_model_repo.models.catalog import BUILT_IN, Catalog, ModelSpec
from vision_model_repo.settings import Settings

SCENES = 9
FEW = 3
"""Enough to see that a network is spoilt."""
EMBEDDED = [spec for spec in BUILT_IN if spec.demo and spec.task in AT_LEAST]


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Settings:
    # Whatever the self-test makes of it is undone with the test.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("DEVICE", "cpu")
    return Settings()  # pyright: ignore[reportCallIssue]


def test_the_embedded_checkpoints_pass(settings: Settings) -> None:
    outcomes = list(check_all(settings, SCENES, Catalog(BUILT_IN)))
    assert [outcome.model_id for outcome in outcomes] == [spec.demo for spec in EMBEDDED]
    assert all(outcome.passed for outcome in outcomes), [outcome.measured for outcome in outcomes]


@pytest.mark.parametrize("spec", EMBEDDED, ids=lambda spec: spec.model_type)
def test_a_network_that_computes_something_else_fails(
    spec: ModelSpec, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = import_module(spec.module)
    sound = module.load

    def spoilt(*arguments: Any, **options: Any) -> Any:
        model = sound(*arguments, **options)
        torch.manual_seed(0)
        with torch.no_grad():
            for weight in model.network.parameters():
                if weight.ndim > 1:
                    weight.add_(weight.std() * torch.randn_like(weight))
        return model

    monkeypatch.setattr(module, "load", spoilt)
    (outcome,) = check_all(settings, FEW, Catalog((spec,)))
    assert not outcome.passed, outcome.measured
