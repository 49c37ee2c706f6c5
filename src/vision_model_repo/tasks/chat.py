"""Chat: text about images, from a conversation or a plain prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Role = Literal["system", "user", "assistant"]
FinishReason = Literal["stop", "length"]
USUAL_NEW_TOKENS = 512
"""Most of an answer to a request that names no limit."""
Part = str | NDArray[np.uint8]
"""Text, or an image (H, W, 3) RGB."""


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """What one side says: texts and images, in their order."""

    role: Role
    parts: tuple[Part, ...]

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(part for part in self.parts if isinstance(part, str))

    @property
    def images(self) -> tuple[NDArray[np.uint8], ...]:
        return tuple(part for part in self.parts if not isinstance(part, str))


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A conversation to be continued by the assistant.

    Attributes:
        messages: at least one.
        max_new_tokens: most tokens of the answer; None for as many as are usual, or as there is room for.
        temperature: 0 for the most probable token each time; above, the higher the more varied.
        top_p: share of the probability that the tokens to choose from make up together, from the most probable on.
        seed: equal ones give equal answers; None for another answer each time. Means nothing at temperature 0.
        stop: texts before which the answer ends.
    """

    messages: tuple[ChatMessage, ...]
    max_new_tokens: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()

    @classmethod
    def ask(cls, prompt: str, images: Sequence[NDArray[np.uint8]] = (), **options: Any) -> ChatRequest:
        """A plain prompt, about images or about none."""
        return cls((ChatMessage("user", (*images, prompt)),), **options)


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Tokens read, those that stand for images included, and tokens written."""

    prompt: int
    completion: int


@dataclass(frozen=True, slots=True)
class ChatResult:
    """An answer, or its beginning.

    Attributes:
        text: of the answer so far.
        finish_reason: "stop" where the model or a stop text ended it, "length" where the tokens were used up; None
            while it goes on.
        usage: so far.
    """

    text: str
    finish_reason: FinishReason | None
    usage: TokenUsage
