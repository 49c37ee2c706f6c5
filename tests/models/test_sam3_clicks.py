"""A click, a box or an earlier mask on the detector's features answers as transformers' own click model does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Sam3TrackerModel, Sam3VideoModel

from vision_model_repo.errors import InvalidInput
from vision_model_repo.models import sam3_clicks
from vision_model_repo.models.base import Checkpoint
from vision_model_repo.models.sam3_clicks import ClickDecoder, EncodedObject, Readings, encode_object
from vision_model_repo.tasks.segmentation import ObjectPrompt

HEIGHT, WIDTH, SIZE, MASK = 120, 160, 168, (56, 56)
POINT = ObjectPrompt(points=((40.0, 30.0),), point_labels=(1,))
OTHER_POINT = ObjectPrompt(points=((90.5, 71.25),), point_labels=(1,))
POINTS = ObjectPrompt(points=((40.0, 30.0), (80.0, 100.0), (12.5, 7.0)), point_labels=(1, 0, 1))
BOX = ObjectPrompt(box=(20.0, 10.0, 90.0, 80.0))
BOX_AND_POINT = ObjectPrompt(points=((50.0, 60.0),), point_labels=(0,), box=(20.0, 10.0, 90.0, 80.0))
EARLIER = np.random.default_rng(5).normal(scale=4, size=MASK).astype(np.float32)
REFINED = ObjectPrompt(points=((40.0, 30.0), (60.0, 60.0)), point_labels=(1, 0), logits=EARLIER)
BOX_AND_EARLIER = ObjectPrompt(box=(20.0, 10.0, 90.0, 80.0), logits=EARLIER)
ALL = (POINT, BOX, POINTS, OTHER_POINT, BOX_AND_POINT, REFINED, BOX_AND_EARLIER)


@pytest.fixture(scope="module")
def network(random_sam3_video: Checkpoint) -> Any:
    loaded: Any = Sam3VideoModel.from_pretrained(random_sam3_video.folder, dtype=torch.float32)
    return loaded.eval()


@pytest.fixture(scope="module")
def plain(network: Any) -> Any:
    """transformers' click model of the same weights, which it cannot read from a checkpoint of both by itself."""
    model: Any = Sam3TrackerModel(network.config.tracker_config)
    places = {
        "tracker_model.": "",
        "tracker_neck.": "vision_encoder.neck.",
        "detector_model.vision_encoder.backbone.": "vision_encoder.backbone.",
    }
    weights = {
        there + name.removeprefix(here): value
        for name, value in network.state_dict().items()
        for here, there in places.items()
        if name.startswith(here)
    }
    assert not model.load_state_dict(weights, strict=False).missing_keys
    return model.eval()


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def features(network: Any, pixels: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return network.detector_model.vision_encoder.backbone(pixels).last_hidden_state[0]


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def encode(prompt: ObjectPrompt, multimask: bool | None = None) -> EncodedObject:
    return encode_object(prompt, "Object 1", height=HEIGHT, width=WIDTH, mask_size=MASK, multimask=multimask)


def expected(plain: Any, pixels: torch.Tensor, prompt: ObjectPrompt, multimask: bool) -> Any:
    """What transformers answers, asked in pixels of its own input."""
    scale = torch.tensor([SIZE / WIDTH, SIZE / HEIGHT])
    return plain(
        pixel_values=pixels,
        input_points=torch.tensor(prompt.points)[None, None] * scale if prompt.points else None,
        input_labels=torch.tensor(prompt.point_labels)[None, None] if prompt.points else None,
        input_boxes=(torch.tensor(prompt.box) * scale.repeat(2))[None, None] if prompt.box else None,
        input_masks=None if prompt.logits is None else torch.from_numpy(prompt.logits)[None, None],
        multimask_output=multimask,
    )


def assert_close(readings: Readings, outputs: Any) -> None:
    scores = outputs.iou_scores[0, 0].numpy()
    order = np.argsort(-scores, kind="stable")
    np.testing.assert_allclose(readings.scores, scores[order], atol=1e-4)
    np.testing.assert_allclose(readings.logits, outputs.pred_masks[0, 0].numpy()[order], atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("multimask", [True, False])
@pytest.mark.parametrize("prompt", ALL)
def test_answers_are_those_of_transformers_own_click_model(
    network: Any, plain: Any, pixels: torch.Tensor, features: torch.Tensor, prompt: ObjectPrompt, multimask: bool
) -> None:
    (readings,) = ClickDecoder(network).decode(features, [encode(prompt, multimask)])
    assert readings.logits.shape == ((3 if multimask else 1), *MASK)
    assert readings.logits.dtype == readings.scores.dtype == np.float32
    assert_close(readings, expected(plain, pixels, prompt, multimask))


def test_objects_of_all_kinds_are_answered_together_as_alone(
    network: Any, features: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sam3_clicks, "OBJECTS_TOGETHER", 2)
    decoder = ClickDecoder(network)
    objects = [encode(prompt) for prompt in (*ALL, POINT, OTHER_POINT)]
    for item, readings in zip(objects, decoder.decode(features, objects), strict=True):
        (alone,) = decoder.decode(features, [item])
        np.testing.assert_allclose(readings.logits, alone.logits, atol=1e-4)
        np.testing.assert_allclose(readings.scores, alone.scores, atol=1e-5)


def test_different_points_give_different_masks(network: Any, features: torch.Tensor) -> None:
    one, two = ClickDecoder(network).decode(features, [encode(POINT), encode(OTHER_POINT)])
    assert np.abs(one.logits - two.logits).max() > 1e-2


def test_scores_come_best_first(network: Any, features: torch.Tensor) -> None:
    for readings in ClickDecoder(network).decode(features, [encode(prompt, True) for prompt in ALL]):
        assert (np.diff(readings.scores) <= 0).all()


def test_no_objects_are_no_answers(network: Any, features: torch.Tensor) -> None:
    assert ClickDecoder(network).decode(features, []) == []


def test_features_of_another_dtype_are_taken(network: Any, features: torch.Tensor) -> None:
    (readings,) = ClickDecoder(network).decode(features.double(), [encode(BOX)])
    (same,) = ClickDecoder(network).decode(features, [encode(BOX)])
    np.testing.assert_array_equal(readings.logits, same.logits)


def test_the_size_of_logits_is_known(network: Any) -> None:
    assert ClickDecoder(network).mask_size == MASK


@pytest.mark.parametrize(
    ("prompt", "multimask", "several"),
    [
        (POINT, None, True),
        (POINT, False, False),
        (BOX, None, False),
        (BOX, True, True),
        (POINTS, None, False),
        (BOX_AND_POINT, None, False),
        (ObjectPrompt(points=((4.0, 3.0),), point_labels=(1,), logits=EARLIER), None, False),
    ],
)
def test_several_readings_are_given_where_one_point_is_all_there_is(
    prompt: ObjectPrompt, multimask: bool | None, several: bool
) -> None:
    assert encode(prompt, multimask).multimask is several


def test_coordinates_become_relative_and_boxes_are_cut_to_the_image() -> None:
    prompt = ObjectPrompt(points=((40.0, 30.0), (160.0, 120.0)), point_labels=(1, 0), box=(-40.0, 60.0, 80.0, 1e9))
    encoded = encode(prompt)
    assert encoded.points.tolist() == [[0.25, 0.25], [1.0, 1.0]]
    assert encoded.point_labels.tolist() == [1, 0]
    assert encoded.box is not None
    assert encoded.box.tolist() == [0.0, 0.5, 0.5, 1.0]


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (ObjectPrompt(), "Object 1 has neither points nor a box. Give a point"),
        (ObjectPrompt(logits=EARLIER), "Object 1 has neither points nor a box"),
        (ObjectPrompt(points=((4.0, 3.0),)), r"Object 1 has 1 points and the labels \[\]. Give a label for each"),
        (ObjectPrompt(points=((4.0, 3.0),), point_labels=(2,)), "Give a label for each point: 1 on the object"),
        (ObjectPrompt(box=(1.0, 2.0, 3.0, 4.0), point_labels=(1,)), r"has 0 points and the labels \[1\]"),
        (ObjectPrompt(points=((4.0, 3.0),), point_labels=(0,)), "has no point on the object. Give one with label 1"),
        (
            ObjectPrompt(points=((4.0, 3.0), (161.0, 3.0)), point_labels=(1, 1)),
            "Object 1, point 1 .* outside the image, which is 160 x 120 pixels",
        ),
        (ObjectPrompt(points=((4.0, -0.5),), point_labels=(1,)), "point 0 .* outside"),
        (ObjectPrompt(points=((float("nan"), 3.0),), point_labels=(1,)), "point 0 .* outside"),
        (ObjectPrompt(box=(9.0, 9.0, 9.0, 20.0)), "Object 1, box .* covers nothing of the image"),
        (ObjectPrompt(box=(200.0, 2.0, 300.0, 4.0)), "covers nothing of the image, which is 160 x 120"),
        (ObjectPrompt(box=(1.0, 2.0, float("nan"), 4.0)), "covers nothing"),
        (
            ObjectPrompt(box=(1.0, 2.0, 3.0, 4.0), logits=np.zeros((3, *MASK), np.float32)),
            r"logits of shape \(3, 56, 56\), and this model's are \(56, 56\)",
        ),
        (
            ObjectPrompt(box=(1.0, 2.0, 3.0, 4.0), logits=np.full(MASK, np.inf, np.float32)),
            "logits that are not finite",
        ),
    ],
)
def test_refusals_name_the_object_and_say_what_to_do(prompt: ObjectPrompt, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        encode(prompt)
