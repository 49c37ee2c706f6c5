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


@pytest.mark.parametrize(
    ("given", "known"),
    [
        ("", ()),
        ("127.0.0.1, 10.0.0.0/8,::1", ("127.0.0.1", "10.0.0.0/8", "::1")),
        ("unix", ("unix",)),
        ("10.0.0.1,*", ("*",)),
    ],
)
def test_proxies(given: str, known: tuple[str, ...]) -> None:
    assert Settings.model_validate({"trusted_proxies": given}).trusted_proxies == known


@pytest.mark.parametrize("given", ["proxy.example", "10.0.0.300", "10.0.0.0/40"])
def test_a_proxy_that_is_no_address_is_refused(given: str) -> None:
    with pytest.raises(ValidationError, match="no IP address or network"):
        Settings.model_validate({"trusted_proxies": given})
