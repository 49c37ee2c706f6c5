"""Trains the embedded SAM3 checkpoint on the tabletop world.

    python -m training.data
    python -m training.sam3 --pretrain-minutes 12 --minutes 70

First the vision encoder learns to name every cell (colour, shape, depth); then everything learns together. The
schedule runs by the clock, so that a slower machine still ends with a finished, if weaker, model. A moving average of
the weights is what gets exported. `--resume` continues an interrupted run.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path
from typing import cast

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import nn
from tqdm import tqdm
from transformers import Sam3Model, Sam3Processor

from training.common import CHECKPOINTS, RUNS, Clock, Run, cosine, report, step, whiten
from training.data import SceneCache, held_out
from training.sam3_data import Sampler
from training.sam3_loss import DenseHead, detection_losses, naming_losses
from training.sam3_model import (
    BACKBONE_WIDTH,
    IMAGE_SIZE,
    MASK_SIZE,
    PATCH_SIZE,
    build_model,
    build_processor,
    calibrate,
    predict,
    words_of,
)
from vision_model_repo.demo.scenes import COLORS, SHAPES, View, phrases

POSITION_SCALE = 0.2
PRETRAINED = RUNS / "sam3" / "pretrained.pt"


class Learner(nn.Module):
    """What is trained: the network, and the head for dense pretraining that nothing stays of."""

    def __init__(self, network: Sam3Model, head: DenseHead) -> None:
        super().__init__()
        self.network, self.head = network, head


def pretrain(model: Sam3Model, head: DenseHead, sampler: Sampler, minutes: float) -> None:
    """Dense naming of every cell, which teaches the vision encoder what words will refer to.

    Two steps of three see parts of pictures, enlarged: on whole ones, where an object is three patches wide, cubes and
    cylinders stayed the same for thousands of steps, and what is learnt of them close up holds from afar.
    """
    backbone = model.vision_encoder.backbone
    embeddings = backbone.embeddings
    offset = whiten(embeddings.patch_embeddings.projection, sampler.batch(64, 1).pixels)
    # The projection has no bias of its own; positions, which are known from rotations too, begin small.
    embeddings.position_embeddings.data.mul_(POSITION_SCALE).add_(offset)
    optimizer = torch.optim.AdamW([*backbone.parameters(), *head.parameters()], weight_decay=0.01)
    clock, smooth, steps = Clock(minutes), {}, tqdm(desc="pretrain", mininterval=10)
    while clock.progress < 1:
        close = steps.n % 3 > 0
        pixels, truth = sampler.closeups(12) if close else sampler.whole(12)
        losses, accuracy = head.losses(backbone(pixels).last_hidden_state, truth)
        if close:
            # An enlarged part does not show how far away it is.
            del losses["depth"]
        step(optimizer, sum(losses.values(), torch.zeros(())), 1.5e-3 * cosine(clock.progress))
        report(steps, smooth, accuracy)


def train(run: Run, processor: Sam3Processor, sampler: Sampler, arguments: argparse.Namespace) -> None:
    """Everything together. The dense losses stay on: without them the backbone soon forgets shapes."""
    learner, average = cast(Learner, run.model), cast(Learner, run.average).network
    model = learner.network
    names = processor.tokenizer([*COLORS, *SHAPES], return_tensors="pt", padding=True)
    saved, smooth, steps = run.clock.minutes, {}, tqdm(desc="train", initial=run.steps, mininterval=10)
    while run.clock.progress < 1:
        sampler.hardness = min(1.0, 3 * run.clock.progress)
        batch = sampler.batch(arguments.images, arguments.prompts, with_boxes=run.steps % 6 == 5, dense=True)
        vision = model.vision_encoder(batch.pixels)
        prediction = predict(
            model,
            vision,
            batch.image_index,
            batch.input_ids,
            batch.attention_mask,
            batch.exemplars,
            batch.exemplar_labels,
            drawn=torch.tensor([row for row, targets in enumerate(batch.targets) if len(targets)]),
        )
        losses = detection_losses(prediction, batch)
        assert batch.dense is not None
        dense, _ = learner.head.losses(vision.last_hidden_state, batch.dense)
        losses |= naming_losses(vision.fpn_hidden_states[-2], words_of(model, names), batch.dense, len(COLORS))
        losses["dense"] = 0.5 * sum(dense.values(), torch.zeros(()))
        run.learn(sum(losses.values(), torch.zeros(())), arguments.learning_rate)
        report(steps, smooth, {name: loss.item() for name, loss in losses.items()})
        if run.clock.minutes - saved > arguments.save_minutes:
            saved = run.clock.minutes
            run.save()
            export(average, processor, arguments.output)
            figures = evaluate(average, processor, [held_out(index) for index in range(40)])
            tqdm.write(f"{run.clock.minutes:.1f} min, {run.steps} steps: {figures}")


def export(model: Sam3Model, processor: Sam3Processor, folder: Path) -> None:
    """Writes the checkpoint in half precision, which `evaluate` shows to cost nothing."""
    half = copy.deepcopy(model).half()
    half.save_pretrained(folder)
    processor.save_pretrained(folder)


@torch.inference_mode()
def evaluate(model: Sam3Model, processor: Sam3Processor, views: list[View]) -> dict[str, float]:
    """Figures over every phrase of the world, on every view: mean IoU of matched masks, precision and recall of
    present phrases, and the share of absent phrases that were answered with a mask."""
    model.eval()
    words = phrases()
    tokens = processor.tokenizer(words, return_tensors="pt", padding=True)
    overlaps: list[float] = []
    found = predicted = existing = absent = answered = 0
    for view in views:
        pixels = processor.image_processor(view.image, return_tensors="pt")["pixel_values"]
        vision = model.vision_encoder(pixels)
        index = torch.zeros(len(words), dtype=torch.long)
        output = predict(model, vision, index, tokens["input_ids"], tokens["attention_mask"])
        scores = output.logits[-1].sigmoid() * output.presence[-1].sigmoid()[:, None]
        for row, phrase in enumerate(words):
            kept = scores[row] > 0.5
            truth = view.masks[view.matching(phrase)]
            if not len(truth):
                absent += 1
                answered += bool(kept.any())
                continue
            existing, predicted = existing + len(truth), predicted + int(kept.sum())
            if not kept.any():
                continue
            masks = nn.functional.interpolate(output.masks[row : row + 1, kept], view.image.shape[:2], mode="bilinear")
            iou = _overlap(masks[0].numpy() > 0, truth)
            rows, columns = linear_sum_assignment(-iou)
            matched = [value for value in iou[rows, columns] if value >= 0.5]
            overlaps += matched
            found += len(matched)
    model.train()
    return {
        "iou": round(float(np.mean(overlaps)) if overlaps else 0.0, 3),
        "precision": round(found / max(predicted, 1), 3),
        "recall": round(found / max(existing, 1), 3),
        "absent_answered": round(answered / max(absent, 1), 3),
    }


def _overlap(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    one, two = (
        predicted.reshape(len(predicted), -1).astype(np.float32),
        truth.reshape(len(truth), -1).astype(np.float32),
    )
    shared = one @ two.T
    return shared / np.maximum(one.sum(1)[:, None] + two.sum(1)[None] - shared, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pretrain-minutes", type=float, default=30)
    parser.add_argument("--minutes", type=float, default=70)
    parser.add_argument("--save-minutes", type=float, default=6)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--reuse-backbone", action="store_true", help="skip pretraining and take the last one's")
    parser.add_argument("--freeze-encoder", action="store_true", help="train only what is above the vision encoder")
    parser.add_argument("--output", type=Path, default=CHECKPOINTS / "sam3")
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(1)

    processor = build_processor()
    model = build_model(processor.tokenizer)
    # Not `model.to`, which transformers wraps beyond the reach of type checkers.
    nn.Module.to(model, memory_format=torch.channels_last)
    head = DenseHead(BACKBONE_WIDTH, MASK_SIZE * PATCH_SIZE // IMAGE_SIZE, len(COLORS), len(SHAPES))
    learner = Learner(model, head)
    sampler = Sampler(SceneCache(), processor.tokenizer, arguments.seed)
    if arguments.reuse_backbone:
        learner.load_state_dict(torch.load(PRETRAINED, weights_only=True), strict=False)
    elif not arguments.resume:
        pretrain(model, head, sampler, arguments.pretrain_minutes)
        PRETRAINED.parent.mkdir(parents=True, exist_ok=True)
        kept = ("network.vision_encoder.backbone.", "head.")
        torch.save({k: v for k, v in learner.state_dict().items() if k.startswith(kept)}, PRETRAINED)
    vision = model.vision_encoder
    calibrate(vision.backbone, vision.neck, sampler.batch(32, 1).pixels)
    vision.backbone.requires_grad_(not arguments.freeze_encoder)
    weights = [weight for weight in learner.parameters() if weight.requires_grad]
    run = Run("sam3", learner, torch.optim.AdamW(weights, weight_decay=0.02), arguments.minutes)
    if arguments.resume:
        run.resume()
    train(run, processor, sampler, arguments)
    average = cast(Learner, run.average).network
    export(average, processor, arguments.output)
    print(evaluate(average, processor, [held_out(index) for index in range(500)]))


if __name__ == "__main__":
    main()
