"""The outlines of a mask, along the edges of its pixels.

Contour finders (OpenCV, scikit-image) draw through the centres of the border pixels, or between them: masks lose
half a pixel on every side, and one that is a pixel wide has an outline without area. Along the edges nothing is
lost: filled, the outlines give the mask again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Point = tuple[int, int]


class _Corners(NamedTuple):
    """The corners of all outlines, row by row.

    Along a row of the pixel grid corners pair up to edges, the first with the second and so on; `below` holds each
    one's partner in its column. `outer` says whether the pixel to the lower right is set.
    """

    points: list[Point]
    below: list[int]
    outer: list[bool]
    touching: bool


def trace_rings(pixels: NDArray[np.bool_]) -> Iterator[list[Point]]:
    """The outlines of an (H, W) mask as closed rings of corners (x, y), none of which touches itself.

    Outer rings turn clockwise as seen, holes the other way. Pixels that touch at a corner only lie in separate
    rings.
    """
    corners = _find_corners(np.pad(pixels, 1))
    for cycle in _cycles(corners.below):
        # Each is entered at its topmost, then leftmost corner, and to the right.
        path = [corners.points[index] for index in (cycle if corners.outer[cycle[0]] else reversed(cycle))]
        yield from _split(path) if corners.touching else (path,)


def _find_corners(padded: NDArray[np.bool_]) -> _Corners:
    a, b, c, d = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    # A grid point is a corner where an odd number of its four pixels is set, and two corners where two pixels meet
    # diagonally.
    diagonal = (a == d) & (b == c) & (a != b)
    y, x = np.divmod(np.flatnonzero(a ^ b ^ c ^ d | diagonal), a.shape[1])
    repeats = 1 + diagonal[y, x]
    second = np.zeros(int(repeats.sum()), bool)
    second[np.cumsum(repeats)[repeats == 2] - 1] = True
    y, x = np.repeat(y, repeats), np.repeat(x, repeats)
    # Which of two corners comes first down the column decides that the edges of one pixel meet, and not of both.
    by_column = np.lexsort((second ^ (diagonal & b)[y, x], y, x))
    below = np.empty_like(by_column)
    below[by_column[0::2]], below[by_column[1::2]] = by_column[1::2], by_column[0::2]
    points = list(zip(x.tolist(), y.tolist(), strict=True))
    return _Corners(points, below.tolist(), d[y, x].tolist(), bool(second.any()))


def _cycles(below: list[int]) -> Iterator[list[int]]:
    """Follows the edges, along a row and along a column in turn, until they close."""
    seen = bytearray(len(below))
    for start in range(len(below)):
        cycle, corner = [], start
        while not seen[corner]:
            across = corner ^ 1
            seen[corner] = seen[across] = 1
            cycle += (corner, across)
            corner = below[across]
        if cycle:
            yield cycle


def _split(path: list[Point]) -> Iterator[list[Point]]:
    """Cuts a ring that touches itself into rings that do not."""
    open_path: list[Point] = []
    place: dict[Point, int] = {}
    for point in path:
        if point in place:
            loop = open_path[place[point] :]
            yield loop
            del open_path[-len(loop) :]
            for passed in loop:
                del place[passed]
        place[point] = len(open_path)
        open_path.append(point)
    yield open_path
