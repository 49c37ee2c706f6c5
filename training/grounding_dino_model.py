"""The tabletop's tiny Grounding DINO: vocabulary, configuration, initialisation and export.

The classes are transformers' own, so `GroundingDinoForObjectDetection.from_pretrained(folder)` loads what `export`
writes. Only the sizes and the initial weights differ from the published checkpoints.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import (
    BertConfig,
    BertTokenizer,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessor,
    GroundingDinoProcessor,
    ResNetConfig,
)
from transformers.models.grounding_dino.modeling_grounding_dino import GroundingDinoFrozenBatchNorm2d

from training.common import initialise
from vision_model_repo.demo.scenes import COLORS, SHAPES

LONGEST_EDGE = 192
"""Pixels of the longer image side after preprocessing; the aspect ratio is kept."""
WIDTH = 96
TEXT_WIDTH = 64
MAX_TOKENS = 128
QUERIES = 30
PRIOR = -5.0
"""Initial class logit of every token for every query, the usual start for a focal loss."""
WORDS = (*COLORS, *SHAPES, "object", "a", "an", "the", "##s")

# Grounding DINO isolates phrases by these ids, which are constants of the model's code: with any others at these
# tokens the phrases of a request would silently read each other.
_SPECIAL_IDS = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103, ".": 1012, "?": 1029}


def build_processor() -> GroundingDinoProcessor:
    """Image processor and tokenizer; words outside the tabletop's vocabulary become [UNK]."""
    first_word = max(_SPECIAL_IDS.values()) + 1
    known = {index: token for token, index in _SPECIAL_IDS.items()}
    known |= {first_word + offset: word for offset, word in enumerate(WORDS)}
    vocabulary = {known.get(index, f"[unused{index}]"): index for index in range(max(known) + 1)}
    tokenizer = BertTokenizer(vocab=vocabulary, model_max_length=MAX_TOKENS)
    # With both edges alike the longer side becomes LONGEST_EDGE: the field of view spans the longer side, so an
    # object then covers as many pixels in a 4:3 picture as in a square one.
    image_processor = GroundingDinoImageProcessor(size={"shortest_edge": LONGEST_EDGE, "longest_edge": LONGEST_EDGE})
    return GroundingDinoProcessor(image_processor, tokenizer)


def build_config(vocabulary: int) -> GroundingDinoConfig:
    """About two million parameters: a ResNet of strides 8 and 16, two fusion encoder and three decoder layers."""
    return GroundingDinoConfig(
        backbone_config=ResNetConfig(
            embedding_size=32,
            hidden_sizes=[32, 64, 128],
            depths=[1, 2, 2],
            layer_type="basic",
            out_features=["stage2", "stage3"],  # pyright: ignore[reportCallIssue]
        ),
        text_config=BertConfig(
            vocab_size=vocabulary,
            hidden_size=TEXT_WIDTH,
            num_hidden_layers=1,
            num_attention_heads=4,
            intermediate_size=2 * TEXT_WIDTH,
            max_position_embeddings=MAX_TOKENS,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        ),
        d_model=WIDTH,
        num_queries=QUERIES,
        num_feature_levels=2,
        encoder_layers=2,
        encoder_ffn_dim=2 * WIDTH,
        encoder_attention_heads=6,
        encoder_n_points=2,
        decoder_layers=3,
        decoder_ffn_dim=2 * WIDTH,
        decoder_attention_heads=6,
        decoder_n_points=4,
        max_text_len=MAX_TOKENS,
        dropout=0.0,
        fusion_droppath=0.0,
        two_stage=True,
        disable_custom_kernels=True,
    )


def build_model(vocabulary: int) -> GroundingDinoForObjectDetection:
    """A freshly initialised model with trainable batch normalisation, ready for training."""
    model = GroundingDinoForObjectDetection(build_config(vocabulary))
    _initialise(model)
    thaw_norms(model)
    for parameter in model.parameters():  # The class freezes the stem of a ResNet, meant for pretrained ones.
        parameter.requires_grad_(True)
    cast(nn.Module, model).to(memory_format=torch.channels_last)
    return model


@torch.no_grad()
def _initialise(model: GroundingDinoForObjectDetection) -> None:
    """Replaces the fine-tuning initialisation of transformers by one to train from, but for where attention looks."""
    spread = ("sampling_offsets", "attention_weights")
    kept = {key: value.clone() for key, value in model.state_dict().items() if any(name in key for name in spread)}
    initialise(model)
    model.load_state_dict(kept, strict=False)
    core: Any = model.model
    embeddings = core.text_backbone.embeddings
    nn.init.normal_(embeddings.position_embeddings.weight, std=0.3)
    nn.init.zeros_(embeddings.token_type_embeddings.weight)
    for layer in core.encoder.layers:
        layer.fusion_layer.vision_param.fill_(0.3)
        layer.fusion_layer.text_param.fill_(0.3)
    heads: tuple[Any, ...] = (model.bbox_embed[0], core.encoder_output_bbox_embed)
    for head in heads:
        nn.init.zeros_(head.layers[-1].weight)
    # Proposals start at 0.05 and 0.1 of the image; the tabletop's objects measure about 0.2.
    core.encoder_output_bbox_embed.layers[-1].bias.copy_(torch.tensor([0.0, 0.0, 1.2, 1.2]))
    _set_logit_prior(model)


def _set_logit_prior(model: GroundingDinoForObjectDetection) -> None:
    """Gives the class logits, bare dot products of two normalised vectors, a scale near 1.5 and the prior's offset.

    One channel of both vectors is made constant: one on the side of the queries, the prior on the side of the text.
    """
    core: Any = model.model
    for norm in (core.decoder.layer_norm, core.enc_output_norm):
        norm.weight[0], norm.bias[0] = 0.0, 1.0
    text_norm = core.encoder.layers[-1].text_enhancer_layer.layer_norm_after
    text_norm.weight.fill_(1.5 / math.sqrt(WIDTH))
    text_norm.weight[0], text_norm.bias[0] = 0.0, PRIOR
    head: Any = model.bbox_embed[0]
    head.layers[0].weight[:, 0] = 0.0


def thaw_norms(module: nn.Module) -> None:
    """Replaces frozen by live batch normalisation, which training from scratch needs."""
    for name, child in module.named_children():
        if isinstance(child, GroundingDinoFrozenBatchNorm2d):
            live = nn.BatchNorm2d(len(child.weight))
            live.load_state_dict(child.state_dict(), strict=False)
            setattr(module, name, live)
        else:
            thaw_norms(child)


def freeze_norms(model: GroundingDinoForObjectDetection) -> GroundingDinoForObjectDetection:
    """The same model as its class has it, with frozen batch normalisation."""
    frozen = GroundingDinoForObjectDetection(model.config)
    state = {name: value for name, value in model.state_dict().items() if not name.endswith("num_batches_tracked")}
    frozen.load_state_dict(state)
    return frozen.eval()


def export(model: GroundingDinoForObjectDetection, processor: GroundingDinoProcessor, folder: Path) -> None:
    """Writes model and processor in half precision, which the figures show to cost nothing."""
    freeze_norms(model).half().save_pretrained(folder)
    processor.save_pretrained(folder)
