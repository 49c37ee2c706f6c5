"""Examples from documents, taken out and run as a reader would run them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from vision_model_repo.demo.scenes import render, sample_scene
from vision_model_repo.formats.images import encode_jpeg

FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
SECONDS = 300


@dataclass(frozen=True)
class Block:
    """An example: its language and its text, without the indentation that it has in the document."""

    language: str
    code: str


def code_blocks(text: str) -> list[Block]:
    return [
        Block(match[2], re.sub(rf"^{match[1]}", "", match[3], flags=re.MULTILINE)) for match in FENCE.finditer(text)
    ]


def write_pictures(folder: Path) -> None:
    for index, name in enumerate(("image.jpg", "img1.jpg", "img2.jpg", "img3.jpg")):
        (folder / name).write_bytes(encode_jpeg(render(sample_scene(index), 160, 120).image))


def run_python(blocks: Sequence[Block], folder: Path, url: str) -> str:
    """Runs examples one after the other, each with the variables of those before it; answers what they print."""
    script = folder / "examples.py"
    script.write_text("\n".join(_at(block.code, url) for block in blocks))
    return _run([sys.executable, str(script)], folder)


def run_shell(block: Block, folder: Path, url: str) -> str:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    return _run(["bash", "-euo", "pipefail", "-c", _at(block.code, url)], folder)


def _at(code: str, url: str) -> str:
    return code.replace("http://localhost:8000", url)


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout
