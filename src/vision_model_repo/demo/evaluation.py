"""How right an answer is: figures over tabletop scenes, whoever gave the answers, a model in this process or a server.

A tally takes one answer after the other and gives its figures in the end. Training prints them, tests hold them, and
the self-test of an installation reports them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from vision_model_repo.demo.scenes import View, phrases
from vision_model_repo.formats.boxes import pairwise_iou
from vision_model_repo.formats.masks import RunLengths
from vision_model_repo.models.base import Model
from vision_model_repo.models.catalog import Task
from vision_model_repo.tasks.depth import DepthRequest
from vision_model_repo.tasks.detection import DetectionRequest, DetectionResult
from vision_model_repo.tasks.features import FeatureRequest
from vision_model_repo.tasks.segmentation import (
    ObjectMasks,
    ObjectPrompt,
    SegmentationPrompt,
    SegmentationRequest,
    SegmentationResult,
)

Pixel = TypeVar("Pixel", bound=np.generic)

MATCH = 0.5
"""Least overlap (intersection over union) at which an answer counts as the object."""
LEAST_SCORE = 0.05
"""How far down a ranking of detections goes."""
CROP_MARGIN = 1.3
"""Side of an object's crop as a multiple of its longer side."""


def questions(view: View, seed: int, *, absent: int = 4) -> list[str]:
    """Phrases to ask of a scene: what its objects are called, one shape, one colour, and some that fit nothing."""
    rng = np.random.default_rng([seed, 2])
    names = list(dict.fromkeys(view.names))
    shape, color = str(rng.choice(names)).split()[1], str(rng.choice(names)).split()[0]
    missing = [phrase for phrase in phrases() if not view.matching(phrase)]
    return [*names, shape, f"{color} object", *map(str, rng.choice(missing, absent, replace=False))]


@dataclass
class SegmentationTally:
    """Masks of phrases. An answer is right if it covers an object that the phrase names, each object once."""

    overlaps: list[float] = field(default_factory=list)
    predicted: int = 0
    existing: int = 0
    absent: int = 0
    answered: int = 0

    def add(self, view: View, phrase: str, masks: Sequence[RunLengths]) -> None:
        truth = view.masks[view.matching(phrase)]
        if not len(truth):
            self.absent += 1
            self.answered += bool(masks)
            return
        self.predicted += len(masks)
        self.existing += len(truth)
        overlap = np.array([[_mask_iou(mask.to_dense(), real) for real in truth] for mask in masks])
        self.overlaps += [float(overlap[pair]) for pair in match(overlap.reshape(len(masks), len(truth)))]

    def figures(self) -> dict[str, float]:
        """Mean overlap of matched masks, precision and recall of present phrases, share of absent ones answered."""
        return {
            "mean_iou": float(np.mean(self.overlaps)) if self.overlaps else 0.0,
            "precision": len(self.overlaps) / max(self.predicted, 1),
            "recall": len(self.overlaps) / max(self.existing, 1),
            "absent_answered": self.answered / max(self.absent, 1),
        }


@dataclass
class _Ranking:
    """Detections of one phrase over all scenes, right or wrong, by score."""

    scores: list[float] = field(default_factory=list)
    right: list[bool] = field(default_factory=list)
    existing: int = 0

    def average_precision(self) -> float:
        """Area under the precision envelope over recall."""
        right = np.array(self.right, bool)[np.argsort(-np.array(self.scores), kind="stable")]
        precision = np.cumsum(right) / np.arange(1, len(right) + 1)
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        return float(envelope[right].sum() / self.existing)


class DetectionTally:
    """Boxes of phrases. The ranking wants answers down to low scores; precision and recall count those above one."""

    def __init__(self, threshold: float = 0.4) -> None:
        self._threshold = threshold
        self._rankings: dict[str, _Ranking] = defaultdict(_Ranking)
        self._found = self._predicted = 0

    def add(self, view: View, asked: Sequence[str], result: DetectionResult) -> None:
        for phrase in asked:
            mine = np.array([label == phrase for label in result.labels], bool)
            boxes, scores = result.boxes[mine], result.scores[mine]
            truth = view.boxes[view.matching(phrase)]
            ranking = self._rankings[phrase]
            ranking.existing += len(truth)
            right = np.zeros(len(boxes), bool)
            right[[row for row, _ in match(pairwise_iou(boxes, truth), by_row=True)]] = True
            ranking.scores += scores.tolist()
            ranking.right += right.tolist()
            kept = scores > self._threshold
            self._predicted += int(kept.sum())
            self._found += int((right & kept).sum())

    def figures(self) -> dict[str, float]:
        """AP50 as the mean over phrases that name something somewhere; precision and recall above the threshold."""
        named = [ranking for ranking in self._rankings.values() if ranking.existing]
        return {
            "ap50": float(np.mean([ranking.average_precision() for ranking in named])),
            "precision": self._found / max(self._predicted, 1),
            "recall": self._found / max(sum(ranking.existing for ranking in named), 1),
        }


@dataclass
class DepthTally:
    """Metric depth maps at the scene's size."""

    everywhere: list[float] = field(default_factory=list)
    objects: list[float] = field(default_factory=list)

    def add(self, view: View, depth: NDArray[np.floating]) -> None:
        error = np.abs(depth - view.depth) / view.depth
        self.everywhere.append(float(error.mean()))
        if len(view.solids):
            self.objects.append(float(error[view.instances >= 0].mean()))

    def figures(self) -> dict[str, float]:
        """Mean absolute error relative to the true depth, over all pixels and over those of objects alone."""
        return {"abs_rel": float(np.mean(self.everywhere)), "abs_rel_objects": float(np.mean(self.objects))}


@dataclass
class FeatureTally:
    """Feature vectors of the crops that `object_crops` cuts."""

    vectors: list[NDArray[np.floating]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    scenes: list[int] = field(default_factory=list)

    def add(self, view: View, vectors: NDArray[np.floating]) -> None:
        """Vectors: (N, D), one for each visible object."""
        scene = self.scenes[-1] + 1 if self.scenes else 0
        self.vectors.append(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
        self.names += view.names
        self.scenes += [scene] * len(vectors)

    def figures(self) -> dict[str, float]:
        """Share of crops whose nearest crop of another scene, by cosine, has the same colour and shape."""
        vectors, scenes, names = np.concatenate(self.vectors), np.array(self.scenes), np.array(self.names)
        similarity = np.where(scenes[:, None] == scenes[None], -2.0, vectors @ vectors.T)
        return {"nearest_same": float((names[similarity.argmax(1)] == names).mean())}


def object_crops(view: View, margin: float = CROP_MARGIN) -> list[NDArray[np.uint8]]:
    """A square around each visible object, as far as the picture reaches."""
    return [crop_square(view.image, box, margin) for box in view.boxes]


def crop_square(image: NDArray[Pixel], box: NDArray[np.floating], margin: float) -> NDArray[Pixel]:
    x0, y0, x1, y1 = box
    half = margin * max(x1 - x0, y1 - y0) / 2
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    return image[max(0, int(y - half)) : int(y + half) + 1, max(0, int(x - half)) : int(x + half) + 1]


def match(overlap: NDArray[np.floating], *, by_row: bool = False) -> list[tuple[int, int]]:
    """Pairs of rows and columns that overlap by at least `MATCH`, each used once.

    Args:
        overlap: (N, M) of answers and truth.
        by_row: each row in turn takes what is left for it, as average precision wants it of ranked answers;
            otherwise the largest overlap comes first.
    """
    rows, columns = np.nonzero(overlap >= MATCH)
    order = np.lexsort((-overlap[rows, columns], rows)) if by_row else np.argsort(-overlap[rows, columns])
    pairs: list[tuple[int, int]] = []
    used_rows, used_columns = set[int](), set[int]()
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if row not in used_rows and column not in used_columns:
            used_rows.add(row)
            used_columns.add(column)
            pairs.append((row, column))
    return pairs


def _mask_iou(one: NDArray[np.bool_], two: NDArray[np.bool_]) -> float:
    return float((one & two).sum() / max((one | two).sum(), 1))


def evaluate(task: Task, model: Model, views: Iterable[View]) -> dict[str, float]:
    """The figures of a loaded model of some task on scenes, asked in the calling thread."""
    return _EVALUATIONS[task](model, views)


def _segmentation(model: Model, views: Iterable[View]) -> dict[str, float]:
    tally = SegmentationTally()
    for index, view in enumerate(views):
        asked = questions(view, index)
        prompts = tuple(SegmentationPrompt(phrase) for phrase in asked)
        result: SegmentationResult = model(SegmentationRequest(view.image, prompts))
        for phrase, instances in zip(asked, result.prompts, strict=True):
            tally.add(view, phrase, instances.masks)
    return tally.figures()


def _detection(model: Model, views: Iterable[View]) -> dict[str, float]:
    tally = DetectionTally()
    for index, view in enumerate(views):
        asked = questions(view, index)
        request = DetectionRequest(view.image, tuple(asked), box_threshold=LEAST_SCORE, text_threshold=LEAST_SCORE)
        tally.add(view, asked, model(request))
    return tally.figures()


def _depth(model: Model, views: Iterable[View]) -> dict[str, float]:
    tally = DepthTally()
    for view in views:
        tally.add(view, model(DepthRequest(view.image)).depth)
    return tally.figures()


def _features(model: Model, views: Iterable[View]) -> dict[str, float]:
    tally = FeatureTally()
    for view in views:
        results = [model(FeatureRequest(crop)) for crop in object_crops(view)]
        tally.add(view, np.stack([result.pooler_output for result in results]))
    return tally.figures()


def evaluate_clicks(model: Model, views: Iterable[View]) -> dict[str, float]:
    """How well single objects are outlined: mean overlap of the best reading of one click somewhere on each object, of
    the same after a second click where it was wrong, and of a box around each object."""
    overlaps: dict[str, list[float]] = {"click_iou": [], "corrected_iou": [], "box_iou": []}

    def outline(view: View, prompts: Sequence[ObjectPrompt]) -> tuple[ObjectMasks, ...]:
        result: SegmentationResult = model(SegmentationRequest(view.image, objects=tuple(prompts)))
        return result.objects

    for index, view in enumerate(views):
        if not len(view.solids):
            continue
        rng = np.random.default_rng([index, 3])
        clicks = [ObjectPrompt((_somewhere(mask, rng),), (1,)) for mask in view.masks]
        first = outline(view, clicks)
        corrected = outline(view, [_corrected(*each, rng) for each in zip(clicks, first, view.masks, strict=True)])
        boxed = outline(view, [ObjectPrompt(box=tuple(box.tolist())) for box in view.boxes])
        for name, answers in zip(overlaps, (first, corrected, boxed), strict=True):
            pairs = zip(answers, view.masks, strict=True)
            overlaps[name] += [_mask_iou(answer.masks[0].to_dense(), truth) for answer, truth in pairs]
    return {name: float(np.mean(values)) for name, values in overlaps.items()}


def _somewhere(mask: NDArray[np.bool_], rng: np.random.Generator) -> tuple[float, float]:
    """The middle of one of the mask's pixels, xy."""
    y, x = np.argwhere(mask)[rng.integers(int(mask.sum()))].tolist()
    return x + 0.5, y + 0.5


def _corrected(
    prompt: ObjectPrompt, answer: ObjectMasks, truth: NDArray[np.bool_], rng: np.random.Generator
) -> ObjectPrompt:
    """The prompt with one more click, where the best reading is wrong."""
    wrong = answer.masks[0].to_dense() != truth
    x, y = _somewhere(wrong if wrong.any() else truth, rng)
    label = int(truth[int(y), int(x)])
    return ObjectPrompt((*prompt.points, (x, y)), (*prompt.point_labels, label), logits=answer.logits[0])


_EVALUATIONS: dict[Task, Callable[[Model, Iterable[View]], dict[str, float]]] = {
    "segmentation": _segmentation,
    "detection": _detection,
    "depth": _depth,
    "features": _features,
}
