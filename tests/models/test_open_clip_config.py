"""What an open_clip_config.json may say: all that OpenCLIP's own configurations do, but for second repositories."""

from __future__ import annotations

import json
from pathlib import Path

import open_clip
import pytest

from vision_model_repo.errors import NotFound
from vision_model_repo.models.open_clip_config import checked

SHIPPED = sorted((Path(open_clip.__file__).parent / "model_configs").glob("*.json"))


def test_every_configuration_of_open_clip_itself_is_taken_unless_it_names_a_second_repository() -> None:
    refused = set()
    for path in SHIPPED:
        config = json.loads(path.read_text())
        try:
            kept = checked("some/model", {"model_cfg": config, "preprocess_cfg": {}})["model_cfg"]
        except NotFound as error:
            assert "no second repository" in error.message
            refused.add(path.stem)
            continue
        assert kept == {**config, "vision_cfg": {**config["vision_cfg"], "timm_model_pretrained": False}}
    assert len(SHIPPED) > 100
    assert refused == {path.stem for path in SHIPPED if json.loads(path.read_text())["text_cfg"].get("hf_model_name")}


def test_entries_for_preparing_images_that_open_clip_passes_over_are_left_out() -> None:
    config = {"embed_dim": 8, "vision_cfg": {}, "text_cfg": {}}
    kept = checked("some/model", {"model_cfg": config, "preprocess_cfg": {"std": [1, 1, 1], "else": "os.system"}})
    assert kept["preprocess_cfg"] == {"std": [1, 1, 1]}
    with pytest.raises(NotFound, match="resize_mode is"):
        checked("some/model", {"model_cfg": config, "preprocess_cfg": {"resize_mode": "os.system"}})
