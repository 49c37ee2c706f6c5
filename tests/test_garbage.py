from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from vision_model_repo import garbage


class Knot:
    """Refers to itself, so that only the collector can end it."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def _thawed() -> Iterator[None]:
    yield
    gc.unfreeze()


def test_what_is_left_is_looked_at_no_more() -> None:
    kept = [Knot() for _ in range(1000)]
    garbage.spare()
    assert gc.get_freeze_count() > len(kept)
    assert not any(isinstance(each, Knot) for each in gc.get_objects())


def test_what_was_spared_is_collected_once_it_is_garbage() -> None:
    knot = Knot()
    garbage.spare()
    gone = weakref.ref(knot)
    del knot
    garbage.collect()
    assert gone() is None
