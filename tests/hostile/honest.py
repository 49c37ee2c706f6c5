"""Small honest checkpoints of every family and loader, which an attack then changes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import open_clip
import timm
import torch
from safetensors.torch import save_file
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertModel,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

from vision_model_repo.models.hub import Hub

SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}


def _embedded(name: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        for file in Hub(offline=True).resolve(f"demo/{name}").folder.iterdir():
            shutil.copyfile(file, folder / file.name)

    return write


def _save(network: Any, path: Path) -> None:
    save_file({name: weight.contiguous() for name, weight in network.state_dict().items()}, path)


def _open_clip(folder: Path) -> None:
    config = {
        "embed_dim": 12,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "head_width": 32, "patch_size": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    }
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    network: Any = open_clip.model.CLIP(**json.loads(json.dumps(config)))
    _save(network, folder / "open_clip_model.safetensors")


def _timm(folder: Path) -> None:
    config = {
        "architecture": "test_resnet",
        "num_classes": 3,
        "pretrained_cfg": {"input_size": [3, 64, 64], "label_names": ["cat", "dog", "sphere"]},
    }
    (folder / "config.json").write_text(json.dumps(config))
    _save(timm.create_model("test_resnet", num_classes=3), folder / "model.safetensors")


def _vit(folder: Path) -> None:
    sizes: Any = {**SIZES, "image_size": 32, "patch_size": 16, "num_labels": 3}
    network: Any = ViTForImageClassification(ViTConfig(**sizes))
    network.save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)


def _bert(folder: Path) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh"]
    (folder / "vocab.txt").write_text("\n".join(words))
    tokenizer: Any = AutoTokenizer.from_pretrained(folder, tokenizer_type="bert")
    tokenizer.save_pretrained(folder)
    network: Any = BertModel(BertConfig(vocab_size=len(words), max_position_embeddings=12, **SIZES))
    network.save_pretrained(folder)
    modules = [
        {"type": "sentence_transformers.models.Transformer", "path": ""},
        {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"},
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))


WRITERS: Mapping[str, tuple[str, Callable[[Path], None]]] = {
    "clip": ("clip", _embedded("clip")),
    "open_clip": ("clip", _open_clip),
    "depth_anything": ("depth_anything", _embedded("depth-anything")),
    "dinov3": ("dinov3", _embedded("dinov3")),
    "grounding_dino": ("grounding_dino", _embedded("grounding-dino")),
    "sam3": ("sam3", _embedded("sam3")),
    # None of their own kind; what is tried here is refused, or ignored, before that counts.
    "sam2_video": ("sam2_video", _embedded("dinov3")),
    "sam3_video": ("sam3_video", _embedded("sam3")),
    "vlm": ("vlm", _embedded("vlm")),
    "text_embedding": ("text_embedding", _bert),
    "timm": ("image_classifier", _timm),
    "image_classifier": ("image_classifier", _vit),
}
"""The family that reads each loader's checkpoint, and how to write one."""


def write(loader: str, folder: Path) -> None:
    """Writes an honest checkpoint into a folder that is there and empty."""
    torch.manual_seed(0)
    WRITERS[loader][1](folder)
