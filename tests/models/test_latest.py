"""What was made of the last tensor is made once, and goes with it."""

from __future__ import annotations

import weakref

import torch

from vision_model_repo.models.latest import Latest


def test_the_same_tensor_again_is_answered_from_memory() -> None:
    latest, tensor = Latest[object](), torch.zeros(2)
    made = latest.of(tensor, object)
    assert latest.of(tensor, object) is made


def test_an_equal_tensor_is_another_one() -> None:
    latest, one, other = Latest[object](), torch.zeros(2), torch.zeros(2)
    made = latest.of(one, object)
    assert latest.of(other, object) is not made
    assert latest.of(one, object) is not made


def test_nothing_stays_when_the_tensor_is_gone_or_another_comes_or_it_is_cleared() -> None:
    latest, one, other = Latest[torch.Tensor](), torch.zeros(2), torch.zeros(2)
    made = weakref.ref(latest.of(one, lambda: torch.ones(2)))
    del one
    assert made() is None
    made = weakref.ref(latest.of(other, lambda: torch.ones(2)))
    third = torch.zeros(2)
    latest.of(third, lambda: torch.ones(2))
    assert made() is None
    del other
    made = weakref.ref(latest.of(third, lambda: torch.zeros(2)))
    assert made() is not None
    latest.clear()
    assert made() is None
