"""A tiny CLIP: its configuration, its tokenizer, and an initialisation to train from."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, PreTrainedTokenizerFast

from training.common import initialise, whiten
from vision_model_repo.demo.captions import FRAMES, NUMBERS, RELATIONS
from vision_model_repo.demo.scenes import COLORS, SHAPES

IMAGE_SIZE = 112
PATCH_SIZE = 8
SIDE = IMAGE_SIZE // PATCH_SIZE
WIDTH = 128
LAYERS = 4
MAX_TOKENS = 48
POSITION_SCALE = 0.5
BEGIN, END, PAD, UNKNOWN = "<|startoftext|>", "<|endoftext|>", "<|pad|>", "<|unk|>"


def build_processor() -> CLIPProcessor:
    """Pictures are squashed to a square: a crop would cut objects off that captions name."""
    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    return CLIPProcessor(CLIPImageProcessor(size=size, crop_size=size, do_center_crop=False), build_tokenizer())


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word of the world's captions; any other word is unknown."""
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys([PAD, UNKNOWN, BEGIN, END, *_words()]))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [(BEGIN, vocabulary[BEGIN]), (END, vocabulary[END])]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{BEGIN} $A {END}", special_tokens=ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PAD,
        unk_token=UNKNOWN,
        model_max_length=MAX_TOKENS,
        model_input_names=["input_ids", "attention_mask"],
    )


def _words() -> Iterator[str]:
    yield from (*COLORS, "a", "an", "and", "the", ",", ":", ".")
    yield from itertools.chain.from_iterable((shape, f"{shape}s") for shape in (*SHAPES, "object"))
    yield from NUMBERS
    for text in itertools.chain(FRAMES, *RELATIONS.values()):
        yield from re.findall(r"\w+", text)


def build_model(tokenizer: PreTrainedTokenizerFast) -> CLIPModel:
    tower = {
        "hidden_size": WIDTH,
        "intermediate_size": 3 * WIDTH,
        "num_attention_heads": 4,
        "hidden_act": "gelu",
        "projection_dim": WIDTH,
    }
    special = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    words = {"vocab_size": len(tokenizer), "max_position_embeddings": MAX_TOKENS, "num_hidden_layers": 3}
    sight = {"image_size": IMAGE_SIZE, "patch_size": PATCH_SIZE, "num_hidden_layers": LAYERS}
    config = CLIPConfig(
        text_config={**tower, **words, **special}, vision_config={**tower, **sight}, projection_dim=WIDTH
    )
    model = CLIPModel(config)
    initialise(model)
    with torch.no_grad():
        embeddings = model.vision_model.embeddings
        embeddings.class_embedding.normal_()
        embeddings.position_embedding.weight[1:] = POSITION_SCALE * _grid_positions()
    return model


def _grid_positions() -> Tensor:
    """Sines and cosines of row and column, (G x G, C), so that neighbours are alike from the start."""
    along = (torch.arange(SIDE) + 0.5) / SIDE
    frequencies = torch.tensor(np.geomspace(0.5, SIDE / 2, WIDTH // 4), dtype=torch.float32) * torch.pi
    angles = along[:, None] * frequencies
    waves = 2**0.5 * torch.cat([angles.sin(), angles.cos()], 1)
    rows, columns = waves[:, None].expand(-1, SIDE, -1), waves[None].expand(SIDE, -1, -1)
    return torch.cat([rows, columns], 2).flatten(0, 1)


@torch.no_grad()
def begin_from_scratch(model: CLIPModel, pixels: Tensor) -> None:
    """Patches whitened, from pixels (B, 3, S, S) as the processor makes them."""
    embeddings = model.vision_model.embeddings
    embeddings.position_embedding.weight[1:] += whiten(embeddings.patch_embedding, pixels)


@torch.no_grad()
def begin_from_llava(model: CLIPModel, weights: Mapping[str, Tensor]) -> None:
    """Layers of the tower of the embedded vision-language model, which knows colours and shapes. It turns queries and
    keys by position, where CLIP adds positions to patches: attention has to be learnt anew, the rest to be mended.

    Args:
        weights: of a `DINOv3ViTModel` of the same width and depth.
    """
    own: dict[str, Tensor] = {}
    names = {"q_proj": "q_proj", "k_proj": "k_proj", "v_proj": "v_proj", "o_proj": "out_proj"}
    for layer in range(LAYERS):
        theirs, ours = f"layer.{layer}.", f"encoder.layers.{layer}."
        for end in ("weight", "bias"):
            for their_name, our_name in names.items():
                # Their keys have no bias.
                if (value := weights.get(f"{theirs}attention.{their_name}.{end}")) is not None:
                    own[f"{ours}self_attn.{our_name}.{end}"] = value
            for number in "12":
                own[f"{ours}layer_norm{number}.{end}"] = weights[f"{theirs}norm{number}.{end}"]
            own[f"{ours}mlp.fc1.{end}"] = weights[f"{theirs}mlp.up_proj.{end}"]
            own[f"{ours}mlp.fc2.{end}"] = weights[f"{theirs}mlp.down_proj.{end}"]
        for number, last in (("1", "self_attn.out_proj"), ("2", "mlp.fc2")):
            scale = weights[f"{theirs}layer_scale{number}.lambda1"]
            own[f"{ours}{last}.weight"] = scale[:, None] * own[f"{ours}{last}.weight"]
            own[f"{ours}{last}.bias"] = scale * own[f"{ours}{last}.bias"]
    own["embeddings.patch_embedding.weight"] = weights["embeddings.patch_embeddings.weight"]
    own["embeddings.class_embedding"] = weights["embeddings.cls_token"].flatten()
    unknown = model.vision_model.load_state_dict(own, strict=False).unexpected_keys
    if unknown:
        raise ValueError(f"CLIP has no weights {', '.join(unknown)}")
    model.vision_model.embeddings.position_embedding.weight[1:] += weights["embeddings.patch_embeddings.bias"]
