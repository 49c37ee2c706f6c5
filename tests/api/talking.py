"""A model that talks without a network: it says number words, one in a pass, as many as may be."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.api.stand_ins import SEEN
from vision_model_repo.errors import InvalidInput
from vision_model_repo.models.base import Checkpoint, GenerativeModel
from vision_model_repo.models.catalog import ModelSpec
from vision_model_repo.tasks.chat import ChatRequest, ChatResult, FinishReason, TokenUsage

WORDS = ("one", "two", "three", "four", "five")
WORD_SECONDS = 0.01
SPOKEN: list[str] = []
"""Every word that was said; tests clear it."""
BROKEN, MUTE = "break", "unreadable"
"""Prompts on which the model fails after two words, and which it refuses."""


@dataclass
class Speech:
    request: ChatRequest
    words: list[str] = field(default_factory=list)
    abandoned: threading.Event = field(default_factory=threading.Event)


class Talker(GenerativeModel[ChatRequest, Speech, ChatResult, ChatResult]):
    """Says "one two three four five" and ends, or says less if less is asked for or a stop word comes; to "on" it
    says them over and over."""

    device, dtype, max_batch = "cpu", "float32", 4

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.model_id = checkpoint.model_id

    def preprocess(self, request: ChatRequest) -> Speech:
        SEEN.append(request)
        if MUTE in request.messages[-1].texts:
            raise InvalidInput("That cannot be read.")
        return Speech(request)

    def forward(self, items: Sequence[Speech]) -> list[ChatResult]:
        [speech] = items
        time.sleep(WORD_SECONDS)
        asked = speech.request.messages[-1].texts
        if len(speech.words) == 2 and BROKEN in asked:
            raise ZeroDivisionError("secret detail")
        word = WORDS[len(speech.words) % len(WORDS)]
        if word in speech.request.stop:
            return [self._result(speech, "stop")]
        SPOKEN.append(word)
        speech.words.append(word)
        if len(speech.words) == speech.request.max_new_tokens:
            return [self._result(speech, "length")]
        return [self._result(speech, "stop" if len(speech.words) == len(WORDS) and "on" not in asked else None)]

    def _result(self, speech: Speech, finish_reason: FinishReason | None) -> ChatResult:
        heard = sum(len(text.split()) for message in speech.request.messages for text in message.texts)
        return ChatResult(" ".join(speech.words), finish_reason, TokenUsage(heard, len(speech.words)))

    def finished(self, raw: ChatResult) -> bool:
        return raw.finish_reason is not None

    def abandon(self, item: Speech) -> None:
        item.abandoned.set()

    def postprocess(self, raw: ChatResult, item: Speech) -> ChatResult:
        return raw

    def memory_bytes(self) -> int:
        return 0

    def unload(self) -> None:
        """Nothing to give back."""


def load(checkpoint: Checkpoint, *, device: str, dtype: str) -> Talker:
    return Talker(checkpoint)


def spec(name: str = "talker") -> ModelSpec:
    return ModelSpec(name, "chat", "tests.api.talking", ())
