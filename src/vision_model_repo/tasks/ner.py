"""Named entities: names of people, places and the like in a text."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NerRequest:
    """A text to read."""

    text: str


@dataclass(frozen=True, slots=True)
class Entity:
    """A name in a text.

    Attributes:
        text: as it stands there.
        label: what kind of name it is.
        start, end: characters `start` to `end` - 1 of the text.
        score: the model's belief in it, 0..1.
    """

    text: str
    label: str
    start: int
    end: int
    score: float


@dataclass(frozen=True, slots=True)
class NerResult:
    """The entities of a text, in the order of the model."""

    entities: tuple[Entity, ...]
