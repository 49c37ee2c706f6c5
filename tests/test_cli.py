"""The command line, as its user sees it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vision_model_repo.cli import app
from vision_model_repo.demo.scenes import render, sample_scene
from vision_model_repo.demo.selftest import Outcome
from vision_model_repo.formats.images import decode_image, encode_png
from vision_model_repo.models.catalog import BUILT_IN


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in {"HF_HUB_OFFLINE": "1", "HF_ROOT_FOLDER": str(tmp_path), "DEVICE": "cpu"}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    path.write_bytes(encode_png(render(sample_scene(3), 160, 120).image))
    return path


def test_models_lists_what_is_embedded_and_what_is_on_the_hub() -> None:
    done = CliRunner().invoke(app, ["models"], env={"COLUMNS": "200"})
    assert done.exit_code == 0
    assert "facebook/sam3" in done.output and "demo/dinov3" in done.output
    assert done.output.count("embedded") == sum(spec.demo is not None for spec in BUILT_IN)


def test_models_has_nothing_to_warn_about(caplog: pytest.LogCaptureFixture) -> None:
    CliRunner().invoke(app, ["models"])
    assert caplog.messages == []


def test_run_prints_what_the_server_would_answer(picture: Path) -> None:
    done = CliRunner().invoke(app, ["run", "grounding-dino", str(picture), "-p", "sphere", "-o", "box_threshold=0.2"])
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["model_id"] == "demo/grounding-dino"
    assert set(answer["results"][0]["labels"]) <= {"sphere"}


def test_run_draws_onto_the_image(picture: Path, tmp_path: Path) -> None:
    output = tmp_path / "overlay.png"
    done = CliRunner().invoke(app, ["run", "depth-anything", str(picture), "--output", str(output)])
    assert done.exit_code == 0, done.output
    assert decode_image(output.read_bytes(), max_pixels=10**6).shape == (120, 160, 3)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["yolo", "PICTURE"], "Unknown model_type"),
        (["sam3", "PICTURE"], "nothing to look for"),
        (["sam3", "PICTURE", "-p", "cube", "-o", "threshold=2"], "less than or equal to 1"),
        (["sam3", "PICTURE", "-p", "cube", "-o", "threshold"], "not NAME=VALUE"),
        (["dinov3", "PICTURE", "--model-id", "demo/nothing"], "No embedded checkpoint"),
        (["dinov3", "PICTURE", "--output", "no/such/folder.png"], "cannot be written: No such file or directory."),
    ],
)
def test_run_refuses_with_the_reason(arguments: list[str], reason: str, picture: Path) -> None:
    words = [str(picture) if word == "PICTURE" else word for word in arguments]
    done = CliRunner().invoke(app, ["run", *words], env={"COLUMNS": "300"})
    assert done.exit_code == 2
    assert reason in " ".join(done.output.replace("│", " ").split())


def test_an_outcome_passes_only_if_every_figure_is_within_its_bound() -> None:
    good = {"mean_iou": 0.9, "precision": 0.9, "recall": 0.9, "absent_answered": 0.0}
    assert Outcome("demo/sam3", "segmentation", good).passed
    for name, value in {"mean_iou": 0.1, "precision": 0.1, "recall": 0.1, "absent_answered": 0.9}.items():
        assert not Outcome("demo/sam3", "segmentation", {**good, name: value}).passed
