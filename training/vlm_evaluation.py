"""How many answers of the vision-language model are right, asked through the public interface of transformers alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForImageTextToText, AutoProcessor

from vision_model_repo.demo.questions import KINDS, ask_one
from vision_model_repo.demo.scenes import View

BATCH = 16


def load_vlm(folder: Path) -> tuple[Any, Any]:
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    return model.eval(), AutoProcessor.from_pretrained(folder)


def evaluate_answers(model: Any, processor: Any, views: Iterable[View]) -> dict[str, float]:
    """For which share of questions, one a view, the answer is exactly right: in all, and by kind."""
    was_training = model.training
    model.eval()
    right: dict[str, list[bool]] = defaultdict(list)
    numbered = enumerate(views)
    while some := list(islice(numbered, BATCH)):
        questions = [ask_one(view.names, index) for index, view in some]
        answers = reply(model, processor, [view.image for _, view in some], [each.text for each in questions])
        for question, answer in zip(questions, answers, strict=True):
            right[question.kind].append(answer == question.answer)
    model.train(was_training)
    in_all = float(np.mean([each for kind in right.values() for each in kind]))
    return {"right": in_all} | {kind: float(np.mean(right[kind])) for kind in KINDS if right[kind]}


@torch.inference_mode()
def reply(model: Any, processor: Any, images: Sequence[NDArray[np.uint8]], texts: Sequence[str]) -> list[str]:
    """Answers to questions about pictures, one each."""
    chats = [[{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}] for text in texts]
    prompts = processor.apply_chat_template(chats, add_generation_prompt=True)
    inputs = processor(images=list(images), text=prompts, return_tensors="pt", padding=True)
    output = model.generate(**inputs)
    return processor.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
