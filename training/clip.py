"""Trains the embedded CLIP of the tabletop world.

    python -m training.data
    python -m training.clip --minutes 25

The picture tower first learns what each patch shows, and both towers learn to tell how many objects of each kind there
are, by one head for both; then pictures and captions learn to find each other, while these lessons go on. Captions of
scenes that differ in one thing are among the wrong answers. With `--llava` the picture tower begins with layers of a
training of `training.vlm`.
"""

from __future__ import annotations

import argparse
import copy
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm
from transformers import CLIPModel, CLIPProcessor

from training.clip_data import MOST, Batch, Sampler
from training.clip_evaluation import evaluate_retrieval
from training.clip_model import WIDTH, begin_from_llava, begin_from_scratch, build_model, build_processor
from training.common import CHECKPOINTS, RUNS, Clock, Run, report
from training.data import SceneCache, held_out
from training.sam3_loss import DenseHead
from vision_model_repo.demo.scenes import COLORS, SHAPES, phrases

LOOKING = 0.06
"""Share of the run in which pictures and captions are not yet compared."""
DENSE_WEIGHT = 0.3
TOWER = "model.model.vision_tower."


class WorkClock(Clock):
    """Minutes that the calling thread computed, so that pauses and other work on the machine shorten no schedule."""

    def __init__(self, budget: float, spent: float = 0.0) -> None:
        super().__init__(budget, spent)
        self._start = time.thread_time() - 60 * spent

    @property
    def minutes(self) -> float:
        return (time.thread_time() - self._start) / 60


class Learner(nn.Module):
    """The model, and heads that tell what its towers know."""

    def __init__(self, processor: CLIPProcessor) -> None:
        super().__init__()
        self.model = build_model(processor.tokenizer)
        self.dense = DenseHead(WIDTH, 1, len(COLORS), len(SHAPES))
        self.counts = nn.Linear(WIDTH, len(phrases()) * (MOST + 1))
        self.places = nn.Linear(WIDTH, 2 * len(COLORS) * len(SHAPES))

    def look(self, batch: Batch, comparing: bool) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Losses, and what to show of the progress."""
        model = self.model
        seen = model.vision_model(batch.pixels)
        read = model.text_model(batch.tokens, batch.attention)
        pictures = F.normalize(model.visual_projection(seen.pooler_output), dim=-1)
        texts = F.normalize(model.text_projection(read.pooler_output), dim=-1)
        dense, shown = self.dense.losses(seen.last_hidden_state[:, 1:], batch.dense)
        places = self.places(seen.pooler_output).unflatten(1, (-1, 2))
        known = ~batch.places.isnan()
        own = batch.owners[: batch.true]
        losses = {
            "dense": DENSE_WEIGHT * sum(dense.values(), torch.zeros(())),
            "places": F.mse_loss(places[known], batch.places[known]),
            "picture counts": 3 * self._count(pictures, batch.counts),
            "text counts": 3 * self._count(texts[: len(own)], batch.counts[own]),
        }
        if comparing:
            scores = model.logit_scale.exp().clamp(max=100) * pictures @ texts.T
            losses |= contrastive_losses(scores, batch)
            shown["found"] = (scores[:, : len(own)].argmax(0) == own).float().mean().item()
        return losses, shown

    def _count(self, embeddings: Tensor, counts: Tensor) -> Tensor:
        logits = self.counts(8 * embeddings).unflatten(1, (-1, MOST + 1))
        return F.cross_entropy(logits.flatten(0, 1), counts.flatten())


def contrastive_losses(scores: Tensor, batch: Batch) -> dict[str, Tensor]:
    """Each true caption against all that are not its picture's, and each picture of a caption against the others.

    Captions and pictures of scenes with the same objects are left out of the wrong answers: they may be true.

    Args:
        scores: (I, I x K + W).
    """
    owners = batch.owners[: batch.true]
    own = scores[owners, torch.arange(batch.true)]
    wrong = torch.ones_like(scores, dtype=torch.bool)
    wrong[:, : batch.true] = ~batch.same[:, owners]
    against = scores.masked_fill(~wrong, -torch.inf)
    texts = torch.logsumexp(against, 1)[owners]
    pictures = torch.logsumexp(against[:, : batch.true], 0)
    return {
        "picture to text": F.softplus(texts - own).mean(),
        "text to picture": F.softplus(pictures - own).mean(),
    }


def export(model: CLIPModel, processor: CLIPProcessor, folder: Path) -> None:
    copy.deepcopy(model).half().save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    processor.save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=25, help="of computing")
    parser.add_argument("--save-minutes", type=float, default=4)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--true", type=int, default=2)
    parser.add_argument("--wrong", type=int, default=3)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--llava", action="store_true")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--output", type=Path, default=CHECKPOINTS / "clip")
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(1)

    processor = build_processor()
    sampler, learner = Sampler(SceneCache(), processor, arguments.seed), Learner(processor)
    if arguments.llava:
        weights = torch.load(RUNS / "vlm" / "state.pt", weights_only=True)["average"]
        begin_from_llava(learner.model, _tower(weights))
    else:
        begin_from_scratch(learner.model, sampler.batch(64, 1, 0).pixels)
    run = Run("clip", learner, torch.optim.AdamW(learner.parameters(), weight_decay=0.02), arguments.minutes)
    if arguments.resume:
        run.resume()
    run.clock = WorkClock(arguments.minutes, run.clock.minutes if arguments.resume else 0.0)
    train(run, processor, sampler, arguments)
    run.save()
    export(cast(Learner, run.average).model, processor, arguments.output)
    print(evaluate_retrieval(cast(Learner, run.average).model, processor, map(held_out, range(500))))


def _tower(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    names = {name: name.removeprefix(TOWER).removeprefix("model.") for name in weights if name.startswith(TOWER)}
    left_out = ("norm.", "embeddings.mask_token", "embeddings.register_tokens")
    return {own: weights[name] for name, own in names.items() if not own.startswith(left_out)}


def train(run: Run, processor: CLIPProcessor, sampler: Sampler, arguments: argparse.Namespace) -> None:
    learner, average = cast(Learner, run.model), cast(Learner, run.average).model
    asked = (arguments.images, arguments.true, arguments.wrong)
    saved, smooth, steps = run.clock.minutes, {}, tqdm(initial=run.steps, mininterval=10)
    ahead = ThreadPoolExecutor(1)
    coming = ahead.submit(sampler.batch, *asked)
    while run.clock.progress < 1:
        comparing = run.clock.progress >= LOOKING
        batch = coming.result()
        coming = ahead.submit(sampler.batch, *asked)
        losses, values = learner.look(batch, comparing)
        run.learn(sum(losses.values(), torch.zeros(())), arguments.learning_rate)
        report(steps, smooth, {name: loss.item() for name, loss in losses.items()} | values)
        if run.clock.minutes - saved > arguments.save_minutes:
            saved = run.clock.minutes
            run.save()
            export(average, processor, arguments.output)
            figures = evaluate_retrieval(average, processor, map(held_out, range(100)))
            tqdm.write(f"{run.clock.minutes:.1f} min, {run.steps} steps: {figures}")


if __name__ == "__main__":
    main()
