"""A live server with a model for each library of the protocol, and the real client of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import ingrain
import pytest
from fastapi import FastAPI

from tests.api.conftest import LiveServer, settings_of
from tests.api.ingrain import stand_ins
from vision_model_repo.api.server import create_app
from vision_model_repo.models.catalog import Catalog


@pytest.fixture(scope="session")
def names(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the checkpoints: the names that models are loaded by."""
    return tmp_path_factory.mktemp("ingrain")


@pytest.fixture(scope="session")
def build(names: Path, catalog: Catalog) -> Callable[..., FastAPI]:
    """Applications by their settings, each with a catalog of its own, since loading adds to it."""

    def build(**changes: object) -> FastAPI:
        families = stand_ins.write_catalog(names, list(catalog.values()))
        return create_app(settings_of(**changes), catalog=families)

    return build


@pytest.fixture(scope="module")
def server(build: Callable[..., FastAPI]) -> Iterator[LiveServer]:
    with LiveServer(build(root_protocol="ingrain", max_texts=50, max_text_characters=1000, max_images=5)) as server:
        yield server


@pytest.fixture
def client(server: LiveServer) -> ingrain.Client:
    return ingrain.Client(server.url, server.url)


@pytest.fixture
def http(server: LiveServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30) as client:
        yield client


@pytest.fixture
def texts(client: ingrain.Client, names: Path) -> str:
    """A loaded model for texts."""
    return client.load_model(str(names / "text_embedding"), "sentence_transformers").name


@pytest.fixture
def pairs(client: ingrain.Client, names: Path) -> str:
    """A loaded model for texts and images."""
    return client.load_model(str(names / "clip"), "open_clip").name


@pytest.fixture
def classes(client: ingrain.Client, names: Path) -> str:
    """A loaded classifier."""
    return client.load_model(str(names / "image_classifier"), "timm").name
