"""SAM 3 answers as transformers' own model and processor do, one encode for all prompts and within little memory."""

from __future__ import annotations

import subprocess
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from transformers import Sam3Model, Sam3Processor

from tests.models.encoded import complete
from tests.support.scenes import held_out
from vision_model_repo.demo.evaluation import evaluate
from vision_model_repo.errors import InvalidInput, NotFound
from vision_model_repo.models import sam3
from vision_model_repo.models.base import Checkpoint
from vision_model_repo.models.hub import Hub
from vision_model_repo.models.sam3 import Sam3
from vision_model_repo.models.sam3_answers import Answer, Found
from vision_model_repo.tasks.segmentation import ObjectPrompt, SegmentationPrompt, SegmentationRequest

GREY_LEVEL = 2 / 255
"""One grey level after normalisation with mean and deviation 0.5."""
RED, CUBE = SegmentationPrompt("red object"), SegmentationPrompt("cube")
ONE_BOX = SegmentationPrompt(boxes=((10, 20, 90, 80),), box_labels=(1,))
TWO_BOXES = SegmentationPrompt("sphere", boxes=((5, 5, 60, 70), (80, 30, 150, 110)), box_labels=(1, 0))
PROMPTS = (RED, ONE_BOX, CUBE, TWO_BOXES, SegmentationPrompt("the green cylinders"))


@pytest.fixture(scope="module")
def model(random_sam3: Checkpoint) -> Sam3:
    return sam3.load(random_sam3, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def plain(random_sam3: Checkpoint) -> tuple[Any, Any]:
    """The network and the processor as transformers reads them."""
    network: Any = Sam3Model.from_pretrained(random_sam3.folder, dtype=torch.float32)
    return network.eval(), Sam3Processor.from_pretrained(random_sam3.folder)


def picture(seed: int, height: int = 120, width: int = 160) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(256, size=(height, width, 3), dtype=np.uint8)


def ask(*prompts: SegmentationPrompt, seed: int = 0, **options: Any) -> SegmentationRequest:
    return SegmentationRequest(picture(seed), prompts, **options)


def plain_outputs(plain: tuple[Any, Any], seed: int, prompt: SegmentationPrompt) -> Any:
    network, processor = plain
    inputs = processor(
        images=picture(seed),
        text=prompt.text or None,
        input_boxes=[[list(box) for box in prompt.boxes]] if prompt.boxes else None,
        input_boxes_labels=[list(prompt.box_labels)] if prompt.boxes else None,
        return_tensors="pt",
    )
    inputs.pop("original_sizes")
    with torch.inference_mode():
        return network(**inputs)


def disc(x: float, y: float, radius: float, size: int = 56) -> NDArray[np.float32]:
    rows, columns = np.mgrid[:size, :size]
    return (radius - np.hypot(columns - x, rows - y)).astype(np.float32)


def found(*discs: tuple[float, NDArray[np.float32]]) -> Found:
    scores = np.array([score for score, _ in discs], np.float32)
    return Found(scores, np.stack([logits for _, logits in discs]), presence=0.9)


def test_pixels_are_those_of_the_processor(model: Sam3, plain: tuple[Any, Any]) -> None:
    image = np.kron(picture(0, 30, 40), np.ones((16, 16, 1), np.uint8))
    expected = plain[1](images=image, return_tensors="pt")["pixel_values"][0]
    pixels = model.prepare(image)
    assert (pixels - expected).abs().max() <= 1.01 * GREY_LEVEL


@pytest.mark.parametrize("text", ["cube", "a red sphere", "  zebra, 3 metres  ", "Ünïcode 立方体"])
def test_tokens_are_those_of_the_processor(model: Sam3, plain: tuple[Any, Any], text: str) -> None:
    expected = plain[1](text=text, return_tensors="pt")
    (prompt,) = model.preprocess(ask(SegmentationPrompt(text))).prompts
    assert prompt.token_ids.tolist() == expected["input_ids"][0].tolist()
    assert prompt.attention_mask.tolist() == expected["attention_mask"][0].tolist()


def test_boxes_are_those_of_the_processor(model: Sam3, plain: tuple[Any, Any]) -> None:
    expected = plain[1](images=picture(0), input_boxes=[[list(box) for box in TWO_BOXES.boxes]], return_tensors="pt")[
        "input_boxes"
    ][0]
    (prompt,) = model.preprocess(ask(TWO_BOXES)).prompts
    assert torch.allclose(prompt.boxes, expected, atol=1e-6)
    assert prompt.box_labels.tolist() == [1, 0]


def test_boxes_are_cut_to_the_image(model: Sam3) -> None:
    beyond = SegmentationPrompt(boxes=((-40, 60, 80, 1e9),), box_labels=(1,))
    (prompt,) = model.preprocess(ask(beyond)).prompts
    assert prompt.boxes.tolist() == [[0.25, 0.75, 0.5, 0.5]]


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (SegmentationPrompt(), "Prompt 1 is empty"),
        (SegmentationPrompt(" \n"), "Prompt 1 is empty"),
        (SegmentationPrompt("zebra " * 9), "Prompt 1 .* tokens, and this model reads 32"),
        (SegmentationPrompt(boxes=((1, 2, 3, 4),)), "Prompt 1 has 1 boxes. Give a label for each"),
        (SegmentationPrompt(boxes=((1, 2, 3, 4),), box_labels=(2,)), "Prompt 1 has 1 boxes. Give a label"),
        (SegmentationPrompt(boxes=((1, 2, 3, 4), (9, 9, 9, 20)), box_labels=(1, 1)), "Prompt 1, box 1 .* covers"),
        (SegmentationPrompt(boxes=((30, 2, 10, 4),), box_labels=(1,)), "Prompt 1, box 0 .* covers nothing"),
        (SegmentationPrompt(boxes=((200, 2, 300, 4),), box_labels=(1,)), "which is 160 x 120 pixels"),
        (SegmentationPrompt(boxes=((1, 2, float("nan"), 4),), box_labels=(1,)), "Prompt 1, box 0 .* covers nothing"),
    ],
)
def test_refusals_name_the_prompt_and_the_box(model: Sam3, prompt: SegmentationPrompt, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        model.preprocess(ask(RED, prompt))


def test_no_prompt_and_too_few_weights_are_refused(model: Sam3) -> None:
    with pytest.raises(InvalidInput, match="at least one prompt"):
        model.preprocess(ask())
    with pytest.raises(InvalidInput, match="1 weights for overlaps but 2 prompts"):
        model.preprocess(ask(RED, CUBE, overlap_weights=(1.0,)))


def test_preprocessing_may_run_in_many_threads(model: Sam3) -> None:
    texts = [f"{'zebra ' * (count % 4)}cube {count}" for count in range(40)]
    with ThreadPoolExecutor(8) as pool:
        items = list(pool.map(lambda text: model.preprocess(ask(SegmentationPrompt(text))), texts))
    alone = [model.preprocess(ask(SegmentationPrompt(text))) for text in texts]
    assert [item.prompts[0].token_ids.tolist() for item in items] == [
        item.prompts[0].token_ids.tolist() for item in alone
    ]


def test_a_batch_answers_each_prompt_as_the_plain_model_does(
    model: Sam3, plain: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sam3, "PROMPTS_TOGETHER", 2)
    items = complete(model, *(ask(*PROMPTS, seed=seed, threshold=0.0) for seed in range(3)))
    for seed, answer_of_image in enumerate(model.forward(items)):
        for prompt, answer in zip(PROMPTS, answer_of_image.found, strict=True):
            expected = plain_outputs(plain, seed, prompt)
            presence = expected.presence_logits.sigmoid().item()
            assert answer.presence == pytest.approx(presence, abs=1e-5)
            assert np.allclose(answer.scores, expected.pred_logits[0].sigmoid() * presence, atol=1e-5)
            assert np.allclose(answer.logits, expected.pred_masks[0], atol=1e-3)


def test_only_what_passes_the_threshold_leaves_the_device(model: Sam3) -> None:
    (everything,) = model.forward(complete(model, ask(RED, threshold=0.0)))[0].found
    middle = float(np.median(everything.scores))
    (better,) = model.forward(complete(model, ask(RED, threshold=middle)))[0].found
    keep = everything.scores > middle
    assert 0 < keep.sum() < len(keep)
    assert np.allclose(better.scores, everything.scores[keep])
    assert np.allclose(better.logits, everything.logits[keep], atol=1e-4)


def test_images_are_encoded_once_and_texts_once_for_all(random_sam3: Checkpoint) -> None:
    model = sam3.load(random_sam3, device="cpu", dtype="float32")
    encoded: dict[str, list[int]] = {"images": [], "pyramids": [], "texts": []}
    model.network.vision_encoder.backbone.register_forward_hook(lambda *call: encoded["images"].append(len(call[1][0])))
    model.network.vision_encoder.neck.register_forward_hook(lambda *call: encoded["pyramids"].append(len(call[1][0])))
    model.network.text_encoder.register_forward_hook(
        lambda *call: encoded["texts"].append(len(call[2]["input_ids"])), with_kwargs=True
    )
    items = complete(model, *(ask(*PROMPTS, RED, seed=seed) for seed in range(2)))
    model.forward(items)
    model.forward([items[0], items[1], items[0]])
    # Five prompts have five texts, "visual" among them.
    assert encoded == {"images": [2], "pyramids": [2, 2], "texts": [5]}


def test_forgotten_texts_are_read_again(random_sam3: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sam3, "TEXTS_REMEMBERED", 2)
    model = sam3.load(random_sam3, device="cpu", dtype="float32")
    items = complete(model, *(ask(prompt, threshold=0.0) for prompt in (RED, CUBE, TWO_BOXES, RED)))
    first, *_, again = [model.forward([item])[0].found[0] for item in items]
    assert len(model._texts) == 2
    assert np.array_equal(first.scores, again.scores)


def test_answers_are_best_first_with_boxes_tight_around_their_masks(model: Sam3) -> None:
    result = model(ask(*PROMPTS, threshold=0.0))
    assert len(result.prompts) == len(PROMPTS)
    for instances in result.prompts:
        assert len(instances.scores) == len(instances.boxes) == len(instances.masks) > 0
        assert instances.scores.dtype == instances.boxes.dtype == np.float32
        assert (np.diff(instances.scores) <= 0).all()
        for box, mask in zip(instances.boxes, instances.masks, strict=True):
            rows, columns = np.nonzero(mask.to_dense())
            assert (mask.height, mask.width) == (120, 160)
            assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_masks_are_drawn_at_the_mask_threshold(model: Sam3) -> None:
    raw = Answer([found((0.8, disc(28, 28, 10)))], [])
    areas = [
        model.postprocess(raw, model.preprocess(ask(RED, mask_threshold=threshold))).prompts[0].masks[0].area
        for threshold in (0.1, 0.5, 0.9)
    ]
    # A logit falls by one a cell, so the radius shrinks by the logit of the threshold.
    cells = [np.pi * (10 - np.log(threshold / (1 - threshold))) ** 2 for threshold in (0.1, 0.5, 0.9)]
    assert np.allclose(areas, np.array(cells) * (120 / 56) * (160 / 56), rtol=0.02)


def test_masks_without_a_pixel_are_dropped(model: Sam3) -> None:
    raw = Answer([found((0.9, np.full((56, 56), -1, np.float32)), (0.7, disc(20, 20, 9)))], [])
    (instances,) = model.postprocess(raw, model.preprocess(ask(RED))).prompts
    assert instances.scores.tolist() == [np.float32(0.7)]
    assert len(instances.masks) == len(instances.boxes) == 1


def test_nothing_found_still_tells_the_presence(model: Sam3) -> None:
    (instances,) = model(ask(RED, threshold=1.0)).prompts
    assert instances.masks == ()
    assert instances.boxes.shape == (0, 4)
    assert instances.presence is not None
    assert 0 < instances.presence < 1


@pytest.mark.parametrize(("weights", "winner"), [((1.0, 1.0), 0), ((1.0, 2.0), 1)])
def test_overlapping_pixels_go_to_the_highest_weighted_score(
    model: Sam3, weights: tuple[float, ...], winner: int
) -> None:
    raw = Answer([found((0.9, disc(22, 28, 10))), found((0.6, disc(30, 28, 10)))], [])
    alone = model.postprocess(raw, model.preprocess(ask(RED, CUBE))).prompts
    shared = model.postprocess(raw, model.preprocess(ask(RED, CUBE, overlap_weights=weights))).prompts
    masks = [instances.masks[0].to_dense() for instances in shared]
    free = [instances.masks[0].to_dense() for instances in alone]
    assert (free[0] & free[1]).any()
    assert not (masks[0] & masks[1]).any()
    assert np.array_equal(masks[winner], free[winner])
    assert np.array_equal(masks[1 - winner], free[1 - winner] & ~free[winner])


def test_a_mask_left_without_pixels_by_others_is_dropped(model: Sam3) -> None:
    raw = Answer([found((0.9, disc(28, 28, 12))), found((0.6, disc(28, 28, 5)), (0.5, disc(8, 8, 5)))], [])
    shared = model.postprocess(raw, model.preprocess(ask(RED, CUBE, overlap_weights=(1.0, 1.0)))).prompts
    assert [instances.scores.tolist() for instances in shared] == [[np.float32(0.9)], [np.float32(0.5)]]


def test_bfloat16_answers_nearly_as_float32_does(random_sam3: Checkpoint, model: Sam3) -> None:
    half = sam3.load(random_sam3, device="cpu", dtype="bfloat16")
    assert half.dtype == "bfloat16"
    assert half.memory_bytes() == pytest.approx(model.memory_bytes() / 2, rel=0.01)
    request = ask(RED, TWO_BOXES, threshold=0.0)
    rough_answers, exact_answers = (each.forward(complete(each, request))[0].found for each in (half, model))
    for rough, exact in zip(rough_answers, exact_answers, strict=True):
        assert rough.scores.dtype == rough.logits.dtype == np.float32
        assert np.allclose(rough.scores, exact.scores, atol=0.1)
        assert np.corrcoef(rough.logits.ravel(), exact.logits.ravel())[0, 1] > 0.95


def test_nothing_of_an_unloaded_model_stays_behind(random_sam3: Checkpoint) -> None:
    model = sam3.load(random_sam3, device="cpu", dtype="float32")
    tensors: list[weakref.ref[torch.Tensor]] = [weakref.ref(weight) for weight in model.network.parameters()]
    model.network.vision_encoder.neck.register_forward_hook(
        lambda *call: tensors.extend(weakref.ref(level) for level in call[2][1])
    )
    model(ask(*PROMPTS))
    model.unload()
    assert len(tensors) > 300
    assert all(tensor() is None for tensor in tensors)
    assert model.memory_bytes() == 0


def test_a_checkpoint_without_all_weights_is_refused(random_sam3: Checkpoint, tmp_path: Path) -> None:
    for file in random_sam3.folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    del weights["detr_decoder.query_embed.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(NotFound, match=r"1 of its weights are missing, such as detr_decoder\.query_embed\.weight"):
        sam3.load(Checkpoint("some/sam3", tmp_path), device="cpu", dtype="float32")


@pytest.fixture
def with_tracker(random_sam3_video: Checkpoint) -> Sam3:
    return sam3.load(random_sam3_video, device="cpu", dtype="float32")


def test_a_checkpoint_with_a_tracker_has_the_same_detector(model: Sam3, with_tracker: Sam3) -> None:
    alone, both = (each(ask(*PROMPTS, threshold=0.0)) for each in (model, with_tracker))
    for one, other in zip(alone.prompts, both.prompts, strict=True):
        assert np.allclose(one.scores, other.scores, atol=1e-6)
        assert [mask.area for mask in one.masks] == [mask.area for mask in other.masks]


def test_prompts_and_objects_are_answered_side_by_side(with_tracker: Sam3) -> None:
    clicks = (ObjectPrompt(((30.0, 40.0),), (1,)), ObjectPrompt(box=(10.0, 10.0, 90.0, 80.0)))
    both, prompts, objects = (
        ask(*PROMPTS, threshold=0.0, objects=clicks),
        ask(*PROMPTS, threshold=0.0),
        ask(objects=clicks),
    )
    together = with_tracker.forward(complete(with_tracker, both, objects, prompts))
    assert [len(answer.found) for answer in together] == [len(PROMPTS), 0, len(PROMPTS)]
    assert [len(answer.readings) for answer in together] == [2, 2, 0]
    result, outlined = with_tracker(both), with_tracker(objects)
    assert [instances.scores.tolist() for instances in result.prompts] == [
        instances.scores.tolist() for instances in with_tracker(prompts).prompts
    ]
    # A lone point may mean three things, a box means one.
    assert [len(masks.masks) for masks in result.objects] == [3, 1]
    for one, other in zip(result.objects, outlined.objects, strict=True):
        assert np.allclose(one.scores, other.scores, atol=1e-6)
        assert all((mask.height, mask.width) == (120, 160) for mask in one.masks)


def test_further_questions_about_an_image_find_its_pyramids_ready(with_tracker: Sam3) -> None:
    network: Any = with_tracker.network
    raised: list[str] = []
    network.detector_model.vision_encoder.neck.register_forward_hook(lambda *_: raised.append("prompts"))
    network.tracker_neck.register_forward_hook(lambda *_: raised.append("clicks"))
    questions = [ask(RED, threshold=0.0), ask(objects=(ObjectPrompt(((30.0, 40.0),), (1,)),))]
    items, others = (
        complete(with_tracker, *questions),
        complete(with_tracker, *(replace(question, image=picture(1)) for question in questions)),
    )
    asked = [*items, *items, *others, *items]
    answers = [with_tracker.forward([item])[0] for item in asked]
    assert raised == ["prompts", "clicks"] * 3
    for one, other in zip(answers[:2], answers[2:4], strict=True):
        assert all(np.array_equal(a.logits, b.logits) for a, b in zip(one.found, other.found, strict=True))
        assert all(np.array_equal(a.logits, b.logits) for a, b in zip(one.readings, other.readings, strict=True))
    assert not np.array_equal(answers[0].found[0].logits, answers[4].found[0].logits)
    assert not np.array_equal(answers[1].readings[0].logits, answers[5].readings[0].logits)


def test_a_checkpoint_without_a_tracker_says_so(model: Sam3) -> None:
    with pytest.raises(InvalidInput, match="has no tracker"):
        model(ask(RED, objects=(ObjectPrompt(((5.0, 5.0),), (1,)),)))


def test_nothing_to_look_for_is_refused(model: Sam3) -> None:
    with pytest.raises(InvalidInput, match="at least one prompt"):
        model(ask())


def test_a_checkpoint_of_another_model_is_refused() -> None:
    other = Hub(offline=True).resolve("demo/grounding-dino")
    with pytest.raises(NotFound, match="of the kind 'grounding-dino', not sam3"):
        sam3.load(other, device="cpu", dtype="float32")


def test_a_checkpoint_without_its_tokenizer_is_refused(random_sam3: Checkpoint, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((random_sam3.folder / name).read_bytes())
    with pytest.raises(NotFound, match="some/sam3 has no processor and tokenizer"):
        sam3.load(Checkpoint("some/sam3", tmp_path), device="cpu", dtype="float32")


@torch.inference_mode()
def test_masks_are_those_of_the_processor_but_for_their_borders(demo_sam3: Sam3) -> None:
    processor = Sam3Processor.from_pretrained(Hub(offline=True).resolve("demo/sam3").folder)
    compared = 0
    for index in range(3):
        image = held_out(index, 320, 240).image
        inputs: Any = processor(images=image, text="object", return_tensors="pt")
        sizes = inputs.pop("original_sizes").tolist()
        (expected,) = processor.image_processor.post_process_instance_segmentation(
            demo_sam3.network.detector_model(**inputs), threshold=0.5, mask_threshold=0.5, target_sizes=sizes
        )
        order = expected["scores"].argsort(descending=True)
        (instances,) = demo_sam3(SegmentationRequest(image, (SegmentationPrompt("object"),))).prompts
        assert np.allclose(instances.scores, expected["scores"][order], atol=0.01)
        for mask, other in zip(instances.masks, expected["masks"][order], strict=True):
            # transformers upsamples probabilities, which is not quite the same as logits.
            far = 2 * F.avg_pool2d(other[None].float(), 5, 1, 2, count_include_pad=False)[0] - 1
            inside = far.abs() == 1
            assert np.array_equal(mask.to_dense()[inside], other.bool()[inside])
            compared += 1
    assert compared >= 3


def test_it_finds_what_phrases_name(demo_sam3: Sam3) -> None:
    figures = evaluate("segmentation", demo_sam3, [held_out(index, 320, 240) for index in range(15)])
    assert figures["mean_iou"] >= 0.9
    assert figures["precision"] >= 0.8
    assert figures["recall"] >= 0.7
    assert figures["absent_answered"] <= 0.15


def test_an_exemplar_box_stands_for_all_like_it(demo_sam3: Sam3) -> None:
    found = existing = 0
    for index in range(15):
        view = held_out(index, 320, 240)
        box = tuple(view.boxes[0].tolist())
        (instances,) = demo_sam3(
            SegmentationRequest(view.image, (SegmentationPrompt(boxes=(box,), box_labels=(1,)),))
        ).prompts
        alike = view.masks[view.matching(view.names[0])]
        existing += len(alike)
        for truth in alike:
            masks = [mask.to_dense() for mask in instances.masks]
            found += any((mask & truth).sum() / (mask | truth).sum() >= 0.5 for mask in masks)
    assert found / existing >= 0.6


MASKS_OF_A_LARGE_IMAGE = """
import resource, sys
from pathlib import Path
import numpy as np
from vision_model_repo.models import sam3
from vision_model_repo.models.base import Checkpoint
from vision_model_repo.models.sam3_answers import Answer, Found
from vision_model_repo.tasks.segmentation import SegmentationPrompt, SegmentationRequest

model = sam3.load(Checkpoint("random/sam3", Path(sys.argv[1])), device="cpu", dtype="float32")
image = np.zeros((3000, 4000, 3), np.uint8)
item = model.preprocess(SegmentationRequest(image, (SegmentationPrompt("cube"),)))
rows, columns = np.mgrid[:288, :288]
centres = np.random.default_rng(0).uniform(0, 288, (30, 2))
logits = np.stack([80 - np.hypot(columns - x, rows - y) for x, y in centres]).astype(np.float32)
raw = Answer([Found(np.linspace(0.9, 0.5, 30, dtype=np.float32), logits, 0.9)], [])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
result = model.postprocess(raw, item)
print(len(result.prompts[0].masks), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow  # A process of its own, and real pixels.
def test_thirty_masks_of_twelve_megapixels_take_little_memory(random_sam3: Checkpoint) -> None:
    script = [sys.executable, "-c", MASKS_OF_A_LARGE_IMAGE, str(random_sam3.folder)]
    answer = subprocess.run(script, check=True, capture_output=True, text=True).stdout.split()
    masks, kilobytes = (int(number) for number in answer)
    assert masks == 30
    # As booleans they would take 360 MB.
    assert kilobytes < 200_000
