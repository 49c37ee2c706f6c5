"""Limits of conversations, which are the same in every protocol."""

from __future__ import annotations

from collections.abc import Sequence

from vision_model_repo.errors import InvalidInput, TooLarge
from vision_model_repo.settings import Settings
from vision_model_repo.tasks.chat import USUAL_NEW_TOKENS


def check_texts(texts: Sequence[str], limits: Settings) -> None:
    """Raises TooLarge if the texts of a conversation are longer together than settings allow."""
    characters = sum(map(len, texts))
    if characters > limits.max_chat_characters:
        raise TooLarge(f"The texts have {characters} characters; at most {limits.max_chat_characters} are accepted.")


def most_parts(limits: Settings) -> int:
    """Most parts, texts and images, of all messages of a conversation: several for each message and each image."""
    return 4 * (limits.max_messages + limits.max_images)


def new_tokens(wanted: int | None, limits: Settings) -> int | None:
    """Most tokens of an answer, for a `ChatRequest`. Raises InvalidInput for more than settings allow."""
    if wanted is None:
        return None if limits.max_new_tokens >= USUAL_NEW_TOKENS else limits.max_new_tokens
    if wanted > limits.max_new_tokens:
        raise InvalidInput(f"{wanted} new tokens are asked for; at most {limits.max_new_tokens} are given.")
    return wanted
