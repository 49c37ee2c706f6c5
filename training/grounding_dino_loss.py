"""Set losses of Grounding DINO: Hungarian matching, focal loss on tokens, L1 and GIoU on boxes.

As in DETR (Carion et al., 2020) and Grounding DINO (Liu et al., 2023), for the proposals of the encoder and for
every layer of the decoder. An object that several phrases name is positive for the tokens of all of them, which the
loss inside transformers, one class an object, cannot express.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchvision.ops import box_convert, generalized_box_iou_loss
from transformers import GroundingDinoForObjectDetection

from training.grounding_dino_data import Batch

ALPHA = 0.4
"""Weight of positive tokens in the focal loss; the 0.25 of the papers leaves true objects under the threshold."""
GAMMA = 2.0
CLASS_WEIGHT, L1_WEIGHT, GIOU_WEIGHT = 1.0, 5.0, 2.0
PROPOSALS_PER_OBJECT = 4
"""Proposals of the encoder trained to be the same object: few enough for all objects to find room in the queries."""


def detection_loss(
    model: GroundingDinoForObjectDetection, outputs: Any, batch: Batch
) -> tuple[Tensor, dict[str, float]]:
    """The loss of all stages.

    Args:
        outputs: what the model's forward returned for `batch.inputs`.

    Returns:
        the sum to minimise, and the parts of the encoder and of the last decoder layer for the log.
    """
    real = batch.inputs["attention_mask"].bool()
    total = torch.zeros(())
    log: dict[str, float] = {}
    found = _stages(model, outputs, real.shape[1])
    for number, (logits, boxes) in enumerate(found):
        repeats = PROPOSALS_PER_OBJECT if number == 0 else 1
        parts = _stage_loss(logits.masked_fill(~real[:, None], -30.0), boxes, batch, real, repeats)
        total = total + CLASS_WEIGHT * parts[0] + L1_WEIGHT * parts[1] + GIOU_WEIGHT * parts[2]
        if number in (0, len(found) - 1):
            prefix = "encoder_" if number == 0 else ""
            log |= {f"{prefix}{key}": part.item() for key, part in zip(("class", "l1", "giou"), parts, strict=True)}
    return total, log


def _stages(model: GroundingDinoForObjectDetection, outputs: Any, length: int) -> list[tuple[Tensor, Tensor]]:
    """Token logits (B, Q, T) and boxes (B, Q, 4) of the encoder's proposals, then of each decoder layer."""
    found = [(outputs.enc_outputs_class[..., :length], outputs.enc_outputs_coord_logits.sigmoid())]
    text = outputs.encoder_last_hidden_state_text
    references = [outputs.init_reference_points, *outputs.intermediate_reference_points.unbind(1)]
    for layer, hidden in enumerate(outputs.intermediate_hidden_states.unbind(1)):
        deltas = model.bbox_embed[layer](hidden)
        boxes = (deltas + torch.special.logit(references[layer], eps=1e-5)).sigmoid()
        found.append((hidden @ text.transpose(1, 2), boxes))
    return found


def _stage_loss(
    logits: Tensor, boxes: Tensor, batch: Batch, real: Tensor, repeats: int
) -> tuple[Tensor, Tensor, Tensor]:
    rows, queries, objects = _match(logits.detach(), boxes.detach(), batch, repeats)
    targets = torch.zeros_like(logits)
    targets[rows, queries] = batch.positives[rows, objects]
    normaliser = max(len(rows), 1)
    classes = (_focal(logits, targets) * real[:, None]).sum() / normaliser
    matched, truth = boxes[rows, queries], batch.boxes[rows, objects]
    l1 = F.l1_loss(matched, truth, reduction="sum") / normaliser
    giou = generalized_box_iou_loss(_corners(matched), _corners(truth), reduction="sum") / normaliser
    return classes, l1, giou


def _focal(logits: Tensor, targets: Tensor) -> Tensor:
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    probability = logits.sigmoid()
    miss = probability + targets - 2 * probability * targets
    return (ALPHA * targets + (1 - ALPHA) * (1 - targets)) * miss**GAMMA * entropy


@torch.no_grad()
def _match(logits: Tensor, boxes: Tensor, batch: Batch, repeats: int) -> tuple[Tensor, Tensor, Tensor]:
    """Image, query and object index of each matched pair; every object is matched `repeats` times."""
    probability = logits.sigmoid()
    positive = ALPHA * (1 - probability) ** GAMMA * -F.logsigmoid(logits)
    negative = (1 - ALPHA) * probability**GAMMA * -F.logsigmoid(-logits)
    weights = batch.positives / batch.positives.sum(-1, keepdim=True).clamp(min=1)
    cost = 2 * CLASS_WEIGHT * (positive - negative) @ weights.transpose(1, 2)
    cost += L1_WEIGHT * (boxes[:, :, None] - batch.boxes[:, None]).abs().sum(-1)
    cost -= GIOU_WEIGHT * _pairwise_giou(_corners(boxes), _corners(batch.boxes))
    table = np.nan_to_num(cost.numpy(), nan=1e4, posinf=1e4)
    rows, queries, objects = [], [], []
    for row, count in enumerate(batch.counts):
        query, column = linear_sum_assignment(np.tile(table[row, :, :count], repeats))
        rows += [row] * len(query)
        queries += query.tolist()
        objects += (column % max(count, 1)).tolist()
    return (
        torch.tensor(rows, dtype=torch.long),
        torch.tensor(queries, dtype=torch.long),
        torch.tensor(objects, dtype=torch.long),
    )


def _corners(boxes: Tensor) -> Tensor:
    return box_convert(boxes, "cxcywh", "xyxy")


def _pairwise_giou(first: Tensor, second: Tensor) -> Tensor:
    """Generalised IoU of (B, N, 4) and (B, M, 4) xyxy boxes, (B, N, M)."""
    first, second = first[:, :, None], second[:, None]
    overlap = (torch.minimum(first[..., 2:], second[..., 2:]) - torch.maximum(first[..., :2], second[..., :2])).clamp(
        min=0
    )
    hull = torch.maximum(first[..., 2:], second[..., 2:]) - torch.minimum(first[..., :2], second[..., :2])
    intersection, enclosing = overlap.prod(-1), hull.prod(-1)
    areas = (first[..., 2:] - first[..., :2]).prod(-1) + (second[..., 2:] - second[..., :2]).prod(-1)
    union = areas - intersection
    return intersection / union.clamp(min=1e-9) - (enclosing - union) / enclosing.clamp(min=1e-9)
