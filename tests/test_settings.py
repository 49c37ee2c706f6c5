from __future__ import annotations

import pytest
from pydantic import ValidationError

from vision_model_repo.settings import Settings


@pytest.mark.parametrize(
    ("name", "value"),
    [("device", "tpu"), ("device", "cuda:x"), ("image_ttl_seconds", "inf"), ("shutdown_grace_seconds", "nan")],
)
def test_what_makes_no_sense_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(ValidationError, match=name):
        Settings.model_validate({name: value})


@pytest.mark.parametrize("device", ["auto", "cpu", "mps", "cuda", "cuda:3"])
def test_devices(device: str) -> None:
    assert Settings.model_validate({"device": device}).device == device
