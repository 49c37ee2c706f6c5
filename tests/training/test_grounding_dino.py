"""The parts that training Grounding DINO rests on; the trained checkpoint has its own tests."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor
from transformers.models.grounding_dino.modeling_grounding_dino import (
    SPECIAL_TOKENS,
    generate_masks_with_special_tokens_and_transfer_map,
)

from training.grounding_dino_data import MAX_PHRASES, Batch, encode, names, sample_request
from training.grounding_dino_loss import detection_loss
from training.grounding_dino_model import build_model, build_processor, export


@pytest.fixture(scope="module")
def processor() -> Any:
    return build_processor()


@pytest.fixture(scope="module")
def model(processor: Any) -> Any:
    torch.manual_seed(0)
    return build_model(len(processor.tokenizer)).eval()


def test_delimiters_have_the_ids_that_the_model_looks_for(processor: Any) -> None:
    assert processor.tokenizer.convert_tokens_to_ids(["[CLS]", "[SEP]", ".", "?"]) == SPECIAL_TOKENS


def test_unknown_words_become_one_unknown_token_each(processor: Any) -> None:
    assert processor.tokenizer.tokenize("a wooden cubes. dog.") == ["a", "[UNK]", "cube", "##s", ".", "[UNK]", "."]


def test_tokens_and_spans_agree_with_the_processor(processor: Any) -> None:
    request = ["red cube", "the spheres", "green dog"]
    tokens, spans = encode(processor, request)
    assert processor.tokenizer(". ".join(request) + ".")["input_ids"] == tokens
    assert [processor.tokenizer.decode(tokens[span]) for span in spans] == ["red cube", "the spheres", "green [UNK]"]


@torch.inference_mode()
def test_a_phrase_reads_the_same_whatever_stands_beside_it(model: Any, processor: Any) -> None:
    def read(text: str) -> torch.Tensor:
        ids = processor.tokenizer(text, return_tensors="pt")["input_ids"]
        special: Any = torch.tensor(SPECIAL_TOKENS)
        mask, positions = generate_masks_with_special_tokens_and_transfer_map(ids, special)
        return model.model.text_backbone(ids, mask[:, None], position_ids=positions).last_hidden_state[0]

    one, other = read("red cube. sphere. cone."), read("red cube. cylinder. cone.")
    assert torch.allclose(one[[1, 2, 6]], other[[1, 2, 6]], atol=1e-5)
    assert not torch.allclose(one[4], other[4], atol=1e-1)


@torch.inference_mode()
def test_queries_differ_and_logits_start_at_the_prior(model: Any, processor: Any) -> None:
    tokens, _ = encode(processor, ["red cube", "sphere"])
    pixels = torch.randn(1, 3, 144, 192, generator=torch.Generator().manual_seed(1))
    logits = model(pixel_values=pixels, input_ids=torch.tensor([tokens])).logits[0, :, : len(tokens)]
    assert logits.std(0).min() > 0.3
    assert -8 < logits.mean() < -2


@torch.inference_mode()
def test_the_exported_folder_answers_as_the_model_does(model: Any, processor: Any, tmp_path: Path) -> None:
    export(model, processor, tmp_path)
    loaded = AutoModelForZeroShotObjectDetection.from_pretrained(tmp_path, dtype=torch.float32)
    image = np.random.default_rng(0).integers(256, size=(240, 320, 3), dtype=np.uint8)
    inputs = AutoProcessor.from_pretrained(tmp_path)(images=image, text="red cube. sphere.", return_tensors="pt")
    assert inputs["pixel_values"].shape == (1, 3, 144, 192)
    length = inputs["input_ids"].shape[1]
    # The proposals, since untrained scores lie so close that rounding alone can reorder the queries.
    expected, answered = (each(**inputs).enc_outputs_class[..., :length] for each in (model, loaded))
    assert torch.allclose(expected, answered, atol=0.05)


def test_requests_hold_distinct_phrases_both_true_and_false() -> None:
    rng = np.random.default_rng(0)
    objects = ["red cube", "green sphere"]
    requests = [sample_request(rng, objects) for _ in range(300)]
    assert {len(request) for request in requests} == set(range(1, MAX_PHRASES + 1))
    assert all(len(set(request)) == len(request) for request in requests)
    present = [any(names(phrase, name) for name in objects) for request in requests for phrase in request]
    assert 0.3 < np.mean(present) < 0.6


def _two_objects() -> Batch:
    """A sphere and a cube on one image: "object" (token 1) is true of both, "cube" (token 3) of the second."""
    boxes = torch.tensor([[[0.3, 0.3, 0.2, 0.2], [0.7, 0.6, 0.2, 0.3]]])
    positives = torch.tensor([[[0.0, 1, 0, 0, 0, 0], [0, 1, 0, 1, 0, 0]]])
    return Batch({"attention_mask": torch.ones(1, 6, dtype=torch.long)}, boxes, positives, [2])


def _outputs(logits: torch.Tensor, boxes: torch.Tensor) -> tuple[Any, Any]:
    """A model and outputs whose encoder and only decoder layer give these logits (1, Q, T) and boxes (1, Q, 4)."""
    outputs = SimpleNamespace(
        enc_outputs_class=logits,
        enc_outputs_coord_logits=torch.logit(boxes),
        encoder_last_hidden_state_text=torch.eye(logits.shape[-1])[None],
        init_reference_points=boxes,
        intermediate_reference_points=boxes[:, None],
        intermediate_hidden_states=logits[:, None],
    )
    return SimpleNamespace(bbox_embed=[lambda hidden: torch.zeros(*hidden.shape[:2], 4)]), outputs


def test_loss_vanishes_only_for_right_boxes_with_right_tokens() -> None:
    batch = _two_objects()
    logits = 20 * batch.positives.repeat(1, 2, 1) - 10
    boxes = batch.boxes.repeat(1, 2, 1)
    alone = logits.clone()
    alone[:, 2:] = -10
    right = float(detection_loss(*_outputs(alone, boxes), batch)[1]["class"])
    duplicated = float(detection_loss(*_outputs(logits, boxes), batch)[1]["class"])
    swapped = float(detection_loss(*_outputs(alone[:, [1, 0, 2, 3]], boxes), batch)[0])
    assert right < 1e-3 < duplicated
    assert swapped > 1
