"""Trains the embedded vision-language model of the tabletop world.

    python -m training.data
    python -m training.dinov3 --minutes 30
    python -m training.vlm --minutes 90

A Llava whose vision tower begins as the embedded DINOv3. The tower first learns what each patch shows, where objects
have their middle and how many of each kind there are; then the language model learns to answer, sixteen questions a
picture on one look at it, while the tower goes on with its own lessons.
"""

from __future__ import annotations

import argparse
import copy
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm
from transformers import LlavaForConditionalGeneration, LlavaProcessor, PreTrainedTokenizerFast

from training.common import CHECKPOINTS, Run, report
from training.data import SceneCache, held_out
from training.vlm_data import HARD_SHARES, MOST, PLAIN_SHARES, PREFIX, SHARES, Batch, Sampler
from training.vlm_evaluation import evaluate_answers
from training.vlm_model import (
    ADDITIONAL_TOKENS,
    BEGIN,
    IMAGE_SIZE,
    USER,
    WIDTH,
    build_model,
    build_processor,
    calibrate,
    see,
)
from vision_model_repo.demo.scenes import COLORS, SHAPES, phrases

LOOKING = 0.08
"""Share of the run in which the tower learns alone."""
PLAIN = 0.2
"""Share of the run until which only the plain kinds are asked."""
HARD = 0.65
"""Share of the run from which the hard kinds are asked more often."""
DENSE_WEIGHT = 0.5


class Learner(nn.Module):
    """The model, and heads that tell what its tower knows."""

    def __init__(self, processor: LlavaProcessor) -> None:
        super().__init__()
        tokenizer = cast(PreTrainedTokenizerFast, processor.tokenizer)
        self.model = build_model(tokenizer)
        self.begin = torch.tensor([tokenizer.convert_tokens_to_ids([BEGIN, USER])])
        self.end = cast(int, tokenizer.eos_token_id)
        self.norm = nn.LayerNorm(WIDTH)
        self.colors = nn.Linear(WIDTH, len(COLORS) + 1)
        self.shapes = nn.Linear(WIDTH, len(SHAPES))
        self.centres = nn.Linear(WIDTH, 1)
        self.places = nn.Linear(WIDTH, 2)
        self.counts = nn.Linear(ADDITIONAL_TOKENS * WIDTH, len(phrases()) * (MOST + 1))
        self.color_weights = torch.tensor([1.0] * len(COLORS) + [0.2])

    def look(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The tower's states (I, 3 + G x G, C), and the losses of its own lessons."""
        states = see(self.model, batch.pixels)
        side = batch.colors.shape[-1]
        normed = self.norm(states)
        whole, patches = normed[:, :ADDITIONAL_TOKENS].flatten(1), normed[:, ADDITIONAL_TOKENS:]
        solid = (batch.colors >= 0).flatten(1)
        colors = torch.where(solid, batch.colors.flatten(1), len(COLORS))
        along = (torch.arange(side) + 0.5) / side * 2 - 1
        places = torch.stack(torch.meshgrid(along, along, indexing="xy"), -1).flatten(0, 1).expand(len(states), -1, -1)
        counts = self.counts(whole).unflatten(1, (-1, MOST + 1)).flatten(0, 1)
        middle = self.centres(patches).squeeze(-1)
        losses = {
            "patch color": F.cross_entropy(self.colors(patches).flatten(0, 1), colors.flatten(), self.color_weights),
            "patch shape": F.cross_entropy(self.shapes(patches[solid]), batch.shapes.flatten(1)[solid]),
            "centre": 10 * F.binary_cross_entropy_with_logits(middle, batch.centres.flatten(1)),
            "position": F.mse_loss(self.places(patches), places),
            "counts": F.cross_entropy(counts, batch.counts.flatten()),
        }
        return states, losses

    def logits(self, batch: Batch, states: Tensor, where: Tensor) -> Tensor:
        """Of the token that follows each of the W tokens where a mask (I, T) holds: (W, V)."""
        words = self.model.get_input_embeddings()
        pictures = self.model.model.multi_modal_projector(states)
        begin = words(self.begin).expand(len(states), -1, -1)
        positions = torch.cat([torch.arange(PREFIX).expand(len(states), -1), batch.positions], 1)
        output = cast(nn.Module, self.model.model.language_model)(
            inputs_embeds=torch.cat([begin, pictures, words(batch.tokens)], 1),
            attention_mask=batch.mask(),
            position_ids=positions,
            use_cache=False,
        )
        return self.model.lm_head(output.last_hidden_state[:, PREFIX:][where])

    def answer(self, batch: Batch, states: Tensor) -> tuple[Tensor, dict[str, float]]:
        """The loss of the answers' tokens, and the share of right ones by kind of question."""
        asked = batch.targets >= 0
        logits, targets, kinds = self.logits(batch, states, asked), batch.targets[asked], batch.kinds[asked]
        # The end of an answer is no merit.
        counted = targets != self.end
        right = (logits.argmax(1) == targets).float()
        shares = {
            kind: right[mine].mean().item()
            for index, kind in enumerate(SHARES)
            if (mine := counted & (kinds == index)).any()
        }
        return F.cross_entropy(logits, targets), shares


def shares(progress: float) -> dict[str, float]:
    if progress < PLAIN:
        return PLAIN_SHARES
    return SHARES if progress < HARD else HARD_SHARES


def export(model: LlavaForConditionalGeneration, processor: LlavaProcessor, folder: Path) -> None:
    copy.deepcopy(model).half().save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    processor.save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=90)
    parser.add_argument("--save-minutes", type=float, default=4)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--questions", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--output", type=Path, default=CHECKPOINTS / "vlm")
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(arguments.threads)

    processor = build_processor()
    sampler = Sampler(SceneCache(), cast(PreTrainedTokenizerFast, processor.tokenizer), IMAGE_SIZE, arguments.seed)
    learner = Learner(processor)
    optimizer = torch.optim.AdamW(learner.parameters(), weight_decay=0.02)
    run = Run("vlm", learner, optimizer, arguments.minutes)
    if arguments.resume:
        run.resume()
    average = cast(Learner, run.average).model
    saved, smooth, steps = run.clock.minutes, {}, tqdm(initial=run.steps, mininterval=10)
    speaks = run.clock.progress >= LOOKING
    ahead = ThreadPoolExecutor(1)
    coming = ahead.submit(sampler.batch, arguments.images, arguments.questions)
    while run.clock.progress < 1:
        batch = coming.result()
        sampler.shares = shares(run.clock.progress)
        coming = ahead.submit(sampler.batch, arguments.images, arguments.questions)
        if not speaks and run.clock.progress >= LOOKING:
            speaks = True
            calibrate(learner.model, batch.pixels)
            calibrate(average, batch.pixels)
        states, losses = learner.look(batch)
        values = {name: loss.item() for name, loss in losses.items()}
        loss = DENSE_WEIGHT * sum(losses.values(), torch.zeros(()))
        if speaks:
            answers, right = learner.answer(batch, states)
            loss = loss + answers
            values |= {"answer": answers.item()} | right
        run.learn(loss, arguments.learning_rate)
        report(steps, smooth, values)
        if run.clock.minutes - saved > arguments.save_minutes:
            saved = run.clock.minutes
            run.save()
            if speaks:
                export(average, processor, arguments.output)
                figures = evaluate_answers(average, processor, map(held_out, range(96)))
                tqdm.write(f"{run.clock.minutes:.1f} min, {run.steps} steps: {figures}")
    run.save()
    export(average, processor, arguments.output)
    print(evaluate_answers(average, processor, map(held_out, range(500))))


if __name__ == "__main__":
    main()
