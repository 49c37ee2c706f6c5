"""Files that repeat what the code says do not fall behind it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic_settings import BaseSettings

from docs.generate import ROOT, outputs
from vision_model_repo.settings import Settings

OUTPUTS = outputs()


@pytest.mark.parametrize("path", OUTPUTS, ids=lambda path: path.name)
def test_a_generated_file_is_up_to_date(path: Path) -> None:
    assert path.read_text() == OUTPUTS[path], f"run `make generate` and commit {path.name}"


def test_the_example_environment_is_valid_once_uncommented(tmp_path: Path) -> None:
    text = (ROOT / ".env.example").read_text()
    uncommented = re.sub(r"^# (?=[A-Z][A-Z_]+=)", "", text, flags=re.MULTILINE)
    path = tmp_path / ".env"
    path.write_text(uncommented)
    names = re.findall(r"^([A-Z_]+)=", uncommented, flags=re.MULTILINE)
    assert sorted(names) == sorted(name.upper() for name in Settings.model_fields)
    assert Settings(_env_file=path).max_images == 64  # pyright: ignore[reportCallIssue]


def test_every_setting_of_the_guide_exists() -> None:
    guide = (ROOT / "docs" / "config-guide.md").read_text()
    foreign = {"CUDA_VISIBLE_DEVICES", "HF_HOME"}
    named = set(re.findall(r"`([A-Z][A-Z_]{3,})[`=]", guide)) - foreign
    assert issubclass(Settings, BaseSettings)
    assert named <= {name.upper() for name in Settings.model_fields}


def test_constraints_pin_versions_and_nothing_else() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert all(re.fullmatch(r"[a-z0-9.-]+==[a-z0-9.+]+", line) for line in lines)
