"""The models that a server shall have at hand before it is sent any request."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from vision_model_repo.errors import VisionError

logger = logging.getLogger(__name__)


class Preload:
    """Loads models one after the other while the server already answers.

    Args:
        load: loads and warms up one model type.
        model_types: what to load, in this order.
    """

    def __init__(self, load: Callable[[str], Awaitable[object]], model_types: Sequence[str]) -> None:
        self._load = load
        self._missing: dict[str, str | None] = dict.fromkeys(model_types)
        self._task: asyncio.Task[None] | None = None

    @property
    def ready(self) -> bool:
        """Whether every model has been loaded; one that is unloaded later was no less ready."""
        return not self._missing

    @property
    def loading(self) -> list[str]:
        """Model types that are still to come."""
        return [model_type for model_type, failure in self._missing.items() if failure is None]

    @property
    def failures(self) -> dict[str, str]:
        """Why a model type could not be loaded."""
        return {model_type: failure for model_type, failure in self._missing.items() if failure is not None}

    def start(self) -> None:
        if self._missing:
            self._task = asyncio.create_task(self._load_all(), name="preload")

    def loaded(self, model_type: str) -> None:
        """Takes note of a model that is there, whoever asked for it."""
        self._missing.pop(model_type, None)

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _load_all(self) -> None:
        for model_type in list(self._missing):
            try:
                await self._load(model_type)
            except VisionError as error:
                self._failed(model_type, error.message)
            except Exception as error:
                # What a library says of a file is for the log, which has it already, and not for whoever asks.
                self._failed(model_type, f"{type(error).__name__}; the log has more.")

    def _failed(self, model_type: str, why: str) -> None:
        logger.error("Preloading %s failed, so the server is not ready: %s", model_type, why)
        self._missing[model_type] = why
