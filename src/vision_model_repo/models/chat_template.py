"""How a checkpoint writes a conversation: its own Jinja template, run in a helper process.

A template is a program of whoever made the checkpoint. Jinja's sandbox keeps it from files and from Python's insides,
and neither from loops without end nor from texts of gigabytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

from vision_model_repo.errors import NotFound
from vision_model_repo.models.checkpoint_config import refuse
from vision_model_repo.models.helper_process import HelperProcess, HelperRefused

MEMORY_MB = 256
SECONDS = 2.0
MAX_CHARACTERS = 4_000_000
"""Of one conversation as it is written."""


class ChatTemplate:
    """Writes conversations. Safe to be used from several threads.

    Args:
        template: in Jinja.
        tokens: the tokenizer's special ones by name, which templates may write.
    """

    def __init__(self, template: str, tokens: Mapping[str, Any]) -> None:
        self._template, self._tokens = template, dict(tokens)
        self._helper = HelperProcess(memory_mb=MEMORY_MB, seconds=SECONDS)

    @classmethod
    def of(cls, processor: Any) -> Self | None:
        """That of one of transformers' processors; None where it has none, and reads no conversations."""
        template = processor.chat_template
        if isinstance(template, dict):
            template = template.get("default")
        return cls(template, processor.tokenizer.special_tokens_map) if isinstance(template, str) and template else None

    def write(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """What the network shall read, up to where its answer begins. Raises HelperRefused."""
        variables = {
            **_plain(self._tokens),
            "messages": _plain(messages),
            "tools": None,
            "documents": None,
            "add_generation_prompt": True,
        }
        return self._helper.ask("render", template=self._template, variables=variables, most=MAX_CHARACTERS)

    def check(self, model_id: str) -> None:
        """Raises NotFound for a template that is no template, or that writes no end of text."""
        try:
            self._helper.ask("compile_template", template=self._template)
        except HelperRefused as error:
            raise _unusable(model_id, error) from None
        try:
            self.write([{"role": "user", "content": [{"type": "text", "text": "Hello"}]}])
        except HelperRefused as error:
            # One that refuses this conversation may take others.
            if error.gave_up:
                raise _unusable(model_id, error) from None

    def close(self) -> None:
        """Ends the process. It starts again with the next conversation."""
        self._helper.close()


def _unusable(model_id: str, error: HelperRefused) -> NotFound:
    return refuse(model_id, f"its chat template cannot be used: {error}")


def _plain(value: Any) -> Any:
    """As transformers shows a value to a template: an image is only said to be there."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, str):
        return str(value)
    return value if value is None or isinstance(value, bool | int | float) else f"<{type(value).__name__}>"
