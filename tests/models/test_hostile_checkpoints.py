"""No checkpoint runs code, reads what is not its own, hangs a loader, or gets anything but a plain refusal."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hostile import checkpoints, honest
from tests.hostile.checkpoints import Attack, Ground, attacks, prepare, try_attack

SECONDS = 60.0
"""On a busy machine; most take some milliseconds."""
LARGE = ("sam3", "sam3_video", "sam2_video", "grounding_dino", "vlm", "depth_anything")
"""A load of these takes a second, and writing one to be loaded another."""
EVERYWHERE = ("code wherever a file can name some", "places wherever a file can name one")


def cases() -> Iterator[Any]:
    """These two on every loader, and everything on one; `python -m tests.hostile` tries everything on every loader."""
    for loader in honest.WRITERS:
        for attack in attacks(loader):
            if attack.name in EVERYWHERE or loader == "dinov3":
                marks = [pytest.mark.slow] if loader in LARGE else []
                yield pytest.param(loader, attack, id=f"{loader}-{attack.name}", marks=marks)


@pytest.fixture(scope="module")
def honest_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder for each loader's checkpoint, written when it is first asked for."""
    return {}


def ground_of(loader: str, folders: dict[str, Path], tmp_path: Path, factory: pytest.TempPathFactory) -> Ground:
    if loader not in folders:
        folders[loader] = factory.mktemp(loader)
        honest.write(loader, folders[loader])

    def copy(_: str, folder: Path) -> None:
        shutil.copytree(folders[loader], folder, dirs_exist_ok=True)

    return prepare(loader, tmp_path, copy)


@pytest.mark.parametrize(("loader", "attack"), tuple(cases()))
def test_a_hostile_checkpoint_is_refused_or_read_without_its_tricks(
    loader: str,
    attack: Attack,
    honest_folders: dict[str, Path],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    ground = ground_of(loader, honest_folders, tmp_path, tmp_path_factory)
    attack.change(ground)
    outcome = try_attack(loader, ground)
    assert not outcome.ran, "code of the checkpoint ran"
    assert not outcome.opened, "a file outside of the checkpoint was opened"
    assert outcome.seconds < SECONDS
    if attack.expectation == "refused":
        assert outcome.refusal is not None
    assert checkpoints.SECRET not in (outcome.refusal or "")
    assert str(tmp_path) not in (outcome.refusal or ""), "no path of the server is told"


@pytest.mark.parametrize("loader", [name for name in honest.WRITERS if name not in LARGE])
def test_the_same_checkpoint_without_tricks_is_read(
    loader: str, honest_folders: dict[str, Path], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    ground = ground_of(loader, honest_folders, tmp_path, tmp_path_factory)
    assert try_attack(loader, ground).refusal is None
