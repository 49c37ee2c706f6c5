"""Checkpoints of the real classes: with random weights where any will do, and the embedded ones where truth counts."""

from __future__ import annotations

import pytest
import torch

from training import sam3_model
from vision_model_repo.models import grounding_dino, sam3
from vision_model_repo.models.base import Checkpoint
from vision_model_repo.models.hub import Hub


@pytest.fixture(scope="session")
def random_sam3(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tmp_path_factory.mktemp("sam3")
    torch.manual_seed(0)
    processor = sam3_model.build_processor()
    sam3_model.build_model(processor.tokenizer).save_pretrained(folder)
    processor.save_pretrained(folder)
    return Checkpoint("random/sam3", folder)


@pytest.fixture(scope="session")
def demo_sam3() -> sam3.Sam3:
    return sam3.load(Hub(offline=True).resolve("demo/sam3"), device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def demo_grounding_dino() -> grounding_dino.GroundingDino:
    return grounding_dino.load(Hub(offline=True).resolve("demo/grounding-dino"), device="cpu", dtype="float32")
