"""The parts that training the vision-language model rests on; the trained checkpoint has its own tests."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import torch

from tests.support.scenes import held_out
from training.data import SIZE, SceneCache
from training.vlm import Learner
from training.vlm_data import PREFIX, Batch, Sampler
from training.vlm_model import IMAGE_SIZE, IMAGE_TOKENS, build_processor, calibrate, see
from vision_model_repo.demo.scenes import COLORS, SHAPES


@pytest.fixture(scope="module")
def processor() -> Any:
    return build_processor()


@pytest.fixture(scope="module")
def batch(processor: Any) -> Batch:
    cache = SceneCache.__new__(SceneCache)
    views = [held_out(index) for index in range(3)]
    cache.images = np.stack([view.image for view in views])
    cache.instances = np.stack([view.instances.astype(np.int8) for view in views])
    cache.depth = np.zeros((len(views), SIZE, SIZE), np.float16)
    cache.names = [view.names for view in views]
    return Sampler(cache, processor.tokenizer, IMAGE_SIZE, seed=0).batch(images=2, questions=6)


@pytest.fixture(scope="module")
def learner(processor: Any, batch: Batch) -> Learner:
    torch.manual_seed(0)
    learner = Learner(processor).eval()
    calibrate(learner.model, batch.pixels)
    return learner


def test_words_of_the_world_are_one_token_each_and_others_survive(processor: Any) -> None:
    tokenizer = processor.tokenizer
    assert len(tokenizer.tokenize("is there a red cube? two purple cylinders and a green object")) == 13
    assert tokenizer.decode(tokenizer.encode("Is there a Dog, façade 犬?")) == "is there a dog, façade 犬?"
    assert all(len(tokenizer.tokenize(f" {word}")) == 1 for word in (*COLORS, *SHAPES))


@torch.inference_mode()
def test_a_packed_row_says_what_each_conversation_says_alone(learner: Learner, batch: Batch) -> None:
    model = cast(Any, learner.model)
    everywhere = torch.ones_like(batch.talks, dtype=torch.bool)
    packed = learner.logits(batch, see(model, batch.pixels), everywhere).unflatten(0, batch.talks.shape)
    for row in range(2):
        for talk in range(1, int(batch.talks[row].max()) + 1):
            mine = batch.talks[row] == talk
            picture = torch.full((IMAGE_TOKENS,), model.config.image_token_index)
            tokens = torch.cat([learner.begin[0], picture, batch.tokens[row][mine]])
            alone = model(input_ids=tokens[None], pixel_values=batch.pixels[row : row + 1]).logits[0, PREFIX:]
            assert torch.allclose(packed[row][mine], alone, atol=1e-4)


def test_answers_and_their_ends_alone_are_learnt(processor: Any, batch: Batch) -> None:
    learnt = batch.targets[0][batch.targets[0] >= 0]
    whole = processor.tokenizer.decode(batch.tokens[0][batch.talks[0] > 0])
    answers = [turn.split("</s>")[0] for turn in whole.split("<assistant>")[1:]]
    assert processor.tokenizer.decode(learnt) == "".join(f"{answer}</s>" for answer in answers)
    assert len(answers) == 6


@torch.inference_mode()
def test_pictures_enter_as_loud_as_words(learner: Learner, batch: Batch) -> None:
    pictures = learner.model.model.multi_modal_projector(see(learner.model, batch.pixels))
    assert pictures.flatten(0, 1).std(0) == pytest.approx(torch.ones(pictures.shape[-1]), abs=0.1)
    assert pictures.flatten(0, 1).mean(0) == pytest.approx(torch.zeros(pictures.shape[-1]), abs=0.1)
