"""Servers with a model that talks."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from fastapi import FastAPI

from tests.api import talking
from tests.api.conftest import LiveServer, settings_of
from vision_model_repo.api.server import create_app
from vision_model_repo.models.catalog import Catalog


@pytest.fixture(autouse=True)
def _silence() -> Iterator[None]:
    yield
    talking.SPOKEN.clear()


@pytest.fixture(scope="session")
def talking_app(catalog: Catalog) -> Callable[..., FastAPI]:
    """Applications by their settings, with the talker beside the usual stand-ins."""
    both = Catalog((*catalog.values(), talking.spec()))
    return lambda **changes: create_app(settings_of(**changes), catalog=both)


@pytest.fixture(scope="module")
def server(talking_app: Callable[..., FastAPI]) -> Iterator[LiveServer]:
    with LiveServer(talking_app()) as server:
        yield server
