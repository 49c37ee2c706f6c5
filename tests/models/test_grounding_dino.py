"""Grounding DINO labels boxes with phrases as they were written, and answers as transformers' own steps do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import BertTokenizer, GroundingDinoForObjectDetection, GroundingDinoProcessor

from tests.support.scenes import held_out
from training.grounding_dino_model import build_config, build_processor
from vision_model_repo.demo.evaluation import evaluate
from vision_model_repo.demo.scenes import phrases
from vision_model_repo.errors import InvalidInput
from vision_model_repo.models import grounding_dino
from vision_model_repo.models.base import Checkpoint
from vision_model_repo.models.grounding_dino import GroundingDino, Item, Scored
from vision_model_repo.models.hub import Hub
from vision_model_repo.tasks.detection import DetectionRequest, DetectionResult

GREY_LEVEL = 1 / 255 / 0.224
"""One grey level after normalisation, of the colour with the smallest deviation."""


@pytest.fixture(scope="module")
def model(demo_grounding_dino: GroundingDino) -> GroundingDino:
    return demo_grounding_dino


@pytest.fixture(scope="module")
def plain() -> tuple[Any, Any]:
    """The network and the processor as transformers reads them."""
    folder = Hub(offline=True).resolve("demo/grounding-dino").folder
    network: Any = GroundingDinoForObjectDetection.from_pretrained(folder, dtype=torch.float32)
    return network.eval(), GroundingDinoProcessor.from_pretrained(folder)


def ask(*asked: str, height: int = 90, width: int = 120, **options: Any) -> DetectionRequest:
    image = np.random.default_rng(0).integers(256, size=(height, width, 3), dtype=np.uint8)
    return DetectionRequest(image, asked, **options)


def answer(model: GroundingDino, asked: tuple[str, ...], rows: list[list[float]], **options: Any) -> DetectionResult:
    """What comes of queries with these probabilities for each phrase, all at one box."""
    item = model.preprocess(ask(*asked, **options))
    (caption,) = item.captions
    probabilities = np.zeros((len(rows), len(caption.token_ids)), np.float32)
    for row, scores in enumerate(rows):
        for (_, stop), score in zip(caption.spans, scores, strict=True):
            probabilities[row, stop - 1] = score
    boxes = np.tile(np.array([0.25, 0.25, 0.5, 0.5], np.float32), (len(rows), 1))
    return model.postprocess([Scored(probabilities, boxes)], item)


def words(model: GroundingDino, item: Item) -> list[list[str]]:
    """The tokens of each phrase, in the order of the captions."""
    return [
        model._tokenizer.convert_ids_to_tokens(caption.token_ids[start:stop].tolist())
        for caption in item.captions
        for start, stop in caption.spans
    ]


@pytest.mark.parametrize("size", [(90, 120), (400, 300), (192, 192), (333, 1000)])
def test_pixels_are_those_of_the_processor(model: GroundingDino, plain: tuple[Any, Any], size: tuple[int, int]) -> None:
    small = np.random.default_rng(0).integers(256, size=(12, 16, 3), dtype=np.uint8)
    image = np.kron(small, np.ones((80, 80, 1), np.uint8))[: size[0], : size[1]]
    expected = plain[1](images=image, text="cube.", return_tensors="pt")["pixel_values"][0]
    pixels = model.preprocess(DetectionRequest(image, ("cube",))).pixels
    assert pixels.shape == expected.shape
    assert (pixels - expected).abs().max() <= 1.01 * GREY_LEVEL


def test_the_caption_is_that_of_the_processor(model: GroundingDino, plain: tuple[Any, Any]) -> None:
    asked = ["Red Cube", "the spheres", "zebra"]
    expected = plain[1](images=ask().image, text=[asked], return_tensors="pt")["input_ids"][0]
    item = model.preprocess(ask(*asked))
    assert item.captions[0].token_ids.tolist() == expected.tolist()
    assert words(model, item) == [["red", "cube"], ["the", "sphere", "##s"], ["[UNK]"]]


def test_a_delimiter_inside_a_phrase_does_not_split_it(model: GroundingDino) -> None:
    item = model.preprocess(ask("red. cube?", "[SEP] sphere", "cone..."))
    assert words(model, item) == [["red", "cube"], ["[UNK]", "[UNK]", "[UNK]", "sphere"], ["cone"]]
    assert item.captions[0].phrases == ("red. cube?", "[SEP] sphere", "cone...")


def test_phrases_that_read_the_same_stand_in_the_caption_once(model: GroundingDino) -> None:
    item = model.preprocess(ask("Cube", "cube", "sphere", "cube."))
    assert item.captions[0].phrases == ("Cube", "sphere")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ((), "at least one phrase"),
        (("cube", " "), "Phrase 1 ' ' has no word"),
        (("?",), "Phrase 0 '\\?' has no word"),
        (("cube", "red " * 200), "Phrase 1 .* has 200 tokens, and this model reads at most 125"),
    ],
)
def test_refusals_name_the_phrase(model: GroundingDino, asked: tuple[str, ...], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        model.preprocess(ask(*asked))


def test_labels_are_phrases_as_written(model: GroundingDino) -> None:
    result = answer(model, ("A Red Cube!", "sphere"), [[0.7, 0.0], [0.1, 0.9]])
    assert result.labels == ("sphere", "A Red Cube!")
    assert result.scores.tolist() == [np.float32(0.9), np.float32(0.7)]
    assert result.boxes.tolist() == [[30, 22.5, 60, 45]] * 2


def test_both_thresholds_hold(model: GroundingDino) -> None:
    rows = [[0.35], [0.45], [0.55]]
    assert len(answer(model, ("cube",), rows, box_threshold=0.4, text_threshold=0.3).scores) == 2
    assert len(answer(model, ("cube",), rows, box_threshold=0.4, text_threshold=0.5).scores) == 1
    assert answer(model, ("cube",), rows, box_threshold=0.9).boxes.shape == (0, 4)


def test_a_box_has_every_label_that_is_nearly_its_best(model: GroundingDino) -> None:
    result = answer(model, ("red cube", "cube", "blue cube"), [[0.9, 0.8, 0.5]])
    assert result.labels == ("red cube", "cube")


def test_boxes_are_cut_to_the_image_and_dropped_outside(model: GroundingDino) -> None:
    item = model.preprocess(ask("cube"))
    boxes = np.array([[-0.2, 0.5, 0.5, 1.3], [1.1, 0.2, 1.4, 0.4]], np.float32)
    probabilities = np.full((2, len(item.captions[0].token_ids)), 0.9, np.float32)
    assert model.postprocess([Scored(probabilities, boxes)], item).boxes.tolist() == [[0, 45, 60, 90]]


def test_many_phrases_are_spread_over_captions(model: GroundingDino) -> None:
    asked = [f"{article} {phrase}" for article in ("a", "the") for phrase in phrases()]
    item = model.preprocess(ask(*asked))
    assert len(item.captions) == 3
    assert all(len(caption.token_ids) <= 128 for caption in item.captions)
    assert [phrase for caption in item.captions for phrase in caption.phrases] == asked
    together = model.forward([item])[0]
    alone = [model.forward([model.preprocess(ask(*caption.phrases))])[0][0] for caption in item.captions]
    for one, other in zip(together, alone, strict=True):
        assert np.array_equal(one.probabilities, other.probabilities)
        assert np.array_equal(one.boxes, other.boxes)


def test_only_requests_that_need_no_padding_share_a_forward_pass(model: GroundingDino) -> None:
    def key(*asked: str, width: int = 120) -> Any:
        return model.batch_key(model.preprocess(ask(*asked, width=width)))

    assert key("red cube", "cone") == key("sphere", "green cone")
    assert key("red cube", "cone") != key("red cube")
    assert key("cone") != key("cone", width=150)


def test_a_batch_answers_as_each_image_alone(model: GroundingDino) -> None:
    asked = [("red cube", "sphere"), ("blue cone", "object"), ("green object", "cylinder")]
    requests = [DetectionRequest(held_out(index).image, pair) for index, pair in enumerate(asked)]
    items = [model.preprocess(request) for request in requests]
    for request, item, raw in zip(requests, items, model.forward(items), strict=True):
        together, alone = model.postprocess(raw, item), model(request)
        assert together.labels == alone.labels
        assert np.allclose(together.boxes, alone.boxes, atol=0.01)
        assert np.allclose(together.scores, alone.scores, atol=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (3, 900), (900, 3)])
def test_an_image_of_any_shape_is_answered(model: GroundingDino, size: tuple[int, int]) -> None:
    result = model(ask("cube", height=size[0], width=size[1], box_threshold=0.0))
    assert (result.boxes >= 0).all()
    assert (result.boxes <= [size[1], size[0]] * 2).all()


@torch.inference_mode()
def test_phrases_are_kept_apart_whatever_ids_a_tokenizer_has(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("foreign")
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "?", "red", "blue", "cube", "cone"]
    tokenizer = BertTokenizer(vocab={token: index for index, token in enumerate(tokens)}, model_max_length=128)
    GroundingDinoForObjectDetection(build_config(len(tokens))).save_pretrained(folder)
    GroundingDinoProcessor(build_processor().image_processor, tokenizer).save_pretrained(folder)
    model = grounding_dino.load(Checkpoint("foreign", folder), device="cpu", dtype="float32")
    read: list[NDArray[np.float32]] = []
    model.network.model.text_backbone.register_forward_hook(lambda *call: read.append(call[2][0][0].numpy()))
    for pair in (("red cube", "cone"), ("red cube", "blue")):
        model(ask(*pair))
    assert np.allclose(read[0][1:3], read[1][1:3], atol=1e-6)
    assert not np.allclose(read[0][4], read[1][4], atol=1e-3)


def test_boxes_are_those_of_the_processor(model: GroundingDino, plain: tuple[Any, Any]) -> None:
    network, processor = plain
    count = 0
    for index in range(4):
        view = held_out(index, 320, 240)
        inputs = processor(images=view.image, text=[["object"]], return_tensors="pt")
        with torch.inference_mode():
            outputs = network(**inputs)
        (expected,) = processor.post_process_grounded_object_detection(
            outputs, threshold=0.4, text_threshold=0.3, target_sizes=[view.image.shape[:2]]
        )
        order = expected["scores"].argsort(descending=True)
        result = model(DetectionRequest(view.image, ("object",)))
        assert np.allclose(result.scores, expected["scores"][order], atol=0.02)
        assert np.allclose(result.boxes, expected["boxes"][order].clamp(min=0), atol=1)
        count += len(result.scores)
    assert count >= 4


def test_it_finds_what_phrases_name(model: GroundingDino) -> None:
    figures = evaluate("detection", model, [held_out(index, 320, 240) for index in range(12)])
    assert figures["ap50"] >= 0.75
    assert figures["recall"] >= 0.7


def test_half_precision_moves_no_box(model: GroundingDino) -> None:
    checkpoint = Hub(offline=True).resolve("demo/grounding-dino")
    half = grounding_dino.load(checkpoint, device="cpu", dtype="bfloat16")
    assert half.dtype == "bfloat16"
    assert half.memory_bytes() < 0.9 * model.memory_bytes()
    request = DetectionRequest(held_out(1).image, ("object", "red cube"))
    rough, exact = half(request), model(request)
    assert rough.labels == exact.labels
    assert rough.boxes.dtype == rough.scores.dtype == np.float32
    assert np.allclose(rough.boxes, exact.boxes, atol=1)
    assert np.allclose(rough.scores, exact.scores, atol=0.03)


def test_an_unloaded_model_holds_no_memory() -> None:
    model = grounding_dino.load(Hub(offline=True).resolve("demo/grounding-dino"), device="cpu", dtype="float32")
    assert model.memory_bytes() > 1_000_000
    model.unload()
    assert model.memory_bytes() == 0
