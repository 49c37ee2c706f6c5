"""The examples of the page about OpenAI's protocol run as written, with real models behind them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.code_blocks import code_blocks, run_python, write_pictures
from tests.conftest import Server
from vision_model_repo.models.names import PACKAGES

PAGE = Path(__file__).parents[2] / "docs" / "openai.md"
CHAT, EMBEDDINGS = (block for block in code_blocks(PAGE.read_text()) if block.language == "python")


def test_the_conversation(server: Server, tmp_path: Path) -> None:
    write_pictures(tmp_path)
    assert run_python([CHAT], tmp_path, server.url).strip()


@pytest.mark.skipif(PACKAGES["minilm"].path() is None, reason="the package with weights is not installed")
def test_the_embeddings(server: Server, tmp_path: Path) -> None:
    likeness, tokens = run_python([EMBEDDINGS], tmp_path, server.url).split()
    assert float(likeness) == pytest.approx(0.445, abs=1e-3)
    # Four words, and six with a full stop; in each text one more token begins it, and one ends it.
    assert int(tokens) == (4 + 2) + (7 + 2)
