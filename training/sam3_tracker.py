"""Trains what answers clicks in the embedded SAM3 checkpoint, above the frozen image encoder of its detector.

    python -m training.sam3
    python -m training.sam3_tracker --minutes 20

The detector and the tracker of SAM 3 share one image encoder, so this comes second and leaves the detector as it is.
The tracker's memory, which video needs, stays untrained and small.
"""

from __future__ import annotations

import argparse
import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm
from transformers import Sam3Model, Sam3Processor, Sam3VideoConfig, Sam3VideoModel

from training.common import CHECKPOINTS, Run, initialise, report
from training.data import SceneCache, held_out
from training.sam3_data import Batch, Sampler
from training.sam3_model import IMAGE_SIZE, MASK_SIZE, PATCH_SIZE, WIDTH, calibrate
from vision_model_repo.demo.evaluation import evaluate_clicks
from vision_model_repo.models.base import Checkpoint
from vision_model_repo.models.sam3 import Sam3
from vision_model_repo.models.sam3_clicks import ClickDecoder, Prompts

GRID = IMAGE_SIZE // PATCH_SIZE
COARSE_SCALE = 0.4
SHARPNESS = 1.5
INSIDE = 0.6
"""Share of a cell that an object must cover for a click there to mean it."""


def build_model(detector: Sam3Model, pixels: Tensor) -> Sam3VideoModel:
    """A model of both kinds around a detector, whose tracker is yet to be trained.

    Args:
        pixels: (B, 3, 168, 168), some pictures to calibrate by.
    """
    vision = cast(Any, detector.config.vision_config).to_dict()
    # The pyramid's lowest level is of use to the detector alone.
    vision |= {"scale_factors": [4.0, 2.0, 1.0]}
    tracker = {
        "vision_config": vision,
        "prompt_encoder_config": {"hidden_size": WIDTH, "image_size": IMAGE_SIZE, "patch_size": PATCH_SIZE},
        "mask_decoder_config": {
            "hidden_size": WIDTH,
            "num_attention_heads": 4,
            "mlp_dim": 2 * WIDTH,
            "iou_head_hidden_dim": WIDTH,
        },
        "image_size": IMAGE_SIZE,
        "memory_attention_hidden_size": WIDTH,
        "memory_attention_num_layers": 1,
        "memory_attention_feed_forward_hidden_size": WIDTH,
        "memory_attention_rope_feat_sizes": [GRID, GRID],
        "memory_encoder_hidden_size": WIDTH,
        "memory_encoder_output_channels": WIDTH // 4,
        "mask_downsampler_embed_dim": WIDTH,
        "memory_fuser_num_layers": 1,
        "memory_fuser_embed_dim": WIDTH,
        "memory_fuser_intermediate_dim": WIDTH,
    }
    network: Any = Sam3VideoModel(Sam3VideoConfig(detector_config=detector.config.to_dict(), tracker_config=tracker))
    network.detector_model.load_state_dict(detector.state_dict())
    # Levels that already tell objects apart. Trained on, they soon drown the positions of clicks.
    network.tracker_neck.load_state_dict(network.detector_model.vision_encoder.neck.state_dict(), strict=False)
    calibrate(network.detector_model.vision_encoder.backbone, network.tracker_neck, pixels)
    initialise(network.tracker_model)
    spread(network.tracker_model, network.tracker_neck)
    network.requires_grad_(False)
    for part in trained_parts(network):
        part.requires_grad_(True)
    # Random and never trained: a click and a pixel at one place have to agree.
    network.tracker_model.prompt_encoder.shared_embedding.requires_grad_(False)
    return network


@torch.no_grad()
def spread(tracker: Any, neck: Any) -> None:
    """Beyond Xavier: lets a click find its place in the picture, and what lies there, from the first step on.

    Positions are louder than what the coarse level shows, where the neck as it is drowns them ten times over. Points
    and pixels have one encoding of positions, which a model built from its configuration has twice. Where they
    attend to each other, both sides are projected alike, and what is found is handed on as it is.
    """
    for weight in neck.fpn_layers[2].proj2.parameters():
        weight.mul_(COARSE_SCALE)
    positions = tracker.shared_image_embedding.positional_embedding
    tracker.prompt_encoder.shared_embedding.positional_embedding.copy_(positions)
    nn.init.normal_(tracker.prompt_encoder.point_embed.weight, std=0.3)
    nn.init.normal_(tracker.no_memory_embedding, std=0.1)
    transformer = tracker.mask_decoder.transformer
    crossings = [layer.cross_attn_token_to_image for layer in transformer.layers]
    crossings += [layer.cross_attn_image_to_token for layer in transformer.layers]
    for attention in (*crossings, transformer.final_attn_token_to_image):
        attention.k_proj.weight.mul_(SHARPNESS)
        attention.q_proj.weight.copy_(attention.k_proj.weight)
        attention.o_proj.weight.copy_(attention.v_proj.weight.T)


def trained_parts(network: Any) -> list[nn.Module]:
    tracker = network.tracker_model
    return [tracker.prompt_encoder, tracker.mask_decoder]


@dataclass
class Asked:
    """B prompts about objects: which image each is about (B,), and the cells (B, M, M) that the object covers."""

    rows: Tensor
    truth: Tensor
    prompts: Prompts


def ask(batch: Batch, each: int, rng: np.random.Generator) -> Asked:
    """A click on, or a box around, some objects of every image; all of one kind."""
    rows, truth, boxes = [], [], []
    for row, (masks, corners) in enumerate(zip(batch.masks, batch.boxes, strict=True)):
        visible = [index for index in range(len(masks)) if masks[index].amax() > INSIDE]
        for index in rng.permutation(visible)[:each]:
            rows.append(row)
            truth.append(masks[index])
            boxes.append(corners[index])
    masks, corners = torch.stack(truth), torch.stack(boxes)
    if rng.random() < 0.35:
        centres, sizes = corners[:, :2], corners[:, 2:]
        # A person's box is never exact.
        edges = torch.cat([centres - sizes / 2, centres + sizes / 2], 1) + 0.06 * sizes.repeat(1, 2) * torch.randn(1, 4)
        prompts = Prompts(None, None, edges.clamp(0, 1), None)
    else:
        points = torch.stack([_somewhere(mask > INSIDE, rng) for mask in masks])
        prompts = Prompts(points[:, None], torch.ones(len(points), 1, dtype=torch.long), None, None)
    return Asked(torch.tensor(rows), masks, prompts)


def correct(asked: Asked, logits: Tensor, rng: np.random.Generator) -> Asked:
    """The same prompts with one more click each, where the mask so far is wrong."""
    wrong = (logits > 0) != (asked.truth > 0.5)
    points = torch.stack(
        [
            _somewhere(errors if errors.any() else truth > INSIDE, rng)
            for errors, truth in zip(wrong, asked.truth, strict=True)
        ]
    )[:, None]
    cells = (points[:, 0] * MASK_SIZE).long().clamp(max=MASK_SIZE - 1)
    labels = (asked.truth[torch.arange(len(cells)), cells[:, 1], cells[:, 0]] > 0.5).long()[:, None]
    before = asked.prompts
    if before.points is not None and before.point_labels is not None:
        points, labels = torch.cat([before.points, points], 1), torch.cat([before.point_labels, labels], 1)
    return replace(asked, prompts=Prompts(points, labels, before.boxes, logits.detach()))


def _somewhere(cells: Tensor, rng: np.random.Generator) -> Tensor:
    """A point xy, 0..1, in one of the cells (M, M) that are set."""
    y, x = cells.nonzero()[int(rng.integers(int(cells.sum())))].tolist()
    return torch.tensor([(x + rng.random()) / MASK_SIZE, (y + rng.random()) / MASK_SIZE], dtype=torch.float32)


def losses_of(logits: Tensor, scores: Tensor, truth: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Losses of the readings (B, R, M, M) with their estimated overlaps (B, R), and each prompt's best mask.

    Only the best reading of each prompt is drawn to the truth, so that the others are free to mean something else.
    """
    expected = truth[:, None].expand_as(logits)
    # The ground fills most of the picture: pixels near the object count more.
    near = 1 + 4 * F.max_pool2d(truth[:, None], 7, stride=1, padding=3)
    entropy = F.binary_cross_entropy_with_logits(logits, expected, weight=near, reduction="none").mean((2, 3))
    probability = logits.sigmoid()
    overlap, total = (probability * expected).sum((2, 3)), (probability + expected).sum((2, 3))
    wrong = 5 * entropy + 1 - (2 * overlap + 1) / (total + 1)
    with torch.no_grad():
        covered, real = logits > 0, expected > 0.5
        iou = (covered & real).sum((2, 3)) / (covered | real).sum((2, 3)).clamp(min=1)
    best = wrong.argmin(1)
    losses = {"mask": wrong.amin(1).mean(), "score": F.mse_loss(scores, iou)}
    return losses, logits[torch.arange(len(logits)), best]


def train(run: Run, processor: Sam3Processor, sampler: Sampler, arguments: argparse.Namespace) -> None:
    network, rng = cast(Any, run.model), np.random.default_rng(arguments.seed)
    clicks = ClickDecoder(network)
    backbone = network.detector_model.vision_encoder.backbone
    saved, smooth, steps = run.clock.minutes, {}, tqdm(initial=run.steps, mininterval=10)
    while run.clock.progress < 1:
        batch = sampler.batch(arguments.images, 1)
        with torch.no_grad():
            features = backbone(batch.pixels).last_hidden_state
        pyramid, asked = clicks.pyramid(features), ask(batch, arguments.objects, rng)
        lone_point, seen = asked.prompts.boxes is None, pyramid.select(asked.rows)
        losses, best = losses_of(*clicks.predict(seen, asked.prompts, multimask=lone_point), asked.truth)
        again = correct(asked, best, rng)
        more, _ = losses_of(*clicks.predict(seen, again.prompts, multimask=False), asked.truth)
        losses |= {f"{name} again": loss for name, loss in more.items()}
        run.learn(sum(losses.values(), torch.zeros(())), arguments.learning_rate)
        report(steps, smooth, {name: loss.item() for name, loss in losses.items()})
        if run.clock.minutes - saved > arguments.save_minutes:
            saved = run.clock.minutes
            run.save()
            print(f"{run.clock.minutes:.1f} min, {run.steps} steps:", evaluate(run, processor, arguments.output, 40))


def evaluate(run: Run, processor: Sam3Processor, folder: Path, scenes: int) -> dict[str, float]:
    """Writes the checkpoint and gives its figures through the product's own model."""
    average = copy.deepcopy(run.average).eval()
    copy.deepcopy(average).half().save_pretrained(folder)  # type: ignore[operator]
    processor.save_pretrained(folder)
    model = Sam3(Checkpoint("trained", folder), cast(Any, average), processor)
    return {name: round(value, 4) for name, value in evaluate_clicks(model, map(held_out, range(scenes))).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detector", type=Path, default=CHECKPOINTS / "sam3")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--save-minutes", type=float, default=4)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--objects", type=int, default=5, help="prompts about each image")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--output", type=Path, default=CHECKPOINTS / "sam3")
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(1)

    processor: Any = Sam3Processor.from_pretrained(arguments.detector)
    detector: Any = Sam3Model.from_pretrained(arguments.detector, dtype=torch.float32)
    sampler = Sampler(SceneCache(), processor.tokenizer, arguments.seed)
    network: Any = build_model(detector, sampler.batch(32, 1).pixels)
    trained = [weight for weight in network.parameters() if weight.requires_grad]
    run = Run("sam3_tracker", network, torch.optim.AdamW(trained, weight_decay=0.01), arguments.minutes)
    if arguments.resume:
        run.resume()
    train(run, processor, sampler, arguments)
    run.save()
    print(evaluate(run, processor, arguments.output, 500))


if __name__ == "__main__":
    main()
