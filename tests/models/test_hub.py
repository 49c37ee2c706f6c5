"""Downloads from a hub of our own: which repository a name means, and which of its files are fetched."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from functools import partial
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import timm
from safetensors.torch import save_file

from vision_model_repo.errors import NotFound
from vision_model_repo.models import image_classifier
from vision_model_repo.models.hub import Hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LEFT_ALONE = {"pytorch_model.bin": b"pickle", "modeling.py": b"code", "model.onnx": b"graph", "README.md": b"card"}
"""What repositories have beside what is needed."""
Files = dict[str, bytes]


class Pages(BaseHTTPRequestHandler):
    """As much of the hub's API as a download takes."""

    def __init__(self, repositories: dict[str, Files], fetched: set[str], *args: Any) -> None:
        self.repositories, self.fetched = repositories, fetched
        super().__init__(*args)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = urlsplit(self.path).path.removeprefix("/api/models")
        repository = next((name for name in self.repositories if path.startswith(f"/{name}/")), None)
        if repository is None:
            return self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        files, rest = self.repositories[repository], path.removeprefix(f"/{repository}/")
        if rest.startswith("revision/"):
            return self.answer(200, json.dumps({"id": repository, "sha": COMMIT, "siblings": []}).encode())
        if rest.startswith("tree/"):
            entries = ({"path": name, "size": len(data), "oid": tag(data)} for name, data in files.items())
            return self.answer(200, json.dumps([{"type": "file", **entry} for entry in entries]).encode())
        name = rest.removeprefix(f"resolve/{COMMIT}/")
        if self.command == "GET":
            self.fetched.add(f"{repository}/{name}")
        return self.answer(200, files[name], {"X-Repo-Commit": COMMIT, "ETag": f'"{tag(files[name])}"'})

    def answer(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


def tag(data: bytes) -> str:
    return sha1(data).hexdigest()


def weights(numbers: int = 4) -> bytes:
    """A safetensors file."""
    header = json.dumps({"weight": {"dtype": "U8", "shape": [numbers], "data_offsets": [0, numbers]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(numbers)


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
def fetched() -> set[str]:
    """What was downloaded."""
    return set()


@pytest.fixture
def hub(
    repositories: dict[str, Files], fetched: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Hub]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Pages, repositories, fetched)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield Hub(root=tmp_path, endpoint=f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
        thread.join()


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
