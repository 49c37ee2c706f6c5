"""The published models at their full size, with random weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from shutil import copyfile
from typing import Any

import torch
from transformers import (
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    DINOv3ViTConfig,
    DINOv3ViTImageProcessor,
    DINOv3ViTModel,
    DPTImageProcessor,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoProcessor,
    PreTrainedConfig,
    PreTrainedModel,
    Sam3Config,
    Sam3Model,
    Sam3Processor,
    Sam3VideoConfig,
    Sam3VideoModel,
)

from vision_model_repo.models.hub import Hub


@dataclass(frozen=True, slots=True)
class Published:
    """A model as its authors published it.

    Attributes:
        network: what is saved, in its plain class of transformers.
        plain: what one loads for a single image.
        processor: its class.
        size: what the processor resizes to.
    """

    name: str
    model_type: str
    demo: str
    config: PreTrainedConfig
    network: type[PreTrainedModel]
    plain: type[PreTrainedModel]
    processor: Any
    size: dict[str, int]

    def write(self, folder: Path) -> Path:
        """Writes random weights with the embedded checkpoint's tokenizer and a processor for the full size."""
        torch.manual_seed(0)
        network: Any = self.network(self.config)
        network.to(torch.bfloat16).save_pretrained(folder)
        embedded = Hub(offline=True).resolve(self.demo).folder
        for file in embedded.glob("*token*.json"):
            copyfile(file, folder / file.name)
        processor = self.processor.from_pretrained(embedded)
        images = getattr(processor, "image_processor", processor)
        images.size = self.size
        if self.network is Sam3VideoModel:
            images.mask_size = {"height": 288, "width": 288}
            processor.target_size = self.size["height"]
        if self.network is DepthAnythingForDepthEstimation:
            images.ensure_multiple_of = 14
        processor.save_pretrained(folder)
        return folder


def published() -> list[Published]:
    return [
        Published(
            "SAM3",
            "sam3",
            "demo/sam3",
            Sam3VideoConfig(detector_config=Sam3Config().to_dict()),
            Sam3VideoModel,
            Sam3Model,
            Sam3Processor,
            {"height": 1008, "width": 1008},
        ),
        Published(
            "Grounding DINO base",
            "grounding_dino",
            "demo/grounding-dino",
            GroundingDinoConfig(
                backbone_config={
                    "model_type": "swin",
                    "image_size": 384,
                    "window_size": 12,
                    "embed_dim": 128,
                    "depths": [2, 2, 18, 2],
                    "num_heads": [4, 8, 16, 32],
                    "out_indices": [2, 3, 4],
                },
            ),
            GroundingDinoForObjectDetection,
            GroundingDinoForObjectDetection,
            GroundingDinoProcessor,
            {"shortest_edge": 800, "longest_edge": 1333},
        ),
        Published(
            "Depth Anything V2 Large",
            "depth_anything",
            "demo/depth-anything",
            DepthAnythingConfig(
                backbone_config={
                    "model_type": "dinov2",
                    "hidden_size": 1024,
                    "num_hidden_layers": 24,
                    "num_attention_heads": 16,
                    "image_size": 518,
                    "out_indices": [5, 12, 18, 24],
                    "reshape_hidden_states": False,
                },
                reassemble_hidden_size=1024,
                neck_hidden_sizes=[256, 512, 1024, 1024],
                fusion_hidden_size=256,
            ),
            DepthAnythingForDepthEstimation,
            DepthAnythingForDepthEstimation,
            DPTImageProcessor,
            {"height": 518, "width": 518},
        ),
        Published(
            "DINOv3 ViT-H+",
            "dinov3",
            "demo/dinov3",
            DINOv3ViTConfig(
                hidden_size=1280,
                intermediate_size=5120,
                num_hidden_layers=32,
                num_attention_heads=20,
                num_register_tokens=4,
                use_gated_mlp=True,
            ),
            DINOv3ViTModel,
            DINOv3ViTModel,
            DINOv3ViTImageProcessor,
            {"height": 224, "width": 224},
        ),
    ]
