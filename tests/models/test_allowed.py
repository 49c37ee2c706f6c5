"""ALLOWED_MODEL_IDS decides by what will be read or fetched, however a name is spelled."""

from __future__ import annotations

from pathlib import Path

import pytest

from vision_model_repo.errors import NotAllowed, NotFound
from vision_model_repo.models.allowed import AllowedIds
from vision_model_repo.models.hub import Hub


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("demo/*", "demo/clip", True),
        ("demo/*", "hf-hub:demo/clip", False),
        ("demo/*", "hf_hub:demo/clip", False),
        ("hf-hub:demo/*", "hf_hub:demo/clip", True),
        ("hf-hub:demo/*", "demo/clip", False),
        ("laion/*", "hf-hub:laion/CLIP", True),
        ("laion/*", "hf_hub:laion/CLIP", True),
        ("hf-hub:laion/*", "laion/CLIP", True),
        ("laion/*", "Laion/CLIP", False),
        ("laion/*", "hf-hub:hf-hub:laion/CLIP", False),
        ("laion/*", "laion2/CLIP", False),
        ("timm/*", "tf_efficientnet_lite0", True),
        ("timm/*", "tf_efficientnet_lite0.in1k", True),
        ("tf_efficientnet_lite0", "timm/tf_efficientnet_lite0.in1k", True),
        ("tf_*", "tf_efficientnet_lite0", False),
        ("/nowhere/*", "/nowhere/model", True),
        ("/nowhere/*", "/nowhere/../etc", True),
        ("*", "anything/at-all", True),
        ("*", "hf-hub:demo/clip", True),
    ],
)
def test_what_is_fetched_decides(pattern: str, name: str, fits: bool) -> None:
    assert AllowedIds((pattern,)).fits(name) is fits


def test_no_patterns_allow_all() -> None:
    assert AllowedIds(()).fits("hf-hub:demo/clip")


def test_a_folder_is_where_it_leads_and_not_what_it_is_called(tmp_path: Path) -> None:
    for name in ("models/mine", "other/secret"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "models" / "out").symlink_to(tmp_path / "other" / "secret")
    (tmp_path / "linked").symlink_to(tmp_path / "models")
    models = AllowedIds((f"{tmp_path}/models/*",))
    assert models.fits(f"{tmp_path}/models/mine")
    assert not models.fits(f"{tmp_path}/models/out")
    assert not models.fits(f"{tmp_path}/other/secret")
    assert not models.fits(f"{tmp_path}/models/../other/secret")
    assert not models.fits(f"hf-hub:{tmp_path}/other/secret")
    linked = AllowedIds((f"{tmp_path}/linked/*",))
    assert linked.fits(f"{tmp_path}/linked/mine")
    assert not linked.fits(f"{tmp_path}/linked/out")
    assert not linked.fits(f"{tmp_path}/other/secret")


def test_callers_learn_nothing_of_folders_outside_of_model_roots(tmp_path: Path) -> None:
    (tmp_path / "known" / "half").mkdir(parents=True)
    (tmp_path / "hidden" / "half").mkdir(parents=True)
    (tmp_path / "known" / "out").symlink_to(tmp_path / "hidden" / "half")
    for folder in ("known", "hidden"):
        (tmp_path / folder / "half" / "config.json").write_text("{}")
    hub = Hub(offline=True, roots=(tmp_path / "known",))

    def told(path: Path) -> str:
        with pytest.raises(NotFound) as refusal:
            hub.resolve(str(path))
        return refusal.value.message.replace(str(path), "PATH")

    assert "no safetensors weights" in told(tmp_path / "known" / "half")
    assert "no such folder" in told(tmp_path / "known" / "missing")
    hidden = told(tmp_path / "hidden" / "missing")
    assert "neither a folder" in hidden
    elsewhere = ("hidden/half", "hidden", "hidden/half/config.json", "known/out", "known/../hidden/half")
    assert {told(tmp_path / name) for name in elsewhere} == {hidden}


def test_what_is_not_allowed_is_not_looked_at(tmp_path: Path) -> None:
    hub = Hub(offline=True, allowed=("demo/*",), roots=(tmp_path,))
    messages = set()
    for name in (tmp_path, tmp_path / "missing"):
        with pytest.raises(NotAllowed) as refusal:
            hub.resolve(str(name))
        messages.add(refusal.value.message.replace(str(name), "PATH"))
    assert len(messages) == 1
