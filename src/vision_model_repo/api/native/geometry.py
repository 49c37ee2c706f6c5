"""Points and boxes of a request, held against the image that they are meant for."""

from __future__ import annotations

from vision_model_repo.errors import InvalidInput

# How far a point or box may reach over the image's edge, in pixels, before it is taken for a mistake.
TOLERANCE = 1.0

Box = tuple[float, float, float, float]
Point = tuple[float, float]
Size = tuple[int, int]
"""Height and width in pixels."""


def fit_box(box: Box, size: Size, name: str) -> Box:
    """The box, clipped to an image of a size where rounding has moved it over the edge."""
    height, width = size
    x0, y0, x1, y1 = box
    if x1 <= x0 or y1 <= y0:
        raise InvalidInput(f"{name} has no area. A box is [x0, y0, x1, y1] with x0 < x1 and y0 < y1.")
    if min(x0, y0) < -TOLERANCE or x1 > width + TOLERANCE or y1 > height + TOLERANCE:
        raise InvalidInput(f"{name} reaches outside the image, which is {width} x {height} pixels.")
    x0, y0, x1, y1 = max(0.0, x0), max(0.0, y0), min(float(width), x1), min(float(height), y1)
    if x1 <= x0 or y1 <= y0:
        raise InvalidInput(f"{name} lies outside the image, which is {width} x {height} pixels.")
    return x0, y0, x1, y1


def fit_point(point: Point, size: Size, name: str) -> Point:
    """The point, moved into an image of a size where rounding has moved it over the edge."""
    height, width = size
    x, y = point
    if min(x, y) < -TOLERANCE or x > width + TOLERANCE or y > height + TOLERANCE:
        raise InvalidInput(f"{name} lies outside the image, which is {width} x {height} pixels.")
    return min(max(0.0, x), float(width)), min(max(0.0, y), float(height))
