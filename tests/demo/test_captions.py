"""Captions say what the scene has and how it lies, and wrong ones do not."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from vision_model_repo.demo.captions import CLEAR_LEAD, NUMBERS, Layout, caption, layout, wrong_caption
from vision_model_repo.demo.scenes import COLORS, SHAPES, View, render, sample_scene

RELATION = re.compile(r" (?:to the )?(left of|right of|behind|in front of) ")
PART = re.compile(rf"\b(a|{'|'.join(NUMBERS[2:])}) ((?:{'|'.join(COLORS)}) )?({'|'.join(SHAPES)})s?\b")
PAIR = Layout(["red cube", "blue cone"], np.array([[0.2, 0.6], [0.8, 0.6]]))


@pytest.fixture(scope="module")
def views() -> list[View]:
    return [render(sample_scene(seed), 64) for seed in range(150)]


def named(text: str) -> Counter[str]:
    """How many objects of each name, or of a shape whose colour is not told, a text has."""
    counts = Counter[str]()
    for number, color, shape in PART.findall(text):
        counts[f"{color}{shape}"] += 1 if number == "a" else NUMBERS.index(number)
    return counts


def fits(wanted: Counter[str], names: list[str]) -> bool:
    """Whether the objects are just those wanted."""
    full = Counter({name: count for name, count in wanted.items() if " " in name})
    rest = Counter(names) - full
    shapes = Counter(name.split()[1] for name in rest.elements())
    return full <= Counter(names) and shapes == Counter({k: n for k, n in wanted.items() if " " not in k})


def true(view: View, text: str) -> bool:
    """Whether a caption is true of a view, read as a person would, from the boxes."""
    relation = RELATION.search(text)
    if not relation:
        return fits(named(text), view.names)
    x, bottom = view.boxes[:, [0, 2]].mean(1), view.boxes[:, 3]
    along = {"left of": x, "right of": -x, "behind": bottom, "in front of": -bottom}[relation[1]]
    order = np.argsort(along, kind="stable")
    groups = named(text[: relation.start()]), named(text[relation.end() :])
    first = groups[0].total()
    if first + groups[1].total() != len(order):
        return False
    if along[order[first]] - along[order[first - 1]] < CLEAR_LEAD * 64 - 1e-6:
        return False
    halves = order[:first], order[first:]
    return all(fits(group, [view.names[i] for i in half]) for group, half in zip(groups, halves, strict=True))


def test_captions_are_true(views: list[View]) -> None:
    for view in views:
        for seed in range(6):
            text = caption(layout(view), seed)
            assert true(view, text), (text, view.names, view.boxes)


def test_wrong_captions_are_not(views: list[View]) -> None:
    texts = [(view, wrong_caption(layout(view), seed)) for view in views for seed in range(6)]
    wrong = [(view, text) for view, text in texts if text]
    assert len(wrong) > 0.5 * len(texts)
    for view, text in wrong:
        assert not true(view, text), (text, view.names, view.boxes)


def test_every_way_of_lying_is_told(views: list[View]) -> None:
    found = [RELATION.search(caption(layout(view), seed)) for seed, view in enumerate(views)]
    told = Counter(each[1] for each in found if each)
    assert set(told) == {"left of", "right of", "behind", "in front of"}
    assert 0.3 < told.total() / len(views) < 0.7


def test_a_seed_gives_the_same_words_and_another_others() -> None:
    assert caption(PAIR, 3) == caption(PAIR, 3)
    assert len({caption(PAIR, seed) for seed in range(40)}) > 15


def test_side_by_side_is_neither_behind_nor_in_front() -> None:
    texts = " ".join(caption(PAIR, seed) for seed in range(60))
    assert "left of" in texts
    assert "right of" in texts
    assert "behind" not in texts
    assert "front" not in texts


def test_an_empty_table_holds_nothing() -> None:
    empty = Layout([], np.zeros((0, 2)))
    assert "nothing" in caption(empty, 0)
    assert wrong_caption(empty, 0) is None
