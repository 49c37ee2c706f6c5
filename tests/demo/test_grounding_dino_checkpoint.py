"""The embedded Grounding DINO, loaded as anyone would load it, on scenes it was not trained on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

from tests.support.scenes import held_out
from training.common import CHECKPOINTS
from training.grounding_dino import detect, evaluate

FOLDER = CHECKPOINTS / "grounding-dino"


@pytest.fixture(scope="module")
def checkpoint() -> tuple[Any, Any]:
    model = AutoModelForZeroShotObjectDetection.from_pretrained(FOLDER, dtype=torch.float32)
    return model.eval(), AutoProcessor.from_pretrained(FOLDER)


@pytest.mark.parametrize(("width", "height"), [(224, 224), (320, 240), (480, 640)])
def test_it_finds_what_phrases_name(checkpoint: tuple[Any, Any], width: int, height: int) -> None:
    figures = evaluate(*checkpoint, [held_out(index, width, height) for index in range(20)])
    assert figures["ap50"] >= 0.8
    assert figures["recall"] >= 0.75


def test_unknown_words_find_nothing(checkpoint: tuple[Any, Any]) -> None:
    for index in range(10):
        result = detect(*checkpoint, held_out(index), ["dog", "object", "wooden chair"])
        strong = [label for label, score in zip(result.labels, result.scores, strict=True) if score > 0.4]
        assert set(strong) == {"object"}


@torch.inference_mode()
def test_a_padded_picture_answers_as_it_does_alone(checkpoint: tuple[Any, Any]) -> None:
    model, processor = checkpoint
    wide, tall = held_out(3, 320, 240).image, held_out(4, 240, 320).image
    text = "object. red cube. sphere."
    both = model(**processor(images=[wide, tall], text=[text, text], return_tensors="pt"))
    alone = model(**processor(images=wide, text=text, return_tensors="pt"))
    best = [outputs.logits[0].sigmoid().amax(-1).topk(2) for outputs in (both, alone)]
    assert torch.allclose(best[0].values, best[1].values, atol=0.15)
    boxes = [outputs.pred_boxes[0, index.indices] for outputs, index in zip((both, alone), best, strict=True)]
    assert torch.allclose(boxes[0], boxes[1], atol=0.03)
