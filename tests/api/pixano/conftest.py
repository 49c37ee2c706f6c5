"""A server of models that find what is of a plain colour, and a clip to track in."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from PIL import Image, ImageDraw

from tests.api.conftest import LiveServer, b64, encoded, settings_of
from tests.engine import colorful
from tests.engine.weighty import write_checkpoint
from vision_model_repo.api.server import create_app

FRAMES = 8
"""Frames of the clip."""
CONFIG = """
import time

import numpy as np
from pixano_inference.configs import DeploymentConfig, ModelConfig
from pixano_inference.models import DetectionModel, EmbeddingModel, NERModel, TrackingModel, VLMModel
from pixano_inference.schemas import (
    DetectionInput, DetectionInterface, DetectionOutput, EmbeddingInput, EmbeddingOutput, NDArrayFloat, NEREntity,
    NERInput, NEROutput, TrackedFrame, TrackedObject, TrackingInput, TrackingInterface, TrackingOutput, UsageInfo,
    VLMInput, VLMOutput,
)
from pixano_inference.utils.media import convert_string_to_image


ASKED, STEPS = [], []


class Reds(DetectionModel):
    interface = DetectionInterface(classes="closed", class_names=["red"], outputs=["box", "score", "class"])

    def load_model(self):
        self.least = self.config.model_params["least"]

    def predict(self, input: DetectionInput) -> DetectionOutput:
        image = convert_string_to_image(input.image).convert("RGB")
        red, green, _ = image.split()
        box = red.point(lambda value: 255 * (value >= self.least)).getbbox()
        if box is None:
            return DetectionOutput(boxes=[], scores=[], classes=[])
        return DetectionOutput(boxes=[box], scores=[0.9], classes=["red"])


class Follower(TrackingModel):
    interface = TrackingInterface(prompts=["box"], prompt_free=True, interval=True, outputs=["box", "score", "class"])

    def load_model(self): ...

    def predict(self, input: TrackingInput) -> TrackingOutput:
        ASKED.append(input)
        track_id = input.objects_ids[0] if input.objects_ids else 5
        first = input.interval.start_frame if input.interval else 0
        frames = []
        for index, picture in enumerate(input.video[first:], start=first):
            red, green, _ = convert_string_to_image(picture).split()
            box = red.point(lambda value: 255 * (value >= 150)).getbbox()
            found = [TrackedObject(track_id=track_id, box=box, score=0.75, class_name="red")] if box else []
            frames.append(TrackedFrame(frame_index=index, objects=found))
        return TrackingOutput(frames=frames)


class Endless(TrackingModel):
    def load_model(self): ...

    def predict(self, input: TrackingInput) -> TrackingOutput:
        assert all(len(picture) > 100 for picture in input.video)
        while input.propagate is not False:
            STEPS.append(time.monotonic())
            try:
                time.sleep(0.005)
            except Exception:
                pass
        return TrackingOutput(frames=[])


class Capitals(NERModel):
    def load_model(self): ...

    def predict(self, input: NERInput) -> NEROutput:
        words = [word for word in input.text.split() if word[0].isupper()]
        starts = [input.text.index(word) for word in words]
        return NEROutput(entities=[
            NEREntity(text=word, label="name", start=start, end=start + len(word), score=1.0)
            for word, start in zip(words, starts)
        ])


class Lengths(EmbeddingModel):
    def load_model(self): ...

    def predict(self, input: EmbeddingInput) -> EmbeddingOutput:
        texts = [input.text] if isinstance(input.text, str) else input.text
        return EmbeddingOutput(embeddings=NDArrayFloat.from_numpy(np.array([[len(text)] for text in texts])), dim=1)


class Parrot(VLMModel):
    def load_model(self): ...

    def predict(self, input: VLMInput) -> VLMOutput:
        sizes = [convert_string_to_image(image).size for image in input.images or []]
        usage = UsageInfo(prompt_tokens=2, completion_tokens=3, total_tokens=5)
        return VLMOutput(generated_text=f"{input.prompt} {sizes}", usage=usage)


models = [
    ModelConfig(name="reds", model_class=Reds, model_params={"least": 150}, deployment=DeploymentConfig(num_cpus=1)),
    ModelConfig(name="follower", model_class=Follower),
    ModelConfig(name="endless", model_class=Endless, deployment=DeploymentConfig(timeout_s=2)),
    ModelConfig(name="capitals", model_class=Capitals),
    ModelConfig(name="lengths", model_class=Lengths),
    ModelConfig(name="parrot", model_class=Parrot),
]
"""


def frame(index: int) -> bytes:
    """40 x 24 pixels: a red square goes 3 pixels right with every frame, a blue one stands."""
    image = Image.new("RGB", (40, 24), (128, 128, 128))
    draw = ImageDraw.Draw(image)
    draw.rectangle((1 + 3 * index, 2, 6 + 3 * index, 7), fill=colorful.COLORS["red"])
    draw.rectangle((20, 14, 29, 21), fill=colorful.COLORS["blue"])
    return encoded(image)


@pytest.fixture(scope="session")
def clip() -> list[str]:
    """The frames as data URIs."""
    return [f"data:image/png;base64,{b64(frame(index))}" for index in range(FRAMES)]


@pytest.fixture(scope="session")
def colors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A live server whose models are `segmenter` and `detector`, and those of a configuration file of Pixano's."""
    folder = tmp_path_factory.mktemp("colors")
    (folder / "models.py").write_text(CONFIG)
    default = dict.fromkeys(("segmenter", "detector", "other"), write_checkpoint(folder / "clicking"))
    settings = settings_of(
        default_model_ids=default,
        config_file=folder / "models.py",
        max_concurrent_jobs=1,
        pixano_deploy_plugins=True,
        root_protocol="pixano",
    )
    app = create_app(settings, catalog=colorful.catalog())
    with LiveServer(app) as server:
        yield server
