"""A server of models that find what is of a plain colour, and a clip to track in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from tests.api.conftest import LiveServer, b64, encoded, settings_of
from tests.engine import colorful
from tests.engine.weighty import write_checkpoint
from vision_model_repo.api.server import create_app

FRAMES = 8
"""Frames of the clip."""


def frame(index: int) -> bytes:
    """40 x 24 pixels: a red square goes 3 pixels right with every frame, a blue one stands."""
    image = Image.new("RGB", (40, 24), (128, 128, 128))
    draw = ImageDraw.Draw(image)
    draw.rectangle((1 + 3 * index, 2, 6 + 3 * index, 7), fill=colorful.COLORS["red"])
    draw.rectangle((20, 14, 29, 21), fill=colorful.COLORS["blue"])
    return encoded(image)


@pytest.fixture(scope="session")
def clip() -> list[str]:
    """The frames as data URIs."""
    return [f"data:image/png;base64,{b64(frame(index))}" for index in range(FRAMES)]


@pytest.fixture(scope="module")
def colors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A live server whose models are `segmenter` and `detector`."""
    checkpoint = write_checkpoint(Path(tmp_path_factory.mktemp("colors")) / "plain")
    default = dict.fromkeys(("segmenter", "detector", "other"), checkpoint)
    app = create_app(settings_of(default_model_ids=default, max_concurrent_jobs=1), catalog=colorful.catalog())
    with LiveServer(app) as server:
        yield server
