"""Questions have the answers that the scene gives, and none can be guessed."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest

from vision_model_repo.demo.questions import KINDS, Question, ask, ask_all, ask_one, listing
from vision_model_repo.demo.scenes import COLORS, SHAPES, View, render, sample_scene

THREE = ["red cube", "blue cone", "red sphere"]


@pytest.fixture(scope="module")
def views() -> list[View]:
    return [render(sample_scene(seed), 64) for seed in range(150)]


@pytest.fixture(scope="module")
def asked(views: list[View]) -> dict[str, list[tuple[View, Question]]]:
    questions = defaultdict(list)
    for seed, view in enumerate(views):
        for _ in range(4):
            for question in ask_all(view.names, np.random.default_rng(seed)):
                questions[question.kind].append((view, question))
    return questions


def words(text: str) -> list[str]:
    return [word.strip("?.,").removesuffix("s") for word in text.split()]


def told(view: View, text: str) -> list[str]:
    """The names of the objects that all colours and shapes of a text are true of."""
    wanted = {word for word in words(text) if word in COLORS or word in SHAPES}
    return [name for name in view.names if wanted <= set(name.split())]


def test_counts_and_existence_are_true(asked: dict[str, list[tuple[View, Question]]]) -> None:
    for view, question in asked["count"] + asked["existence"]:
        known = {*COLORS, *SHAPES, "object"} & set(words(question.text))
        number = len(told(view, question.text)) if known else 0
        assert question.answer in (str(number), "yes" if number else "no")


def test_colours_and_shapes_are_those_of_the_only_one(asked: dict[str, list[tuple[View, Question]]]) -> None:
    for view, question in asked["color"] + asked["shape"]:
        (name,) = told(view, question.text)
        assert question.answer in name.split()


def test_no_kind_can_be_guessed(asked: dict[str, list[tuple[View, Question]]]) -> None:
    most = {"count": 0.45, "existence": 0.56, "color": 0.3, "shape": 0.4, "list": 0.1}
    assert set(asked) == set(KINDS)
    for kind, share in most.items():
        answers = Counter(question.answer for _, question in asked[kind])
        assert answers.most_common(1)[0][1] / answers.total() <= share, answers


def test_the_same_seed_asks_the_same(views: list[View]) -> None:
    seen = [view.names for view in views[:30]]
    assert [ask_one(each, 7) for each in seen] == [ask_one(each, 7) for each in seen]
    assert len({ask_one(seen[0], seed).text for seed in range(30)}) > 10


def test_kinds_take_turns(views: list[View]) -> None:
    kinds = Counter(ask_one(view.names, seed).kind for seed, view in enumerate(views))
    assert set(kinds) == set(KINDS)
    assert min(kinds.values()) >= len(views) / len(KINDS) / 2


def test_what_has_no_answer_is_not_asked() -> None:
    rng = np.random.default_rng(0)
    twins = ["red cube", "red cube"]
    assert [ask(twins, kind, rng) for kind in ("color", "shape")] == [None, None]
    for _ in range(20):
        question = ask(THREE, "shape", rng)
        assert question is not None
        assert "blue" in question.text
        assert question.answer == "cone"


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ([], "nothing"),
        (["cyan cone"], "a cyan cone"),
        (["blue cone", "red cube"], "a red cube and a blue cone"),
        (["blue cone", "green cube", "blue cone", "red sphere"], "a red sphere, a green cube and two blue cones"),
    ],
)
def test_listings_are_english_in_the_order_of_colours(names: list[str], text: str) -> None:
    assert listing(names) == text
