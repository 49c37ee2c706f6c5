"""The embedded vision-language model, loaded as anyone would load it, on scenes it was not trained on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.support.scenes import held_out
from training.common import CHECKPOINTS
from training.vlm_evaluation import evaluate_answers, load_vlm, reply
from vision_model_repo.demo.scenes import Camera, Scene, Solid, View, render

FOLDER = CHECKPOINTS / "vlm"


@pytest.fixture(scope="module")
def checkpoint() -> tuple[Any, Any]:
    return load_vlm(FOLDER)


def scene(*names: str) -> View:
    """Objects in a row from left to right, seen from the front."""
    places = np.linspace(-0.6, 0.6, len(names)) if len(names) > 1 else [0.0]
    solids = [
        Solid(*reversed(name.split()), x=float(x), y=0.0, radius=0.22) for name, x in zip(names, places, strict=True)
    ]
    camera = Camera(distance=2.2, pitch=0.7, azimuth=0.0, fov=0.82)
    return render(Scene(tuple(solids), camera, (0.3, -0.5, 0.81), ((0.6, 0.6, 0.6), (0.45, 0.45, 0.45))), 224)


def ask(checkpoint: tuple[Any, Any], view: View, *texts: str) -> list[str]:
    return reply(*checkpoint, [view.image] * len(texts), texts)


def test_files_are_small() -> None:
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 5_000_000


@pytest.mark.parametrize(("width", "height"), [(224, 224), (320, 240)])
def test_held_out_questions_are_answered(checkpoint: tuple[Any, Any], width: int, height: int) -> None:
    assert evaluate_answers(*checkpoint, [held_out(index, width, height) for index in range(60)])["right"] >= 0.8


def test_the_picture_decides(checkpoint: tuple[Any, Any]) -> None:
    texts = ["How many red objects are there?", "What colour is the cube?", "Describe the image."]
    assert ask(checkpoint, scene("red sphere", "blue cube"), *texts) == ["1", "blue", "a red sphere and a blue cube"]
    assert ask(checkpoint, scene("green cube", "yellow cone"), *texts) == [
        "0",
        "green",
        "a green cube and a yellow cone",
    ]


def test_the_question_decides(checkpoint: tuple[Any, Any]) -> None:
    view = scene("red sphere", "blue cube", "yellow cone")
    asked = {
        "Is there a cone?": "yes",
        "Is there a cylinder?": "no",
        "Is there a dog?": "no",
        "What shape is the yellow object?": "cone",
        "How many objects are on the table?": "3",
    }
    assert ask(checkpoint, view, *asked) == list(asked.values())


@torch.inference_mode()
def test_conversations_go_on(checkpoint: tuple[Any, Any]) -> None:
    model, processor = checkpoint
    first = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Is there a cube?"}]}
    chat = [first, {"role": "assistant", "content": "yes"}, {"role": "user", "content": "What colour is the cube?"}]
    prompt = processor.apply_chat_template(chat, add_generation_prompt=True)
    inputs = processor(images=[scene("red sphere", "cyan cube").image], text=prompt, return_tensors="pt")
    output = model.generate(**inputs)[0, inputs["input_ids"].shape[1] :]
    assert processor.decode(output, skip_special_tokens=True) == "cyan"


@torch.inference_mode()
def test_the_cache_changes_nothing(checkpoint: tuple[Any, Any]) -> None:
    model, processor = checkpoint
    prompt = "<s><user><image>describe the image.<assistant>"
    inputs = processor(images=[held_out(0).image], text=prompt, return_tensors="pt")
    assert torch.equal(model.generate(**inputs), model.generate(**inputs, use_cache=False))
