"""Captions of tabletop scenes in plain English: what a dual encoder of pictures and texts is taught and held to.

A caption names every visible object, in a list or parted by how they lie: "a red cube left of two spheres". So
another scene fits it only by chance.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from vision_model_repo.demo.scenes import COLORS, SHAPES, View

CLEAR_LEAD = 0.05
"""Share of the picture's width or height by which all objects of a group must lie farther to one side."""
COARSE_SHARE = 0.25
"""How often a group of one shape goes without its colours."""
RELATED_SHARE = 0.6
"""How often a caption says how objects lie, where they part clearly."""
COUNTED_SHARE = 0.15
"""How often a list begins with the number of its objects."""

FRAMES = (
    "{}",
    "{}",
    "a picture of {}",
    "an image of {}",
    "{} on the table",
    "{} on a checkered ground",
    "a table with {}",
    "a scene with {}",
)
RELATIONS = {
    "left": ("{} left of {}", "{} to the left of {}"),
    "right": ("{} right of {}", "{} to the right of {}"),
    "behind": ("{} behind {}",),
    "front": ("{} in front of {}",),
}
OPPOSITE = {"left": "right", "right": "left", "behind": "front", "front": "behind"}
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@dataclass(frozen=True)
class Layout:
    """What captions are about: the visible objects and where their visible parts lie.

    Attributes:
        names: such as "red cube".
        places: (N, 2), of each object the horizontal centre and the lower edge of its box, in shares of the picture's
            width and height. What is lower in the picture is nearer.
    """

    names: Sequence[str]
    places: NDArray[np.floating]


def layout(view: View) -> Layout:
    height, width = view.instances.shape
    boxes = view.boxes / (width, height, width, height)
    return Layout(view.names, np.stack([boxes[:, [0, 2]].mean(1), boxes[:, 3]], 1))


def caption(seen: Layout, seed: int) -> str:
    """A true caption; the same scene and seed give the same words."""
    rng = np.random.default_rng([seed, 5])
    frame = FRAMES[rng.integers(len(FRAMES))]
    related, counted, first = rng.random(3)
    partings = _partings(seen)
    if not seen.names:
        text = "nothing"
    elif partings and related < RELATED_SHARE:
        text = _relation(seen, *partings[int(first * len(partings))], rng)
    elif counted < COUNTED_SHARE:
        number = len(seen.names)
        text = f"{NUMBERS[number]} object{'s' * (number > 1)}: {_listing(seen.names, rng)}"
    else:
        text = _listing(seen.names, rng)
    return frame.format(text)


def wrong_caption(seen: Layout, seed: int) -> str | None:
    """The same words of a scene that differs in one thing, or None where they would be true of both: an object is of
    another colour or shape, is missing or too many, or two objects have changed places, or their colours."""
    text = caption(_altered(seen, np.random.default_rng([seed, 6])), seed)
    return None if text == caption(seen, seed) else text


def _partings(seen: Layout) -> list[tuple[str, NDArray[np.bool_]]]:
    """Where a clear gap parts the objects: the first group's relation to the others, and which objects it has."""
    partings: list[tuple[str, NDArray[np.bool_]]] = []
    for axis, relation in enumerate(("left", "behind")):
        along = seen.places[:, axis]
        ordered = np.sort(along)
        for before, after in pairwise(ordered):
            if after - before >= CLEAR_LEAD:
                partings.append((relation, along <= before))
    return partings


def _relation(seen: Layout, relation: str, first: NDArray[np.bool_], rng: np.random.Generator) -> str:
    if rng.random() < 0.5:
        relation, first = OPPOSITE[relation], ~first
    groups = [_group([seen.names[index] for index in np.flatnonzero(mine).tolist()], rng) for mine in (first, ~first)]
    phrasings = RELATIONS[relation]
    return phrasings[rng.integers(len(phrasings))].format(*groups)


def _group(names: Sequence[str], rng: np.random.Generator) -> str:
    """The objects of one side, sometimes without their colours: "two spheres"."""
    coarse = rng.random() < COARSE_SHARE
    shapes = {name.split()[1] for name in names}
    return _listing([*shapes] * len(names) if coarse and len(shapes) == 1 else names, rng)


def _listing(names: Sequence[str], rng: np.random.Generator) -> str:
    """Such as "a red cube, two blue cones and a sphere", in any order."""
    counted = sorted(Counter(names).items())
    parts = [
        f"{NUMBERS[count]} {name}s" if count > 1 else f"a {name}"
        for name, count in (counted[index] for index in rng.permutation(len(counted)))
    ]
    return " and ".join(part for part in (", ".join(parts[:-1]), parts[-1]) if part)


def _altered(seen: Layout, rng: np.random.Generator) -> Layout:
    """The layout with one thing changed."""
    if not seen.names:
        return seen
    names = [name.split() for name in seen.names]
    change = rng.choice(["color", "shape", "count", "places", "colors"], p=[0.2, 0.3, 0.1, 0.25, 0.15])
    one, other = rng.permutation(max(len(names), 2))[:2] % len(names)
    if change == "count":
        return _recounted(seen, int(one), rng)
    if change == "places":
        names[one], names[other] = names[other], names[one]
    elif change == "colors":
        names[one][0], names[other][0] = names[other][0], names[one][0]
    else:
        names[one][change == "shape"] = str(rng.choice(SHAPES if change == "shape" else list(COLORS)))
    return replace(seen, names=[" ".join(name) for name in names])


def _recounted(seen: Layout, index: int, rng: np.random.Generator) -> Layout:
    """One object fewer, or one more like it somewhere."""
    if len(seen.names) > 1 and rng.random() < 0.5:
        kept = np.arange(len(seen.names)) != index
        return Layout([seen.names[each] for each in np.flatnonzero(kept).tolist()], seen.places[kept])
    return Layout([*seen.names, seen.names[index]], np.concatenate([seen.places, rng.uniform(0.2, 0.8, (1, 2))]))
