"""Checkpoints of the real classes: with random weights where any will do, and the embedded ones where truth counts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import Sam3Model, Sam3Processor, Sam3VideoConfig, Sam3VideoModel

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
def random_sam3_video(random_sam3: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A checkpoint of the kind that facebook/sam3 is, with weights large enough that every part of it matters."""
    detector: Any = Sam3Model.from_pretrained(random_sam3.folder, dtype=torch.float32)
    vision = detector.config.vision_config.to_dict()
    # transformers' click model adds what stands for no memory to the last level, which is the coarse one of three.
    vision |= {"scale_factors": [4.0, 2.0, 1.0]}
    small = {"hidden_size": 64, "image_size": sam3_model.IMAGE_SIZE, "patch_size": sam3_model.PATCH_SIZE}
    tracker = {
        "vision_config": vision,
        "prompt_encoder_config": small,
        "mask_decoder_config": {"hidden_size": 64, "mlp_dim": 128, "iou_head_hidden_dim": 64},
        "image_size": sam3_model.IMAGE_SIZE,
    }
    torch.manual_seed(3)
    config = Sam3VideoConfig(detector_config=detector.config.to_dict(), tracker_config=tracker)
    network: Any = Sam3VideoModel(config)
    network.detector_model.load_state_dict(detector.state_dict())
    for parameter in (*network.tracker_model.parameters(), *network.tracker_neck.parameters()):
        torch.nn.init.normal_(parameter, std=0.2)
    path = tmp_path_factory.mktemp("sam3-video")
    network.save_pretrained(path)
    Sam3Processor.from_pretrained(random_sam3.folder).save_pretrained(path)
    return Checkpoint("random/sam3-video", path)


@pytest.fixture(scope="session")
def demo_sam3() -> sam3.Sam3:
    return sam3.load(Hub(offline=True).resolve("demo/sam3"), device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def demo_grounding_dino() -> grounding_dino.GroundingDino:
    return grounding_dino.load(Hub(offline=True).resolve("demo/grounding-dino"), device="cpu", dtype="float32")
