"""Configuration files: ours, Pixano's, and what a class of one's own needs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image, ImageDraw

from tests.support.live import settings_of
from tests.support.pictures import b64, encoded
from vision_model_repo.api.server import create_app
from vision_model_repo.deployments import read_config, read_toml
from vision_model_repo.models.catalog import BUILT_IN, Catalog

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"
EDGES = '[[models]]\nname = "edges"\nclass = "edges:Outstanding"\ntask = "detection"\n'
PIXANO = """
from pixano_inference.configs import DeploymentConfig, ModelConfig
from pixano_inference.models import DetectionModel
from pixano_inference.schemas import DetectionInput, DetectionOutput
from pixano_inference.utils.media import convert_string_to_image


class Whole(DetectionModel):
    def load_model(self):
        self.label = self.config.model_params["label"]

    def predict(self, input: DetectionInput) -> DetectionOutput:
        width, height = convert_string_to_image(input.image).size
        return DetectionOutput(boxes=[[0, 0, width, height]], scores=[0.5], classes=[self.label])


models = [
    ModelConfig(name="whole", model_class=Whole, model_params={"label": "picture"}, deployment=DeploymentConfig()),
    ModelConfig(name="dino", model_class="GroundingDINOModel", model_params={"path": "demo/grounding-dino"}),
]
"""
TRACKER = """
from vision_model_repo.models.base import Model
from vision_model_repo.tasks.clip_tracking import ClipResult
from vision_model_repo.tasks.tracking import TrackedFrame, TrackedObject


class Brightest(Model):
    def __init__(self, checkpoint, *, device, dtype):
        self.model_id, self.device, self.dtype = checkpoint.model_id, "cpu", "float32"

    def preprocess(self, request):
        return request

    def forward(self, items):
        return [[(index, image.mean()) for index, image in item.video.frames()] for item in items]

    def postprocess(self, raw, item):
        index, _ = max(raw, key=lambda pair: pair[1])
        box = (0.0, 0.0, float(item.video.width), float(item.video.height))
        return ClipResult((TrackedFrame(index, (TrackedObject(1, box),)),), len(raw))

    def memory_bytes(self):
        return 0

    def unload(self): ...
"""


def catalog() -> Catalog:
    return Catalog(BUILT_IN)


@pytest.fixture
def picture() -> str:
    image = Image.new("RGB", (40, 30), "white")
    draw = ImageDraw.Draw(image)
    draw.rectangle((5, 6, 14, 15), fill="red")
    draw.rectangle((25, 10, 34, 24), fill="blue")
    return b64(encoded(image))


@contextmanager
def importable(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


async def test_the_example_of_the_guide_detects_in_every_protocol(tmp_path: Path, picture: str) -> None:
    assert EDGES.split('class = "')[1].split('"')[0] in (EXAMPLES.parent / "own-model.md").read_text()
    path = tmp_path / "models.toml"
    path.write_text(EDGES)
    app = create_app(settings_of(config_file=path), catalog=catalog())
    with importable(EXAMPLES):
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client,
        ):
            body = {"images": [picture], "prompts": ["block"]}
            native = (await client.post("/inference/edges", json=body)).json()
            pixano = await client.post("/v1/inference/detection", json={"model": "edges", "image": picture})
    boxes = [[5, 6, 15, 16], [25, 10, 35, 25]]
    assert sorted(native["results"][0]["xyxy"]) == boxes and set(native["results"][0]["labels"]) == {"block"}
    assert sorted(pixano.json()["data"]["boxes"]) == boxes
    assert pixano.json()["metadata"]["model_class"] == "Outstanding"


async def test_a_tracker_of_ones_own_gets_a_video_whole(tmp_path: Path) -> None:
    (tmp_path / "brightest.py").write_text(TRACKER)
    path = tmp_path / "models.toml"
    path.write_text('[[models]]\nname = "brightest"\nclass = "brightest:Brightest"\ntask = "clip_tracking"\n')
    video = [b64(encoded(Image.new("L", (40, 30), shade))) for shade in (10, 200, 60)]
    app = create_app(settings_of(config_file=path), catalog=catalog())
    with importable(tmp_path):
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client,
        ):
            answer = await client.post("/v1/inference/tracking", json={"model": "brightest", "video": video})
            statuses = (await client.get("/models/status")).json()
    (frame,) = answer.json()["data"]["frames"]
    assert (frame["frameIndex"], frame["objects"][0]["box"]) == (1, [0, 0, 40, 30])
    assert "clip_tracking" in str(statuses)


def test_the_example_is_as_short_as_a_model_can_be() -> None:
    code = [line for line in (EXAMPLES / "edges.py").read_text().splitlines() if line.strip()]
    assert len(code) <= 30


def test_deployments_of_a_family_have_their_own_names_checkpoints_and_places(tmp_path: Path) -> None:
    path = tmp_path / "models.toml"
    path.write_text(
        '[[models]]\nname = "a"\nfamily = "sam3"\nmodel_id = "demo/sam3"\ndevice = "cpu"\nbatch = 2\ntimeout = 9\n'
        '[[models]]\nname = "b"\nfamily = "sam3"\ndtype = "float16"\n'
    )
    a, b = read_config(path, catalog())
    assert (a.model_type, a.family, a.variants, a.demo) == ("a", "sam3", ("demo/sam3",), None)
    assert (a.device, a.max_batch, a.timeout_seconds) == ("cpu", 2, 9)
    assert (b.variants, b.demo, b.dtype) == (("facebook/sam3",), "demo/sam3", "float16")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[[models]]\nname = "a"\n', r"models\[0\].*either family or class"),
        ('[[models]]\nname = "a"\nfamily = "sam3"\ndevise = "cpu"\n', r"models\[0\]\.devise"),
        ('[[models]]\nname = "a"\nfamily = "sam3"\nreplicas = 2\n', "replicas"),
        ('[[models]]\nname = "a"\nclass = "x:Y"\n', "task"),
        ("port = 1\n", "may hold"),
        ("[[", "not valid TOML"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_with_the_place(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "models.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=words):
        read_toml(path)


async def test_a_pixano_file_is_served_as_it_is(tmp_path: Path, picture: str) -> None:
    path = tmp_path / "models.py"
    path.write_text(PIXANO)
    app = create_app(settings_of(config_file=path, root_protocol="pixano"), catalog=catalog())
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client,
    ):
        models = {model["name"]: model for model in (await client.get("/v1/models")).json()}
        body = {"model": "whole", "image": f"data:image/png;base64,{picture}"}
        answer = (await client.post("/v1/inference/detection", json=body)).json()
    assert (models["whole"]["modelClass"], models["whole"]["capability"]) == ("Whole", "detection")
    assert (models["dino"]["modelClass"], models["dino"]["modelPath"]) == ("grounding_dino", "demo/grounding-dino")
    assert answer["data"] == {"boxes": [[0, 0, 40, 30]], "scores": [0.5], "classes": ["picture"], "masks": None}
    assert answer["metadata"]["model_class"] == "Whole"
    assert "ray" not in sys.modules


def test_pixels_reach_a_plugin_unchanged() -> None:
    from pixano_inference.utils.media import convert_string_to_image

    from vision_model_repo.models.pixano_adapters import DetectionAdapter
    from vision_model_repo.tasks.detection import DetectionRequest

    image = np.random.default_rng(0).integers(0, 256, (7, 5, 3), np.uint8)
    given = DetectionAdapter().ask(DetectionRequest(image, ()))
    assert given.classes is None
    assert (np.asarray(convert_string_to_image(given.image)) == image).all()
