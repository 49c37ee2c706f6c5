"""Trains the embedded Grounding DINO on the tabletop world.

    python -m training.data
    python -m training.grounding_dino --pretrain-minutes 7 --minutes 80

First the backbone alone learns colour, shape and extent of every cell, then the whole model learns detection. The
schedule runs by the clock; a moving average of the weights is what gets exported. `--resume` continues an
interrupted run, or, given more minutes, takes a finished one further.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torchvision.ops import box_convert
from tqdm import tqdm
from transformers import GroundingDinoForObjectDetection, GroundingDinoProcessor

from training.common import CHECKPOINTS, Clock, Run, cosine, report, step
from training.data import SceneCache, held_out
from training.grounding_dino_data import Sampler, encode
from training.grounding_dino_loss import detection_loss
from training.grounding_dino_model import build_model, build_processor, export
from vision_model_repo.demo.evaluation import LEAST_SCORE, DetectionTally, questions
from vision_model_repo.demo.scenes import COLORS, SHAPES, View
from vision_model_repo.tasks.detection import DetectionResult

SETTLED = 0.7
"""Share of the training after which the statistics of batch normalisation stay as they are, as in the export."""


class DenseHead(nn.Module):
    """Colour, shape and distances to the object's edges per cell of stride 8, to train the backbone by itself."""

    def __init__(self, channels: list[int]) -> None:
        super().__init__()
        self.sizes = [len(COLORS) + 1, len(SHAPES) + 1, 4]
        self.layers = nn.Sequential(nn.Conv2d(sum(channels), 64, 1), nn.ReLU(), nn.Conv2d(64, sum(self.sizes), 1))

    def forward(self, fine: Tensor, coarse: Tensor) -> tuple[Tensor, ...]:
        coarse = F.interpolate(coarse, size=fine.shape[-2:], mode="bilinear")
        return self.layers(torch.cat([fine, coarse], 1)).split(self.sizes, 1)


def dense_truth(instances: NDArray[np.int8], names: list[str], grid: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Colour and shape class (H, W), 0 for the ground, and left, top, right, bottom in image sides (4, H, W)."""
    rows = ((np.arange(grid[0]) + 0.5) / grid[0] * instances.shape[0]).astype(int)
    columns = ((np.arange(grid[1]) + 0.5) / grid[1] * instances.shape[1]).astype(int)
    owner = instances[np.ix_(rows, columns)]
    words = [name.split() for name in names]
    colors = np.array([0] + [1 + list(COLORS).index(color) for color, _ in words])[owner + 1]
    shapes = np.array([0] + [1 + SHAPES.index(shape) for _, shape in words])[owner + 1]
    across, down = np.meshgrid(columns, rows)
    edges = np.zeros((4, *grid), np.float32)
    for index in np.unique(owner[owner >= 0]):
        mask = instances == index
        x, y = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
        distances = np.stack([across - x[0], down - y[0], x[-1] - across, y[-1] - down]) / max(instances.shape)
        inside = owner == index
        edges[:, inside] = distances[:, inside]
    return torch.from_numpy(colors), torch.from_numpy(shapes), torch.from_numpy(edges)


def dense_loss(backbone: nn.Module, head: DenseHead, sampler: Sampler, count: int) -> tuple[Tensor, dict[str, float]]:
    """The loss of one batch, and how many cells of objects have the right colour and shape."""
    pixels, _, instances, names = sampler.images(count, mixed=False)
    color_logits, shape_logits, edges = head(*backbone(pixels).feature_maps)
    truths = [dense_truth(*pair, edges.shape[-2:]) for pair in zip(instances, names, strict=True)]
    colors, shapes, distances = (torch.stack(parts) for parts in zip(*truths, strict=True))
    objects = colors > 0
    loss = _object_entropy(color_logits, colors) + _object_entropy(shape_logits, shapes)
    loss = loss + 5 * ((edges - distances).abs() * objects[:, None]).sum() / objects.sum().clamp(min=1)
    right = {
        "colour": (color_logits.argmax(1) == colors)[objects].float().mean().item(),
        "shape": (shape_logits.argmax(1) == shapes)[objects].float().mean().item(),
    }
    return loss, right


def _object_entropy(logits: Tensor, classes: Tensor) -> Tensor:
    """Cross-entropy that counts a cell of the ground, class 0, for a tenth: nine cells in ten are ground."""
    weight = torch.ones(logits.shape[1])
    weight[0] = 0.1
    return F.cross_entropy(logits, classes, weight)


def optimiser(parameters: list[nn.Parameter]) -> torch.optim.AdamW:
    """AdamW that leaves biases, norms and scales undecayed."""
    decayed = [parameter for parameter in parameters if parameter.ndim > 1]
    plain = [parameter for parameter in parameters if parameter.ndim <= 1]
    return torch.optim.AdamW([{"params": decayed, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}])


def pretrain(model: GroundingDinoForObjectDetection, sampler: Sampler, minutes: float, images: int) -> None:
    """Dense naming of every cell, which teaches the backbone what words will refer to."""
    backbone: Any = model.model.backbone.conv_encoder.model
    head = DenseHead(list(backbone.channels))
    optimizer = optimiser([*backbone.parameters(), *head.parameters()])
    clock, smooth, steps = Clock(minutes), {}, tqdm(desc="pretrain", mininterval=10)
    while clock.progress < 1:
        loss, right = dense_loss(backbone, head, sampler, images)
        step(optimizer, loss, 2e-3 * cosine(clock.progress))
        report(steps, smooth, {"loss": loss.item()} | right)


def train(run: Run, processor: GroundingDinoProcessor, sampler: Sampler, arguments: argparse.Namespace) -> None:
    """Detection, with figures and a checkpoint every few minutes."""
    model = cast(GroundingDinoForObjectDetection, run.model)
    saved, smooth, steps = run.clock.minutes, {}, tqdm(desc="train", initial=run.steps, mininterval=10)
    model.train()
    while run.clock.progress < 1:
        if run.clock.progress > SETTLED:
            settle_norms(model)
        batch = sampler.batch(arguments.images)
        loss, parts = detection_loss(model, model(**batch.inputs), batch)
        run.learn(loss, arguments.learning_rate)
        report(steps, smooth, parts)
        if run.clock.minutes - saved > arguments.save_minutes:
            saved = run.clock.minutes
            run.save()
            export(average(run), processor, arguments.output)
            figures = evaluate(average(run), processor, [held_out(index) for index in range(60)])
            tqdm.write(f"{run.clock.minutes:.1f} min, {run.steps} steps: {figures}")
    run.save()


def settle_norms(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


@torch.no_grad()
def average(run: Run) -> GroundingDinoForObjectDetection:
    """The averaged weights with the model's own statistics of batch normalisation, which are averages already."""
    for buffer, own in zip(run.average.buffers(), run.model.buffers(), strict=True):
        buffer.copy_(own)
    return cast(GroundingDinoForObjectDetection, run.average.eval())


def evaluate(
    model: GroundingDinoForObjectDetection, processor: GroundingDinoProcessor, scenes: Iterable[View]
) -> dict[str, float]:
    """AP50, and precision and recall above 0.4, of several phrases, present and absent, in one request a scene."""
    model.eval()
    tally = DetectionTally()
    for index, view in enumerate(scenes):
        asked = questions(view, index)
        tally.add(view, asked, detect(model, processor, view, asked))
    return {name: round(figure, 3) for name, figure in tally.figures().items()}


@torch.inference_mode()
def detect(
    model: GroundingDinoForObjectDetection, processor: GroundingDinoProcessor, view: View, asked: list[str]
) -> DetectionResult:
    """Every query that scores at least `LEAST_SCORE` for a phrase, by the most probable of the phrase's tokens."""
    text = ". ".join(asked) + "."
    inputs = cast(Any, processor)(images=Image.fromarray(view.image), text=text, return_tensors="pt")
    outputs = model(**inputs)
    _, spans = encode(processor, asked)
    probability = outputs.logits[0].sigmoid()
    scores = torch.stack([probability[:, span].amax(-1) for span in spans])
    phrase, query = torch.nonzero(scores >= LEAST_SCORE, as_tuple=True)
    order = scores[phrase, query].argsort(descending=True)
    phrase, query = phrase[order], query[order]
    height, width = view.image.shape[:2]
    boxes = box_convert(outputs.pred_boxes[0], "cxcywh", "xyxy") * torch.tensor([width, height, width, height])
    labels = tuple(asked[index] for index in phrase.tolist())
    return DetectionResult(boxes[query].numpy(), scores[phrase, query].numpy(), labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pretrain-minutes", type=float, default=7)
    parser.add_argument("--minutes", type=float, default=80)
    parser.add_argument("--save-minutes", type=float, default=4)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=8e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--output", type=Path, default=CHECKPOINTS / "grounding-dino")
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(1)

    processor, scenes = build_processor(), SceneCache()
    model = build_model(len(processor.tokenizer))
    if not arguments.resume:
        pretrain(model, Sampler(scenes, processor, arguments.seed), arguments.pretrain_minutes, 2 * arguments.images)
    run = Run("grounding_dino", model, optimiser(list(model.parameters())), arguments.minutes)
    if arguments.resume:
        run.resume()
    sampler = Sampler(scenes, processor, arguments.seed + run.steps + 1)
    train(run, processor, sampler, arguments)
    export(average(run), processor, arguments.output)
    print(evaluate(average(run), processor, [held_out(index) for index in range(500)]))
    print("320 x 240:", evaluate(average(run), processor, [held_out(index, 320, 240) for index in range(100)]))


if __name__ == "__main__":
    main()
