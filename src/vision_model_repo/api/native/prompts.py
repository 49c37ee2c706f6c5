"""Prompts of a request: one list for all images, or a list for each."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Discriminator, Tag

from vision_model_repo.api.json_bounds import AtMost
from vision_model_repo.errors import InvalidInput, TooLarge
from vision_model_repo.settings import Settings


def _layout(value: Any) -> str:
    nested = isinstance(value, list) and any(isinstance(item, list) for item in value)
    return "per_image" if nested else "shared"


Phrases = Annotated[list[str], AtMost(lambda limits: limits.max_prompts)]
Prompts = Annotated[
    Annotated[Phrases, Tag("shared")]
    | Annotated[list[Phrases], AtMost(lambda limits: limits.max_images), Tag("per_image")],
    Discriminator(_layout),
]
PROMPTS = "What to look for: a list of phrases for all images, or one such list for each image."
PROMPT_EXAMPLES = [["person", "car"], [["person"], ["car", "traffic light"]]]


def check_prompts(prompts: list[str] | list[list[str]], images: int, limits: Settings) -> None:
    """Raises InvalidInput or TooLarge, naming the prompt, for what no model could answer."""
    if any(isinstance(prompt, list) for prompt in prompts) and len(prompts) != images:
        raise InvalidInput(
            f"prompts has {len(prompts)} lists for {images} images. Give one list, or one for each image."
        )
    lists = prompts if prompts and isinstance(prompts[0], list) else [prompts]
    for index, phrases in enumerate(lists):
        name = f"prompts[{index}]" if lists is prompts else "prompts"
        if len(phrases) > limits.max_prompts:
            raise TooLarge(f"{name} has {len(phrases)} prompts; at most {limits.max_prompts} are accepted.")
        for position, phrase in enumerate(phrases):
            check_phrase(str(phrase), f"{name}[{position}]", limits)


def check_phrase(phrase: str, name: str, limits: Settings) -> None:
    """Raises InvalidInput or TooLarge for a phrase that is empty or too long."""
    if not phrase.strip():
        raise InvalidInput(f"{name} is empty. Name what to look for, such as 'person'.")
    if len(phrase) > limits.max_prompt_characters:
        raise TooLarge(f"{name} has {len(phrase)} characters; at most {limits.max_prompt_characters} are accepted.")


def prompts_of(prompts: list[str] | list[list[str]], image: int) -> tuple[str, ...]:
    """The prompts for one image."""
    chosen = prompts[image] if prompts and isinstance(prompts[0], list) else prompts
    return tuple(str(phrase) for phrase in chosen)
