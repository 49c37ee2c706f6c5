"""Downloads from a hub of our own: which repository a name means, and which of its files are fetched."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
from safetensors.torch import save_file

from tests.support.hub import Files, MockHub, weights
from vision_model_repo.errors import NotFound
from vision_model_repo.models import image_classifier
from vision_model_repo.models.hub import Hub

LEFT_ALONE = {"pytorch_model.bin": b"pickle", "modeling.py": b"code", "model.onnx": b"graph", "README.md": b"card"}
"""What repositories have beside what is needed."""


def classifier(path: Path) -> Files:
    """A network of timm's with random weights, in the files that it has on the hub."""
    network: Any = timm.create_model("test_resnet", num_classes=3)
    save_file({name: weight.contiguous() for name, weight in network.state_dict().items()}, path)
    known = {"input_size": [3, 64, 64], "label_names": ["cat", "dog", "sphere"]}
    config = {"architecture": "test_resnet", "num_classes": 3, "pretrained_cfg": known}
    return {"config.json": json.dumps(config).encode(), "model.safetensors": path.read_bytes()}


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Files]:
    config, clip = b'{"model_type": "bert"}', b'{"model_type": "clip"}'
    sentence = {"modules.json": b"[]", "1_Pooling/config.json": b"{}", "tokenizer.json": b"{ }", "vocab.txt": b"a"}
    open_clip = {"open_clip_config.json": b"{}", "open_clip_model.safetensors": weights(5)}
    return {
        "intfloat/e5-small-v2": {"config.json": config, "model.safetensors": weights(), **sentence, **LEFT_ALONE},
        "laion/CLIP-both": {"config.json": clip, "model.safetensors": weights(), **open_clip, **LEFT_ALONE},
        "apple/MobileCLIP-open": {**open_clip, **LEFT_ALONE},
        "timm/test_resnet.r160_in1k": {**classifier(tmp_path_factory.mktemp("timm") / "weights"), **LEFT_ALONE},
        "someone/pickle": {"config.json": config, **LEFT_ALONE},
    }


@pytest.fixture
def mock_hub(repositories: dict[str, Files], monkeypatch: pytest.MonkeyPatch) -> Iterator[MockHub]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with MockHub(repositories) as hub:
        yield hub


@pytest.fixture
def fetched(mock_hub: MockHub) -> set[str]:
    """What was downloaded."""
    return mock_hub.fetched


@pytest.fixture
def hub(mock_hub: MockHub, tmp_path: Path) -> Hub:
    return Hub(root=tmp_path, endpoint=mock_hub.url)


@pytest.mark.parametrize(
    ("name", "repository", "unneeded"),
    [
        ("intfloat/e5-small-v2", "intfloat/e5-small-v2", ()),
        ("hf-hub:laion/CLIP-both", "laion/CLIP-both", ("open_clip_model.safetensors",)),
        ("laion/CLIP-both", "laion/CLIP-both", ("open_clip_model.safetensors",)),
        ("hf-hub:apple/MobileCLIP-open", "apple/MobileCLIP-open", ()),
        ("hf_hub:timm/test_resnet.r160_in1k", "timm/test_resnet.r160_in1k", ()),
        ("test_resnet.r160_in1k", "timm/test_resnet.r160_in1k", ()),
        ("test_resnet", "timm/test_resnet.r160_in1k", ()),
    ],
)
def test_a_name_fetches_its_repositorys_weights_and_plain_files_alone(
    name: str, repository: str, unneeded: tuple[str, ...], hub: Hub, repositories: dict[str, Files], fetched: set[str]
) -> None:
    checkpoint = hub.resolve(name)
    wanted = set(repositories[repository]) - set(LEFT_ALONE) - set(unneeded)
    assert fetched == {f"{repository}/{file}" for file in wanted}
    there = {str(path.relative_to(checkpoint.folder)) for path in checkpoint.folder.rglob("*") if path.is_file()}
    assert there == wanted
    assert checkpoint.model_id == name


def test_what_was_fetched_is_there_when_the_hub_is_not(hub: Hub, fetched: set[str], tmp_path: Path) -> None:
    folder = hub.resolve("hf-hub:laion/CLIP-both").folder
    fetched.clear()
    assert hub.resolve("hf-hub:laion/CLIP-both").folder == folder
    assert Hub(root=tmp_path, offline=True).resolve("hf-hub:laion/CLIP-both").folder == folder
    assert not fetched


def test_a_repository_with_nothing_but_a_pickle_is_no_checkpoint(hub: Hub, fetched: set[str]) -> None:
    with pytest.raises(NotFound, match="no safetensors weights"):
        hub.resolve("someone/pickle")
    assert fetched == {"someone/pickle/config.json"}


def test_a_repository_that_is_not_there_is_named(hub: Hub) -> None:
    with pytest.raises(NotFound, match="No checkpoint 'hf-hub:nobody/nothing' on the Hugging Face hub"):
        hub.resolve("hf-hub:nobody/nothing")


def test_what_comes_from_the_hub_can_be_loaded(hub: Hub) -> None:
    model = image_classifier.load(hub.resolve("hf_hub:timm/test_resnet.r160_in1k"), device="cpu", dtype="float32")
    assert model._labels == ("cat", "dog", "sphere")
