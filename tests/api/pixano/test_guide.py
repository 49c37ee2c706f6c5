"""What the guide for Pixano's users shows works."""

from __future__ import annotations

from pathlib import Path

from docs.generate import ROOT
from tests.code_blocks import code_blocks, run_python, write_pictures
from tests.conftest import Server


def test_the_example_of_the_guide_finds_boxes(server: Server, tmp_path: Path) -> None:
    write_pictures(tmp_path)
    blocks = code_blocks((ROOT / "docs" / "pixano.md").read_text())
    printed = run_python([block for block in blocks if block.language == "python"], tmp_path, server.url)
    assert printed.startswith("[")
