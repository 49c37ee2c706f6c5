"""What the documents show works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.code_blocks import code_blocks, run_python, run_shell, write_pictures
from tests.conftest import Server

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", ["docs/usage.md", "README.md"])
def test_the_examples_of_a_page_run_as_written(page: str, server: Server, tmp_path: Path) -> None:
    write_pictures(tmp_path)
    blocks = code_blocks((ROOT / page).read_text())
    python = [block for block in blocks if block.language == "python"]
    shell = [block for block in blocks if block.language == "bash"]
    assert python and shell
    assert run_python(python, tmp_path, server.url)
    for block in shell:
        run_shell(block, tmp_path, server.url)
    assert "Internal error" not in server.log()


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONFIG.md", ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?://|#)([^)#\s]+)", page.read_text())
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing
