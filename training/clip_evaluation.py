"""How well pictures and captions find each other, asked through the public interface of transformers alone."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModel, AutoProcessor

from vision_model_repo.demo.captions import caption, layout, wrong_caption
from vision_model_repo.demo.scenes import View

CANDIDATES = 50
"""Scenes among which one is sought."""


def load_clip(folder: Path) -> tuple[Any, Any]:
    model = AutoModel.from_pretrained(folder, dtype=torch.float32)
    return model.eval(), AutoProcessor.from_pretrained(folder)


@torch.inference_mode()
def evaluate_retrieval(model: Any, processor: Any, views: Iterable[View]) -> dict[str, float]:
    """Shares of captions, one a scene, whose own scene is the nearest, or among the nearest five, of each set of
    fifty; and of scenes whose own caption is. What is left over of the last set of fifty is not counted. Then the
    share of captions that fit their scene better than the same words of a scene that differs in one thing."""
    was_training = model.training
    model.eval()
    ranks: dict[str, list[torch.Tensor]] = {"text_to_image": [], "image_to_text": []}
    told_apart: list[torch.Tensor] = []
    numbered = enumerate(views)
    while len(some := list(islice(numbered, CANDIDATES))) == CANDIDATES:
        seen = [layout(view) for _, view in some]
        texts = [caption(each, index) for each, (index, _) in zip(seen, some, strict=True)]
        wrong = [wrong_caption(each, index) for each, (index, _) in zip(seen, some, strict=True)]
        mistaken = [place for place, text in enumerate(wrong) if text]
        texts += [text for text in wrong if text]
        images = [view.image for _, view in some]
        outputs = model(**processor(text=texts, images=images, return_tensors="pt", padding=True))
        scores, near = outputs.logits_per_text.split([CANDIDATES, len(mistaken)])
        told_apart.append(scores[mistaken, mistaken] > near[torch.arange(len(mistaken)), mistaken])
        for name, table in (("text_to_image", scores), ("image_to_text", scores.T)):
            # Ties count against it.
            ranks[name].append((table >= table.diagonal()[:, None]).sum(1))
    model.train(was_training)
    recalls = {
        f"{name} recall@{most}": float(np.mean(torch.cat(rank).numpy() <= most))
        for name, rank in ranks.items()
        for most in (1, 5)
    }
    return recalls | {"near misses told apart": float(torch.cat(told_apart).float().mean())}
