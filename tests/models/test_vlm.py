"""A vision-language model on one device, from conversation to text."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch

from vision_model_repo.demo.scenes import render, sample_scene
from vision_model_repo.errors import InvalidInput, NotFound
from vision_model_repo.models import vlm
from vision_model_repo.models.base import Checkpoint
from vision_model_repo.models.hub import Hub
from vision_model_repo.tasks.chat import ChatMessage, ChatRequest

IMAGE = render(sample_scene(1), 224).image
QUESTION = "describe the image."


@pytest.fixture(scope="module")
def model() -> vlm.VisionLanguageModel:
    return vlm.load(Hub(offline=True).resolve("demo/vlm"), device="cpu", dtype="float32")


def test_it_answers_as_transformers_generates(model: vlm.VisionLanguageModel) -> None:
    request = ChatRequest.ask(QUESTION, [IMAGE], max_new_tokens=40)
    result = model(request)
    item = model.preprocess(request)
    with torch.inference_mode():
        tokens = model.network.generate(**item.inputs, max_new_tokens=40, do_sample=False)[0, item.prompt_tokens :]
    assert result.text == model._processor.tokenizer.decode(tokens, skip_special_tokens=True) != ""
    assert (result.usage.prompt, result.usage.completion) == (item.prompt_tokens, len(tokens))


def test_an_answer_grows_and_ends(model: vlm.VisionLanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vlm, "PASS_SECONDS", 0.0)
    item = model.preprocess(ChatRequest.ask(QUESTION, [IMAGE], max_new_tokens=6))
    results = []
    while not results or not model.finished(results[-1]):
        results += model.forward([item])
    assert [result.usage.completion for result in results] == list(range(1, len(results) + 1))
    texts = [result.text for result in results]
    assert all(after.startswith(before) for before, after in pairwise(texts))
    assert item.steps is None, "what it held is given back"


def test_two_answers_in_turn_are_those_of_each_alone(
    model: vlm.VisionLanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [ChatRequest.ask(text, [IMAGE], max_new_tokens=12) for text in (QUESTION, "how many objects are there?")]
    alone = [model(request).text for request in requests]
    monkeypatch.setattr(vlm, "PASS_SECONDS", 0.0)
    items = [model.preprocess(request) for request in requests]
    texts = ["", ""]
    while any(item.finish_reason is None for item in items):
        for index, item in enumerate(items):
            if item.finish_reason is None:
                texts[index] = model.forward([item])[0].text
    assert texts == alone


def test_a_pass_that_failed_is_begun_anew(model: vlm.VisionLanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    request = ChatRequest.ask(QUESTION, [IMAGE], temperature=1.0, max_new_tokens=8)
    monkeypatch.setattr(vlm, "PASS_SECONDS", 0.0)
    item = model.preprocess(request)
    before = [model.forward([item])[0].text for _ in range(2)]
    with monkeypatch.context() as broken:
        broken.setattr(model.network, "forward", lambda **inputs: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            model.forward([item])
    assert [model.forward([item])[0].text for _ in range(2)] == before


def test_what_is_abandoned_holds_nothing(model: vlm.VisionLanguageModel) -> None:
    item = model.preprocess(ChatRequest.ask(QUESTION, [IMAGE]))
    model.forward([item])
    model.abandon(item)
    count = item.writer.count
    model.forward([item])
    assert item.steps is None and item.writer.count == count


def test_a_seed_decides(model: vlm.VisionLanguageModel) -> None:
    def ask(seed: int) -> str:
        return model(ChatRequest.ask(QUESTION, [IMAGE], temperature=5.0, seed=seed, max_new_tokens=20)).text

    assert ask(1) == ask(1) != ask(2)


def test_a_conversation_holds_several_images_and_answers(model: vlm.VisionLanguageModel) -> None:
    turns = (
        ChatMessage("user", (IMAGE, IMAGE, "how many objects are there?")),
        ChatMessage("assistant", ("3",)),
        ChatMessage("user", ("is there a cone?",)),
    )
    one = model.preprocess(ChatRequest.ask("how many objects are there?", [IMAGE])).prompt_tokens
    assert model.preprocess(ChatRequest(turns)).prompt_tokens > one + 259, "each image is read"
    assert model(ChatRequest(turns, max_new_tokens=4)).usage.completion <= 4


def test_a_prompt_needs_no_image(model: vlm.VisionLanguageModel) -> None:
    assert model(ChatRequest.ask("how many objects are there?", max_new_tokens=2)).usage.prompt < 20


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (ChatRequest(()), "at least one message"),
        (ChatRequest.ask("what is <image>?"), "reads as a picture"),
        (ChatRequest.ask("x", [IMAGE] * 8), "2048"),
        (ChatRequest.ask("x", [IMAGE], max_new_tokens=2000), "2000 are wanted"),
    ],
)
def test_what_it_cannot_read_is_refused(model: vlm.VisionLanguageModel, request_: ChatRequest, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        model.preprocess(request_)


def test_an_answer_may_fill_what_the_prompt_leaves(model: vlm.VisionLanguageModel) -> None:
    item = model.preprocess(ChatRequest.ask("x", [IMAGE] * 7))
    assert item.limit == 2048 - item.prompt_tokens < 512


def test_a_checkpoint_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(NotFound, match="'bert', which is no vision-language model"):
        vlm.load(Checkpoint("some/bert", tmp_path), device="cpu", dtype="float32")
