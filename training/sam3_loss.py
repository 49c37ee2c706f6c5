"""How wrong a prediction is: instances matched one to one, presence, and the union of all instances."""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import generalized_box_iou, sigmoid_focal_loss

from training.sam3_data import Batch, Dense
from training.sam3_model import Prediction, to_xyxy

Losses = dict[str, Tensor]


def detection_losses(prediction: Prediction, batch: Batch) -> Losses:
    """Every term, weighted, on every decoder layer where the term has one."""
    wanted = [
        batch.boxes[image][targets] for image, targets in zip(batch.image_index.tolist(), batch.targets, strict=True)
    ]
    present = torch.tensor([float(len(targets) > 0) for targets in batch.targets])
    count = max(1, sum(len(targets) for targets in batch.targets))
    layers = len(prediction.logits)
    losses: dict[str, Tensor] = {name: torch.zeros(()) for name in ("class", "l1", "giou", "presence")}
    matches: list[tuple[Tensor, Tensor]] = []
    for layer in range(layers):
        logits, boxes = prediction.logits[layer], prediction.boxes[layer]
        matches = [_match(logits[row], boxes[row], truth) for row, truth in enumerate(wanted)]
        positive = torch.zeros_like(logits)
        for row, (queries, _) in enumerate(matches):
            positive[row, queries] = 1.0
        chosen = torch.cat([boxes[row, queries] for row, (queries, _) in enumerate(matches)])
        truth = torch.cat([wanted[row][instances] for row, (_, instances) in enumerate(matches)])
        losses["class"] += 2 * sigmoid_focal_loss(logits, positive, alpha=0.5, gamma=1.0, reduction="sum") / count
        losses["l1"] += 5 * (chosen - truth).abs().sum() / count
        losses["giou"] += 2 * (1 - torch.diag(generalized_box_iou(to_xyxy(chosen), to_xyxy(truth)))).sum() / count
        losses["presence"] += F.binary_cross_entropy_with_logits(prediction.presence[layer], present)
    losses = {name: loss / layers for name, loss in losses.items()}
    losses |= _mask_losses(prediction, batch, matches, count) | _semantic_losses(prediction, batch)
    return losses if batch.exemplars is not None else losses | _alignment_losses(prediction, batch)


@torch.no_grad()
def _match(logits: Tensor, boxes: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """The assignment of queries to instances that costs least."""
    if not len(truth):
        return torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long)
    cost = 5 * torch.cdist(boxes, truth, p=1) - 2 * generalized_box_iou(to_xyxy(boxes), to_xyxy(truth))
    cost = cost - 2 * logits.sigmoid()[:, None]
    queries, instances = linear_sum_assignment(cost.numpy())
    return torch.from_numpy(queries), torch.from_numpy(instances)


def _mask_losses(
    prediction: Prediction, batch: Batch, matches: list[tuple[Tensor, Tensor]], count: int
) -> dict[str, Tensor]:
    rows = prediction.drawn.tolist()
    logits = torch.cat([prediction.masks[place, matches[row][0]] for place, row in enumerate(rows)])
    truth = torch.cat([batch.masks[int(batch.image_index[row])][batch.targets[row][matches[row][1]]] for row in rows])
    # The ground fills most of the picture: pixels near the object count more.
    near = 1 + 4 * F.max_pool2d(truth[:, None], 7, stride=1, padding=3)[:, 0]
    entropy = F.binary_cross_entropy_with_logits(logits, truth, weight=near, reduction="none").mean((1, 2)).sum()
    return {"mask": 3 * entropy / count, "dice": 3 * _dice(logits, truth).sum() / count}


def _semantic_losses(prediction: Prediction, batch: Batch) -> dict[str, Tensor]:
    rows = prediction.drawn.tolist()
    union = torch.stack(
        [batch.masks[int(batch.image_index[row])][batch.targets[row]].sum(0).clamp(max=1) for row in rows]
    )
    entropy = F.binary_cross_entropy_with_logits(prediction.semantic, union)
    return {"semantic": 2 * entropy + _dice(prediction.semantic, union).mean()}


def _alignment_losses(prediction: Prediction, batch: Batch) -> dict[str, Tensor]:
    """Draws the features of what a phrase names to its words.

    A product of two vectors is learned at once, where attention alone hardly ever begins to tell one word from
    another.
    """
    logits = 10 * prediction.alignment - 5
    size = (logits.shape[-2], logits.shape[-1])
    union = torch.stack(
        [
            F.adaptive_avg_pool2d(batch.masks[image][targets].sum(0, keepdim=True).clamp(max=1), size)[0]
            for image, targets in zip(batch.image_index.tolist(), batch.targets, strict=True)
        ]
    )
    present = union.amax((1, 2)) > 0
    entropy = F.binary_cross_entropy_with_logits(logits, union, pos_weight=torch.tensor(5.0))
    return {"alignment": 2 * entropy + 2 * _dice(logits[present], union[present]).mean()}


def naming_losses(features: Tensor, words: Tensor, truth: Dense, colors: int) -> Losses:
    """Names what every cell of the feature pyramid shows, among all colours and among all shapes.

    Words that mean nearly the same at first, as cube and cylinder do to a network that has just learnt to see, would
    be drawn together for good by their common pictures: told apart here, they stay apart.

    Args:
        features: (I, C, m, m), one level of the pyramid.
        words: (W, C) the mean features of each colour's name, then of each shape's.
        colors: how many of the words are colours.
    """
    stride = truth.colors.shape[-1] // features.shape[-1]
    centres = slice(stride // 2, None, stride)
    logits = 10 * torch.einsum("icyx,wc->iwyx", F.normalize(features, dim=1), F.normalize(words, dim=1))
    named = {"color": (logits[:, :colors], truth.colors), "shape": (logits[:, colors:], truth.shapes)}
    return {
        f"{name} names": F.cross_entropy(scores, labels[:, centres, centres], ignore_index=-1)
        for name, (scores, labels) in named.items()
    }


def _dice(logits: Tensor, truth: Tensor) -> Tensor:
    probability = logits.sigmoid()
    overlap = 2 * (probability * truth).sum((1, 2))
    return 1 - (overlap + 1) / (probability.sum((1, 2)) + truth.sum((1, 2)) + 1)


class DenseHead(nn.Module):
    """Colour, shape and inverse depth of every cell, straight from the backbone's patches; for pretraining alone."""

    def __init__(self, width: int, cells: int, colors: int, shapes: int) -> None:
        super().__init__()
        self.outputs = [colors, shapes, 2, 1]
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, sum(self.outputs) * cells * cells)
        self.unfold = nn.PixelShuffle(cells)

    def losses(self, tokens: Tensor, truth: Dense) -> tuple[Losses, dict[str, float]]:
        """Losses and accuracies from the backbone's tokens, (I, T, C)."""
        patches = self.out(self.norm(tokens))
        side = int(patches.shape[1] ** 0.5)
        cells = self.unfold(patches.transpose(1, 2).unflatten(2, (side, side)))
        colors, shapes, solid, depth = cells.split(self.outputs, dim=1)
        losses = {
            "solid": F.cross_entropy(solid, (truth.colors >= 0).long()),
            "color": F.cross_entropy(colors, truth.colors, ignore_index=-1),
            "shape": 2 * F.cross_entropy(shapes, truth.shapes, ignore_index=-1),
            "depth": F.l1_loss(depth[:, 0], truth.inverse_depth),
        }
        inside = truth.colors >= 0
        accuracy = {
            "color right": (colors.argmax(1) == truth.colors)[inside].float().mean().item(),
            "shape right": (shapes.argmax(1) == truth.shapes)[inside].float().mean().item(),
        }
        return losses, accuracy
