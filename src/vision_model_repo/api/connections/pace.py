"""How fast bytes pass, over stretches of time: a client that was fast once may not be slow from then on."""

from __future__ import annotations

import math


class Pace:
    """A least rate, measured over one stretch of time after the other.

    Args:
        rate: bytes per second.
        seconds: length of a stretch.
    """

    def __init__(self, rate: float, seconds: float) -> None:
        self._least, self._seconds = rate * seconds, seconds
        self._since = math.inf
        self._mark = 0

    def pause(self) -> None:
        """Measures nothing until it is asked again: there is nobody to wait for."""
        self._since = math.inf

    def is_too_slow(self, now: float, passed: int) -> bool:
        """Whether a stretch has ended in which less passed than should have.

        Args:
            now: seconds, on any clock.
            passed: bytes since some moment.
        """
        if self._since == math.inf:
            self._since, self._mark = now, passed
            return False
        if now - self._since < self._seconds:
            return False
        too_slow = passed - self._mark < self._least
        self._since, self._mark = now, passed
        return too_slow
