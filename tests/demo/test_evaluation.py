"""The figures mean what they say."""

from __future__ import annotations

import numpy as np
import pytest

from vision_model_repo.demo.evaluation import (
    DepthTally,
    DetectionTally,
    FeatureTally,
    SegmentationTally,
    match,
    object_crops,
    questions,
)
from vision_model_repo.demo.scenes import View, render, sample_scene
from vision_model_repo.formats.masks import RunLengths, encode_mask
from vision_model_repo.tasks.detection import DetectionResult


@pytest.fixture
def view() -> View:
    return render(sample_scene(5), 96)


def masks_of(view: View, phrase: str) -> list[RunLengths]:
    return [encode_mask(mask) for mask in view.masks[view.matching(phrase)]]


def boxes_of(view: View, phrases: list[str]) -> DetectionResult:
    found = [(index, phrase) for phrase in phrases for index in view.matching(phrase)]
    boxes = np.array([view.boxes[index] for index, _ in found], np.float32).reshape(-1, 4)
    return DetectionResult(boxes, np.ones(len(found), np.float32), tuple(phrase for _, phrase in found))


def test_questions_name_every_object_and_some_things_that_are_not_there(view: View) -> None:
    asked = questions(view, 0)
    assert set(view.names) <= set(asked)
    assert sum(not view.matching(phrase) for phrase in asked) == 4
    assert asked == questions(view, 0)


def test_the_truth_is_perfect(view: View) -> None:
    segmentation, detection, asked = SegmentationTally(), DetectionTally(), questions(view, 0)
    for phrase in asked:
        segmentation.add(view, phrase, masks_of(view, phrase))
    detection.add(view, asked, boxes_of(view, asked))
    assert segmentation.figures() == {"mean_iou": 1.0, "precision": 1.0, "recall": 1.0, "absent_answered": 0.0}
    assert detection.figures() == {"ap50": 1.0, "precision": 1.0, "recall": 1.0}


def test_a_mask_twice_is_one_right_and_one_wrong(view: View) -> None:
    tally, name = SegmentationTally(), view.names[0]
    truth = masks_of(view, name)
    tally.add(view, name, [*truth, *truth])
    assert (tally.figures()["precision"], tally.figures()["recall"]) == (0.5, 1.0)


def test_an_answer_to_what_is_not_there_is_counted(view: View) -> None:
    tally = SegmentationTally()
    absent = questions(view, 0)[-1]
    tally.add(view, absent, [encode_mask(view.masks[0])])
    tally.add(view, absent, [])
    assert tally.figures()["absent_answered"] == 0.5


def test_average_precision_of_a_known_ranking(view: View) -> None:
    name = view.names[0]
    box, nowhere = view.boxes[view.matching(name)[:1]], np.array([[0, 0, 2, 2]], np.float32)
    tally = DetectionTally()
    tally.add(
        view, [name], DetectionResult(np.concatenate([nowhere, box]), np.array([0.9, 0.8], np.float32), (name,) * 2)
    )
    existing = len(view.matching(name))
    assert tally.figures() == {"ap50": 0.5 / existing, "precision": 0.5, "recall": 1 / existing}


def test_depth_twice_as_far_is_an_error_of_one(view: View) -> None:
    tally = DepthTally()
    tally.add(view, 2 * view.depth)
    assert tally.figures() == pytest.approx({"abs_rel": 1.0, "abs_rel_objects": 1.0})


def test_the_nearest_crop_is_looked_for_in_other_scenes() -> None:
    views = [render(sample_scene(seed, min_objects=2), 96) for seed in range(6)]
    kinds = sorted({name for view in views for name in view.names})
    tally = FeatureTally()
    for view in views:
        tally.add(view, np.eye(len(kinds))[[kinds.index(name) for name in view.names]])
    scenes_of = {kind: sum(kind in view.names for view in views) for kind in kinds}
    names = [name for view in views for name in view.names]
    assert tally.figures()["nearest_same"] == np.mean([scenes_of[name] > 1 for name in names])


def test_crops_are_square_and_centred_unless_the_picture_ends(view: View) -> None:
    for crop, box in zip(object_crops(view), view.boxes, strict=True):
        assert min(crop.shape[:2]) >= 0.5 * max(box[2] - box[0], box[3] - box[1])


def test_each_answer_and_each_object_is_matched_once() -> None:
    overlap = np.array([[0.6, 0.9], [0.0, 0.8], [0.55, 0.4]])
    assert sorted(match(overlap)) == [(0, 1), (2, 0)]
    assert match(overlap, by_row=True) == [(0, 1), (2, 0)]
    assert match(np.zeros((0, 3))) == []
