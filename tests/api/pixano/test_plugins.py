"""Plugins and models of one's own, as Pixano has them, in our engine: without Ray, and known to Pixano's client."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from pixano_inference import schemas
from pixano_inference.client import PixanoInferenceError, SyncPixanoInferenceClient

from tests.api.conftest import LiveServer, b64, encoded, png, settings_of
from tests.api.pixano.conftest import frame
from tests.engine import colorful
from vision_model_repo.api.server import create_app

CLIP = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


OF_THE_ADMINISTRATOR = """
from pixano_inference.configs import ModelConfig
from pixano_inference.models import DetectionModel
from pixano_inference.schemas import DetectionInput, DetectionOutput


class Nothing(DetectionModel):
    def load_model(self): ...

    def predict(self, input: DetectionInput) -> DetectionOutput:
        return DetectionOutput(boxes=[], scores=[], classes=[])


models = [ModelConfig(name="theirs", model_class=Nothing)]
"""
"""A configuration file with a class of its own, which finds nothing."""


@pytest.fixture
def client(colors: LiveServer) -> Iterator[SyncPixanoInferenceClient]:
    with SyncPixanoInferenceClient.connect(colors.url, max_retries=0) as client:
        yield client


def uri(picture: bytes) -> str:
    return f"data:image/png;base64,{b64(picture)}"


def test_a_class_of_a_configuration_file_detects(client: SyncPixanoInferenceClient) -> None:
    answer = client.detection(schemas.DetectionRequest(model="reds", image=uri(frame(0))))
    assert (answer.data.boxes, answer.data.classes) == ([[1, 2, 7, 8]], ["red"])
    assert answer.metadata == {"model_name": "reds", "capability": "detection", "model_class": "Reds"}
    none = client.detection(schemas.DetectionRequest(model="reds", image=uri(png(color=(0, 0, 0)))))
    assert none.data.boxes == []
    assert "ray" not in sys.modules


def test_a_model_says_itself_how_it_is_called(client: SyncPixanoInferenceClient) -> None:
    client.detection(schemas.DetectionRequest(model="reds", image=uri(frame(0))))
    (reds,) = (model for model in client.list_models() if model.name == "reds")
    assert isinstance(reds.interface, schemas.DetectionInterface) and reds.interface.class_names == ["red"]


def test_any_detector_tracks(client: SyncPixanoInferenceClient) -> None:
    video = [uri(frame(index)) for index in range(3)]
    request = schemas.TrackingRequestV1.model_validate({"model": "reds", "video": video})
    boxes = [each.objects[0].box for each in client.tracking(request).data.frames]
    assert boxes == [[1, 2, 7, 8], [4, 2, 10, 8], [7, 2, 13, 8]]


def test_names_in_a_text(client: SyncPixanoInferenceClient) -> None:
    entities = client.ner(schemas.NERRequest(model="capitals", text="near Ada in Paris")).data.entities
    assert [(each.text, each.start, each.end) for each in entities] == [("Ada", 5, 8), ("Paris", 12, 17)]


def test_large_pictures_reach_a_plugin(client: SyncPixanoInferenceClient) -> None:
    from PIL import Image

    picture = Image.new("RGB", (5000, 3600), "red")
    answer = client.detection(schemas.DetectionRequest(model="reds", image=uri(encoded(picture, "JPEG"))))
    assert answer.data.boxes == [[0, 0, 5000, 3600]]


def test_an_installed_plugin_embeds_images_and_texts(client: SyncPixanoInferenceClient, tmp_path: Path) -> None:
    pytest.importorskip("pixano_inference_clip")
    params = {"path": f"local-dir:{write_clip(tmp_path)}", "pretrained": None}
    deployed = client.deploy_model(
        schemas.DeployModelRequest(name="clip", model_class="OpenClipEmbeddingModel", model_params=params)
    )
    assert isinstance(deployed.interface, schemas.EmbeddingInterface) and deployed.interface.dim == 16
    try:
        pictures = [uri(frame(0)), uri(frame(5))]
        images = client.embedding(schemas.EmbeddingRequest.model_validate({"model": "clip", "image": pictures})).data
        texts = client.embedding(schemas.EmbeddingRequest(model="clip", text="a red square")).data
        assert (images.dim, images.embeddings.shape, texts.embeddings.shape) == (16, [2, 16], [1, 16])
        assert np.linalg.norm(images.embeddings.to_numpy(), axis=1) == pytest.approx(1)
        one = client.embedding(schemas.EmbeddingRequest(model="clip", image=pictures[1])).data
        assert one.embeddings.to_numpy()[0] == pytest.approx(images.embeddings.to_numpy()[1], abs=1e-5)
        with pytest.raises(PixanoInferenceError, match="nothing to embed"):
            client.embedding(schemas.EmbeddingRequest(model="clip", text=[]))
        assert "ray" not in sys.modules
    finally:
        client.undeploy_model("clip")


@pytest.fixture(scope="module")
def careful(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server as it is by default: callers deploy families, and its configuration file makes a plugin's class."""
    folder = tmp_path_factory.mktemp("careful")
    (folder / "careful.py").write_text(OF_THE_ADMINISTRATOR)
    settings = settings_of(config_file=folder / "careful.py", root_protocol="pixano", max_concurrent_jobs=1)
    with LiveServer(create_app(settings, catalog=colorful.catalog())) as server:
        yield server


def test_callers_deploy_no_class_of_a_plugin_unless_settings_let_them(careful: LiveServer) -> None:
    with httpx.Client(base_url=careful.url) as client:
        body = {"name": "mine", "modelClass": "Nothing", "modelParams": {"path": "someone/else"}}
        refused = client.post("/v1/models", json=body)
        assert refused.status_code == 403
        error = refused.json()["error"]
        assert error["code"] == "forbidden" and "PIXANO_DEPLOY_PLUGINS" in error["message"]
        assert {"code", "message", "requestId"} == set(error)
        names = [model["name"] for model in client.get("/v1/models").json()]
        assert "theirs" in names, "the administrator's file may"
        assert "mine" not in names
        unknown = client.post("/v1/models", json={"modelClass": "NoSuchClass"})
        assert unknown.status_code == 404


def write_clip(folder: Path) -> Path:
    """A tiny CLIP of random weights, in the form in which open_clip keeps one."""
    import open_clip
    import torch

    torch.manual_seed(0)
    torch.save(open_clip.CLIP(**CLIP).state_dict(), folder / "open_clip_pytorch_model.bin")
    preprocess = {"size": 32, "mean": [0.5] * 3, "std": [0.5] * 3}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": CLIP, "preprocess_cfg": preprocess}))
    return folder
