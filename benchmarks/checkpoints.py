"""Checkpoints with random weights: as fast as trained ones, and as large as a benchmark wants them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    CLIPTokenizer,
    DINOv3ViTConfig,
    DINOv3ViTImageProcessor,
    DINOv3ViTModel,
    Sam3Config,
    Sam3ImageProcessor,
    Sam3Model,
    Sam3Processor,
    Sam3VideoConfig,
    Sam3VideoModel,
)

from vision_model_repo.models.hub import Hub

TOKENIZER = "demo/sam3"
PATCH = 14


@dataclass(frozen=True, slots=True)
class Sam3Size:
    """How large a SAM3 is.

    Attributes:
        image: side of its input in pixels.
        width, layers: of the image encoder.
        heads_width, heads_layers: of all that sees a prompt.
    """

    image: int
    width: int
    layers: int
    heads_width: int
    heads_layers: int

    @property
    def grid(self) -> int:
        return self.image // PATCH

    @property
    def attention_heads(self) -> int:
        """Each as wide as in the published model: attention of narrower ones would be slow for no reason of SAM3's."""
        return self.heads_width // 32


MID = Sam3Size(image=336, width=768, layers=12, heads_width=96, heads_layers=5)
"""Small enough for a CPU, with the published model's share of work in the image encoder."""
TINY = Sam3Size(image=84, width=64, layers=4, heads_width=32, heads_layers=1)


def write_sam3(folder: Path, size: Sam3Size) -> str:
    """Writes a SAM3 with a detector for prompts and a tracker for clicks; gives what to name it by."""
    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(Hub().resolve(TOKENIZER).folder)
    detector = _detector(size, vocabulary=len(tokenizer))
    config = Sam3VideoConfig(
        detector_config=detector.to_dict(), tracker_config=_tracker(size, detector), low_res_mask_size=4 * size.grid
    )
    Sam3VideoModel(config).save_pretrained(folder)
    sides = {"height": size.image, "width": size.image}
    masks = {"height": 4 * size.grid, "width": 4 * size.grid}
    Sam3Processor(Sam3ImageProcessor(size=sides, mask_size=masks), tokenizer, target_size=size.image).save_pretrained(
        folder
    )
    return str(folder)


def write_dinov3(folder: Path, *, width: int = 768, layers: int = 12, heads: int = 12) -> str:
    """Writes a DINOv3 of the size of ViT-B/16 for images of 224 x 224: 201 tokens."""
    torch.manual_seed(0)
    config = DINOv3ViTConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_register_tokens=4,
    )
    DINOv3ViTModel(config).save_pretrained(folder)
    DINOv3ViTImageProcessor(size={"height": 224, "width": 224}).save_pretrained(folder)
    return str(folder)


def gigaflops(folder: str) -> tuple[float, float]:
    """Work of a SAM3's image encoder, and of one prompt on its outcome, in 10^9 operations."""
    model: Any = Sam3Model.from_pretrained(folder).eval()
    side, tokens = model.config.image_size, torch.ones(1, 32, dtype=torch.long)
    with torch.inference_mode():
        with FlopCounterMode(display=False) as encoder:
            vision = model.get_vision_features(torch.zeros(1, 3, side, side))
        with FlopCounterMode(display=False) as prompt:
            model(vision_embeds=vision, input_ids=tokens, attention_mask=tokens)
    return encoder.get_total_flops() / 1e9, prompt.get_total_flops() / 1e9


def _detector(size: Sam3Size, *, vocabulary: int) -> Sam3Config:
    heads: dict[str, Any] = {
        "hidden_size": size.heads_width,
        "num_attention_heads": size.attention_heads,
        "dropout": 0.0,
    }
    layers = {"num_layers": size.heads_layers, "intermediate_size": 8 * size.heads_width}
    return Sam3Config(
        vision_config={
            "backbone_config": {
                "model_type": "sam3_vit_model",
                "hidden_size": size.width,
                "intermediate_size": 37 * size.width // 8,
                "num_hidden_layers": size.layers,
                "num_attention_heads": size.width // 64,
                "image_size": size.image,
                "pretrain_image_size": size.image,
                "patch_size": PATCH,
                "window_size": size.grid // 2,
                "global_attn_indexes": [size.layers * quarter // 4 - 1 for quarter in (1, 2, 3, 4)],
            },
            "fpn_hidden_size": size.heads_width,
            "backbone_feature_sizes": [[size.grid * scale] * 2 for scale in (4, 2, 1)],
        },
        text_config={
            "model_type": "clip_text_model",
            "vocab_size": vocabulary,
            "hidden_size": size.heads_width,
            "intermediate_size": 4 * size.heads_width,
            "projection_dim": size.heads_width,
            "num_hidden_layers": 4,
            "num_attention_heads": size.attention_heads,
            "max_position_embeddings": 32,
            "bos_token_id": 0,
            "eos_token_id": 1,
        },
        geometry_encoder_config={**heads, "num_layers": 3, "intermediate_size": 8 * size.heads_width},
        detr_encoder_config={**heads, **layers},
        detr_decoder_config={**heads, **layers},
        mask_decoder_config=heads,
    )


def _tracker(size: Sam3Size, detector: Sam3Config) -> dict[str, Any]:
    width = size.heads_width
    return {
        "vision_config": detector.to_dict()["vision_config"],
        "prompt_encoder_config": {"hidden_size": width, "image_size": size.image, "patch_size": PATCH},
        "mask_decoder_config": {
            "hidden_size": width,
            "num_attention_heads": size.attention_heads,
            "mlp_dim": 8 * width,
            "iou_head_hidden_dim": width,
        },
        "image_size": size.image,
        "memory_attention_hidden_size": width,
        "memory_attention_feed_forward_hidden_size": 2 * width,
        "memory_attention_num_layers": 1,
        "memory_attention_rope_feat_sizes": [size.grid, size.grid],
        "memory_encoder_hidden_size": width,
        "memory_encoder_output_channels": width // 4,
        "mask_downsampler_embed_dim": width,
        "memory_fuser_embed_dim": width,
        "memory_fuser_intermediate_dim": 2 * width,
    }
