"""Questions about tabletop scenes in plain English, and their true answers: what a vision-language model is taught and
held to.

Each kind of question is balanced: among what can be asked of a scene the answer is drawn first, so that no answer can
be guessed from the question alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from vision_model_repo.demo.scenes import COLORS, SHAPES, phrases

STRANGERS = tuple("dog cat car table pyramid ring star chair tree house hand face road cup phone truck bottle".split())
"""What the world has no name for and no example of."""
STRANGER_SHARE = 0.1

COUNTS = ("how many {} are there?", "how many {} do you see?", "how many {} are on the table?", "count the {}.")
EXISTENCE = ("is there {a} {}?", "do you see {a} {}?", "is {a} {} on the table?", "are there any {s}?")
COLOR_OF = ("what color is the {}?", "what colour is the {}?", "which colour does the {} have?")
SHAPE_OF = ("what shape is the {}?", "what is the shape of the {}?", "which shape does the {} have?")
LISTS = (
    "which objects are on the table?",
    "what objects do you see?",
    "describe the image.",
    "describe this image.",
    "describe the picture.",
    "what is in this image?",
    "what do you see?",
    "list the objects.",
)


@dataclass(frozen=True)
class Question:
    """One question of a scene.

    Attributes:
        kind: one of `KINDS`.
        answer: in lower case: a number, "yes" or "no", a colour, a shape, or objects, such as
            "a red cube, two blue cones and a green sphere".
    """

    kind: str
    text: str
    answer: str


def ask(names: Sequence[str], kind: str, rng: np.random.Generator) -> Question | None:
    """A question of that kind about visible objects such as "red cube"; None where no colour or shape is that of one
    object only."""
    return _ASKED[kind](names, rng)


def ask_all(names: Sequence[str], rng: np.random.Generator) -> list[Question]:
    """One question of each kind that the scene allows."""
    asked = [ask(names, kind, rng) for kind in KINDS]
    return [question for question in asked if question]


def ask_one(names: Sequence[str], seed: int) -> Question:
    """A question of the kind whose turn it is by the seed, or else of the next kind that the scene allows."""
    rng = np.random.default_rng([seed, 4])
    for turn in range(len(KINDS)):
        if question := ask(names, KINDS[(seed + turn) % len(KINDS)], rng):
            return question
    raise AssertionError("objects can always be counted")


def listing(names: Sequence[str]) -> str:
    """The objects in words, colour by colour in the world's order, such as "a red cube and two blue cones"."""
    if not names:
        return "nothing"
    order = [f"{color} {shape}" for color in COLORS for shape in SHAPES]
    counted = sorted(Counter(names).items(), key=lambda item: order.index(item[0]))
    parts = [f"{_NUMBERS[count]} {name}s" if count > 1 else f"a {name}" for name, count in counted]
    return " and ".join(part for part in (", ".join(parts[:-1]), parts[-1]) if part)


_NUMBERS = ("no", "a", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def count_of(names: Sequence[str], phrase: str) -> int:
    """How many of the objects a phrase such as "red object" fits."""
    words = set(phrase.split()) - {"object"}
    return sum(words <= set(name.split()) for name in names)


def _count(names: Sequence[str], rng: np.random.Generator) -> Question:
    phrase, number = _balanced(names, phrases(), rng)
    if number == 0 and rng.random() < STRANGER_SHARE:
        phrase = str(rng.choice(STRANGERS))
    return Question("count", _pick(COUNTS, rng).format(f"{phrase}s"), str(number))


def _existence(names: Sequence[str], rng: np.random.Generator) -> Question:
    wanted = rng.random() < 0.5
    candidates = [phrase for phrase in phrases() if (count_of(names, phrase) > 0) == wanted and phrase != "object"]
    phrase = str(rng.choice(_hard(names, candidates, rng)))
    if not wanted and rng.random() < STRANGER_SHARE:
        phrase = str(rng.choice(STRANGERS))
    text = _pick(EXISTENCE, rng).format(phrase, a="a", s=f"{phrase}s")
    return Question("existence", text, "yes" if wanted else "no")


def _color(names: Sequence[str], rng: np.random.Generator) -> Question | None:
    single = [shape for shape in SHAPES if count_of(names, shape) == 1]
    if not single:
        return None
    shape = str(rng.choice(single))
    color = next(name.split()[0] for name in names if name.endswith(shape))
    return Question("color", _pick(COLOR_OF, rng).format(shape), color)


def _shape(names: Sequence[str], rng: np.random.Generator) -> Question | None:
    single = [color for color in COLORS if count_of(names, color) == 1]
    if not single:
        return None
    color = str(rng.choice(single))
    shape = next(name.split()[1] for name in names if name.startswith(color))
    return Question("shape", _pick(SHAPE_OF, rng).format(f"{color} object"), shape)


def _list(names: Sequence[str], rng: np.random.Generator) -> Question:
    return Question("list", _pick(LISTS, rng), listing(names))


_ASKED: dict[str, Callable[[Sequence[str], np.random.Generator], Question | None]] = {
    "count": _count,
    "existence": _existence,
    "color": _color,
    "shape": _shape,
    "list": _list,
}
KINDS = tuple(_ASKED)


def _balanced(names: Sequence[str], asked: Sequence[str], rng: np.random.Generator) -> tuple[str, int]:
    """A phrase and how many it fits, each number that occurs as likely as any other."""
    counts = {phrase: count_of(names, phrase) for phrase in asked}
    number = int(rng.choice(sorted(set(counts.values()))))
    candidates = [phrase for phrase, count in counts.items() if count == number]
    return str(rng.choice(candidates if number else _hard(names, candidates, rng))), number


def _hard(names: Sequence[str], candidates: list[str], rng: np.random.Generator) -> list[str]:
    """Half of the time those phrases alone of which some word is true: a red cube beside a red sphere."""
    present = {word for name in names for word in name.split()}
    near = [phrase for phrase in candidates if present & set(phrase.split())]
    return near if near and rng.random() < 0.5 else candidates


def _pick(texts: Sequence[str], rng: np.random.Generator) -> str:
    return texts[int(rng.integers(len(texts)))]
