"""The embedded CLIP, loaded as anyone would load it, on scenes it was not trained on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import CLIPModel, CLIPProcessor

from tests.support.scenes import held_out
from training.clip_evaluation import evaluate_retrieval, load_clip
from training.common import CHECKPOINTS

FOLDER = CHECKPOINTS / "clip"


@pytest.fixture(scope="module")
def checkpoint() -> tuple[Any, Any]:
    return load_clip(FOLDER)


def test_it_is_a_clip_of_at_most_four_megabytes(checkpoint: tuple[Any, Any]) -> None:
    model, processor = checkpoint
    assert isinstance(model, CLIPModel)
    assert isinstance(processor, CLIPProcessor)
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) <= 4e6


def test_captions_and_scenes_find_each_other(checkpoint: tuple[Any, Any]) -> None:
    figures = evaluate_retrieval(*checkpoint, map(held_out, range(100)))
    assert figures["text_to_image recall@1"] >= 0.75
    assert figures["text_to_image recall@5"] >= 0.9
    assert figures["image_to_text recall@1"] >= 0.75


@torch.inference_mode()
def test_padding_changes_no_embedding(checkpoint: tuple[Any, Any]) -> None:
    model, processor = checkpoint
    texts = ["a red cube", "a blue cone behind a green cylinder, a red sphere and two purple cubes on the table"]
    pixels = processor(images=held_out(0).image, return_tensors="pt")["pixel_values"]
    both = model(pixel_values=pixels, **processor(text=texts, return_tensors="pt", padding=True)).text_embeds
    alone = model(pixel_values=pixels, **processor(text=texts[:1], return_tensors="pt")).text_embeds
    assert torch.allclose(both[0], alone[0], atol=1e-5)
