"""How well a Grounding DINO finds what the phrases of a request name: AP50, precision and recall.

    python -m training.grounding_dino_metrics --scenes 500 --width 640 --height 480

prints the figures of the embedded checkpoint on held-out scenes.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.ops import box_convert
from transformers import GroundingDinoForObjectDetection, GroundingDinoProcessor

from training.data import held_out
from training.grounding_dino_data import MAX_PHRASES, encode, sample_request
from training.grounding_dino_model import CHECKPOINT
from vision_model_repo.demo.scenes import View

BOX_THRESHOLD = 0.4
TEXT_THRESHOLD = 0.3


class Tally:
    """Scored detections of one phrase, each right or wrong, and how many objects there were to find."""

    def __init__(self) -> None:
        self.scores: list[float] = []
        self.right: list[bool] = []
        self.objects = 0

    def add(self, scores: NDArray[np.float32], boxes: NDArray[np.float32], truth: NDArray[np.float32]) -> None:
        """One image's detections, matched to the truth greedily from the highest score at IoU 0.5."""
        self.objects += len(truth)
        free = np.ones(len(truth), bool)
        overlaps = _iou(boxes, truth)
        for index in np.argsort(-scores):
            overlap = np.where(free, overlaps[index], 0)
            hit = bool(len(truth)) and bool(overlap.max() >= 0.5)
            if hit:
                free[overlap.argmax()] = False
            self.scores.append(float(scores[index]))
            self.right.append(hit)

    def average_precision(self) -> float:
        """Area under the precision envelope over recall."""
        right = np.asarray(self.right)[np.argsort(-np.asarray(self.scores), kind="stable")]
        hits = np.cumsum(right)
        precision = np.maximum.accumulate((hits / np.arange(1, len(hits) + 1))[::-1])[::-1]
        return float(precision[right].sum() / self.objects)


def evaluate(
    model: GroundingDinoForObjectDetection,
    processor: GroundingDinoProcessor,
    scenes: Sequence[View],
    *,
    most: int = MAX_PHRASES,
) -> dict[str, float]:
    """Asks every scene for one to `most` phrases, present and absent, in one request.

    A query scores for a phrase by the largest probability of the phrase's tokens.

    Returns:
        ap50: the mean over phrases that occur, as usual for detection; ap50_pooled: all phrases in one ranking;
        precision, recall: at box threshold 0.4 and text threshold 0.3; absent_answered: the share of phrases true
        of nothing in their scene that get a detection all the same.
    """
    model.eval()
    every, kept = defaultdict[str, Tally](Tally), Tally()
    pooled = Tally()
    absent, answered = 0, 0
    for index, view in enumerate(scenes):
        request = sample_request(np.random.default_rng([index, 7]), view.names, most)
        scores, strongest, boxes = detect(model, processor, view, request)
        for phrase, phrase_scores in zip(request, scores, strict=True):
            truth = view.boxes[view.matching(phrase)]
            accepted = (strongest > BOX_THRESHOLD) & (phrase_scores > TEXT_THRESHOLD)
            for tally in (every[phrase], pooled):
                tally.add(phrase_scores, boxes, truth)
            kept.add(phrase_scores[accepted], boxes[accepted], truth)
            if not len(truth):
                absent, answered = absent + 1, answered + bool(accepted.any())
    return {
        "ap50": float(np.mean([tally.average_precision() for tally in every.values() if tally.objects])),
        "ap50_pooled": pooled.average_precision(),
        "precision": sum(kept.right) / max(len(kept.right), 1),
        "recall": sum(kept.right) / max(kept.objects, 1),
        "absent_answered": answered / max(absent, 1),
    }


@torch.inference_mode()
def detect(
    model: GroundingDinoForObjectDetection, processor: GroundingDinoProcessor, view: View, request: list[str]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Scores of each phrase for each query (P, Q), the best of any token (Q,) and boxes (Q, 4), xyxy in pixels."""
    text = ". ".join(request) + "."
    inputs = cast(Any, processor)(images=Image.fromarray(view.image), text=text, return_tensors="pt")
    tokens, spans = encode(processor, request)
    if inputs["input_ids"][0].tolist() != tokens:
        raise ValueError(f"the processor splits {request} differently from training")
    outputs = model(**inputs)
    probability = outputs.logits[0, :, : len(tokens)].sigmoid()
    scores = torch.stack([probability[:, span].amax(-1) for span in spans])
    height, width = view.image.shape[:2]
    boxes = box_convert(outputs.pred_boxes[0], "cxcywh", "xyxy") * torch.tensor([width, height, width, height])
    return scores.numpy(), probability.amax(-1).numpy(), boxes.numpy()


def _iou(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    """IoU of (N, 4) and (M, 4) xyxy boxes, (N, M)."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    intersection = np.clip(high - low, 0, None).prod(-1)
    areas = (first[:, 2:] - first[:, :2]).prod(-1)[:, None] + (second[:, 2:] - second[:, :2]).prod(-1)[None]
    return intersection / np.maximum(areas - intersection, 1e-9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=500)
    parser.add_argument("--width", type=int, default=224, help="pixels of the rendered scenes")
    parser.add_argument("--height", type=int, default=224)
    parser.add_argument("--most", type=int, default=MAX_PHRASES, help="phrases in a request at most")
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    arguments = parser.parse_args()
    model = GroundingDinoForObjectDetection.from_pretrained(arguments.checkpoint, dtype=torch.float32)
    processor = GroundingDinoProcessor.from_pretrained(arguments.checkpoint)
    scenes = [held_out(index, arguments.width, arguments.height) for index in range(arguments.scenes)]
    print(json.dumps(evaluate(model, processor, scenes, most=arguments.most), indent=2))


if __name__ == "__main__":
    main()
