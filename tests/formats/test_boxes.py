from __future__ import annotations

import numpy as np

from vision_model_repo.formats.boxes import box_area, clip_boxes, non_maximum_suppression, pairwise_iou


def boxes(*rows: tuple[float, float, float, float]) -> np.ndarray:
    return np.array(rows, np.float32).reshape(-1, 4)


def test_boxes_are_cut_to_the_image() -> None:
    cut = clip_boxes(boxes((-5, 2, 30, 90), (50, 50, 60, 60)), 20, 40)
    assert cut.tolist() == [[0, 2, 20, 40], [20, 40, 20, 40]]
    assert cut.dtype == np.float32


def test_area_of_boxes_and_of_boxes_turned_inside_out() -> None:
    assert box_area(boxes((1, 1, 3, 6), (3, 6, 1, 1), (2, 2, 2, 9))).tolist() == [10, 0, 0]


def test_iou_of_equal_half_and_apart() -> None:
    iou = pairwise_iou(boxes((0, 0, 10, 10)), boxes((0, 0, 10, 10), (5, 0, 15, 10), (10, 0, 20, 10)))
    assert np.allclose(iou, [[1, 1 / 3, 0]])
    assert pairwise_iou(boxes((1, 1, 1, 1)), boxes((1, 1, 1, 1))).tolist() == [[0]]
    assert pairwise_iou(boxes(), boxes((0, 0, 1, 1))).shape == (0, 1)


def test_of_boxes_that_overlap_the_best_stays() -> None:
    found = boxes((0, 0, 10, 10), (1, 0, 11, 10), (20, 0, 30, 10), (0, 1, 10, 11))
    scores = np.array([0.5, 0.9, 0.3, 0.8], np.float32)
    assert non_maximum_suppression(found, scores, iou_threshold=0.5).tolist() == [1, 2]
    assert non_maximum_suppression(found, scores, iou_threshold=0.95).tolist() == [1, 3, 0, 2]


def test_a_suppressed_box_suppresses_no_other() -> None:
    chain = boxes((0, 0, 10, 10), (4, 0, 14, 10), (8, 0, 18, 10))
    kept = non_maximum_suppression(chain, np.array([0.9, 0.8, 0.7], np.float32), iou_threshold=0.4)
    assert kept.tolist() == [0, 2]


def test_the_earlier_of_equal_boxes_stays() -> None:
    twice = boxes((0, 0, 4, 4), (0, 0, 4, 4))
    assert non_maximum_suppression(twice, np.array([0.5, 0.5], np.float32), iou_threshold=0.5).tolist() == [0]


def test_classes_do_not_suppress_each_other() -> None:
    twice = boxes((0, 0, 4, 4), (0, 0, 4, 4), (0, 0, 4, 4))
    scores = np.array([0.5, 0.6, 0.7], np.float32)
    kept = non_maximum_suppression(twice, scores, iou_threshold=0.5, classes=np.array([0, 1, 0]))
    assert kept.tolist() == [2, 1]


def test_no_boxes_stay_none() -> None:
    assert non_maximum_suppression(boxes(), np.zeros(0, np.float32), iou_threshold=0.5).tolist() == []
