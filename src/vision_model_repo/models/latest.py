"""What was computed last is kept: questions about one image often come in a row."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Generic, TypeVar

from torch import Tensor

Made = TypeVar("Made")


class Latest(Generic[Made]):
    """What was made of one tensor, until another one is asked about or the tensor is gone. For one thread."""

    def __init__(self) -> None:
        self._source: weakref.ref[Tensor] | None = None
        self._made: Made | None = None

    def of(self, source: Tensor, make: Callable[[], Made]) -> Made:
        """What `make` gives for this tensor, from memory where it is that of the last call."""
        if self._made is None or self._source is None or self._source() is not source:
            self.clear()
            self._made = make()
            self._source = weakref.ref(source, self._forget)
        return self._made

    def clear(self) -> None:
        self._source = self._made = None

    def _forget(self, gone: weakref.ref[Tensor]) -> None:
        # By then another tensor's may be there.
        if self._source is gone:
            self.clear()
