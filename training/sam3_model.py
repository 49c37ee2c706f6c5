"""A tiny Sam3Model: its configuration, its tokenizer, an initialisation to train from, and a forward pass that also
gives what the intermediate decoder layers predict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTokenizer, Sam3Config, Sam3ImageProcessor, Sam3Model, Sam3Processor
from transformers.models.sam3.modeling_sam3 import Sam3VisionEncoderOutput, box_cxcywh_to_xyxy, inverse_sigmoid

from training.common import initialise
from vision_model_repo.demo.scenes import COLORS, SHAPES

IMAGE_SIZE = 168
PATCH_SIZE = 12
MASK_SIZE = 4 * IMAGE_SIZE // PATCH_SIZE
WIDTH = 64
BACKBONE_WIDTH = 128
QUERIES = 10
MAX_TOKENS = 32


def build_processor() -> Sam3Processor:
    image_processor = Sam3ImageProcessor(
        size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}, mask_size={"height": MASK_SIZE, "width": MASK_SIZE}
    )
    return Sam3Processor(image_processor, build_tokenizer(), target_size=IMAGE_SIZE)


def build_tokenizer() -> CLIPTokenizer:
    """A CLIP tokenizer whose merges spell the world's words whole; any other word falls apart into letters."""
    kinds = [*SHAPES, "object"]
    words = [*COLORS, *kinds, *(f"{kind}s" for kind in kinds), "visual", "a", "an", "the"]
    merges: list[tuple[str, str]] = []
    for word in words:
        pieces = _split([*word[:-1], f"{word[-1]}</w>"], merges)
        while len(pieces) > 1:
            merges.append((pieces[0], pieces[1]))
            pieces = [pieces[0] + pieces[1], *pieces[2:]]
    letters = sorted(ByteLevel.alphabet())
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    tokens += ["".join(pair) for pair in merges]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    # Pairs are what is wanted, whatever the annotation says.
    return CLIPTokenizer(vocab=vocabulary, merges=cast(Any, merges), model_max_length=MAX_TOKENS)


def _split(pieces: list[str], merges: list[tuple[str, str]]) -> list[str]:
    for left, right in merges:
        index = 0
        while index < len(pieces) - 1:
            if (pieces[index], pieces[index + 1]) == (left, right):
                pieces[index : index + 2] = [left + right]
            index += 1
    return pieces


def build_model(tokenizer: CLIPTokenizer) -> Sam3Model:
    head = {"hidden_size": WIDTH, "num_attention_heads": 4, "dropout": 0.0}
    config = Sam3Config(
        vision_config={
            "backbone_config": {
                "model_type": "sam3_vit_model",
                "hidden_size": BACKBONE_WIDTH,
                "intermediate_size": 384,
                "num_hidden_layers": 5,
                "num_attention_heads": 4,
                "image_size": IMAGE_SIZE,
                "pretrain_image_size": IMAGE_SIZE,
                "patch_size": PATCH_SIZE,
                "window_size": IMAGE_SIZE // PATCH_SIZE // 2,
                "global_attn_indexes": [1, 3, 4],
            },
            "fpn_hidden_size": WIDTH,
            "backbone_feature_sizes": [[MASK_SIZE // 2**level] * 2 for level in range(3)],
        },
        text_config={
            "model_type": "clip_text_model",
            "vocab_size": len(tokenizer),
            "hidden_size": WIDTH,
            "intermediate_size": 2 * WIDTH,
            "projection_dim": WIDTH,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": MAX_TOKENS,
            "hidden_act": "gelu",
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        geometry_encoder_config=head | {"num_layers": 1, "intermediate_size": 2 * WIDTH, "roi_size": 4},
        detr_encoder_config=head | {"num_layers": 2, "intermediate_size": 3 * WIDTH},
        detr_decoder_config=head | {"num_layers": 3, "intermediate_size": 3 * WIDTH, "num_queries": QUERIES},
        mask_decoder_config={"hidden_size": WIDTH, "num_attention_heads": 4, "num_upsampling_stages": 2},
    )
    model = Sam3Model(config)
    initialise(model)
    spread(model)
    return model


@torch.no_grad()
def spread(model: Any) -> None:
    """Beyond Xavier: what keeps queries from seeing all the same, and lets words find what they name.

    Queries start all over the picture, and each looks at its own box: the position bias begins as a penalty on what
    lies outside of it. Where pixels or queries attend to words, both sides are projected alike, so that what is
    similar attends to each other from the first step on.

    Args:
        model: a Sam3Model, of whose submodules type checkers know nothing.
    """
    nn.init.normal_(model.vision_encoder.backbone.embeddings.position_embeddings, std=0.2)
    nn.init.normal_(model.text_encoder.text_model.embeddings.position_embedding.weight, std=0.3)
    decoder = model.detr_decoder
    places = torch.quasirandom.SobolEngine(2, seed=0).draw(QUERIES) * 0.8 + 0.1
    decoder.reference_points.weight[:, :2] = places.logit()
    nn.init.constant_(decoder.reference_points.weight[:, 2:], -1.2)
    nn.init.zeros_(decoder.box_head.layer3.weight)
    for bias in (decoder.box_rpb_embed_x, decoder.box_rpb_embed_y):
        nn.init.normal_(bias.layer2.weight, std=0.05)
        bias.layer1.weight[:2] = torch.tensor([[-1.0, 0.0], [0.0, 1.0]])
        bias.layer2.weight[:, :2] = -8.0
    matching = [layer.cross_attn for layer in model.detr_encoder.layers]
    matching += [layer.text_cross_attn for layer in decoder.layers]
    for attention in (*matching, model.mask_decoder.prompt_cross_attn):
        attention.q_proj.weight.copy_(attention.k_proj.weight)
    model.dot_product_scoring.query_proj.weight.copy_(model.dot_product_scoring.text_proj.weight)


@torch.no_grad()
def calibrate(backbone: Any, neck: Any, pixels: Tensor) -> None:
    """Gives the feature pyramid of a neck above a ViT zero mean and unit variance in every channel.

    A pretrained backbone's features are dozens of times larger than what the freshly initialised text encoder and
    queries add to them; left so, words stay unheard and all queries see the same.
    """
    states = backbone(pixels).last_hidden_state
    side = int(states.shape[1] ** 0.5)
    levels, _ = neck(states.transpose(1, 2).unflatten(2, (side, side)))
    for layer, level in zip(neck.fpn_layers, levels, strict=True):
        mean, std = level.mean((0, 2, 3)), level.std((0, 2, 3))
        layer.proj2.weight.div_(std[:, None, None, None])
        layer.proj2.bias.sub_(mean).div_(std)


def words_of(model: Sam3Model, tokens: Any) -> Tensor:
    """The mean feature (W, C) of each of W tokenized phrases."""
    mask = tokens["attention_mask"]
    text = cast(Any, model).get_text_features(input_ids=tokens["input_ids"], attention_mask=mask).pooler_output
    return _mean_word(text, mask)


def _mean_word(text: Tensor, attention_mask: Tensor) -> Tensor:
    return (text * attention_mask[..., None]).sum(1) / attention_mask.sum(1, keepdim=True)


@dataclass
class Prediction:
    """What the model says of B prompts with Q queries, for each of L decoder layers.

    Attributes:
        logits: (L, B, Q).
        boxes: (L, B, Q, 4) cxcywh, 0..1.
        presence: (L, B).
        drawn: (R,) the prompts that masks were drawn for.
        alignment: (B, m, m) cosine of each coarse feature with the prompt's mean word, for training alone.
        masks: (R, Q, M, M) logits of the last layer.
        semantic: (R, M, M) logits of the union of all instances.
    """

    logits: Tensor
    boxes: Tensor
    presence: Tensor
    alignment: Tensor
    drawn: Tensor
    masks: Tensor
    semantic: Tensor


def predict(
    model: Sam3Model,
    vision: Sam3VisionEncoderOutput,
    image_index: Tensor,
    input_ids: Tensor,
    attention_mask: Tensor,
    boxes: Tensor | None = None,
    box_labels: Tensor | None = None,
    drawn: Tensor | None = None,
) -> Prediction:
    """Sam3Model.forward on prompts of several images at once, keeping every decoder layer's output.

    Args:
        vision: features of the images.
        image_index: (B,) which image each prompt is about.
        boxes: (B, K, 4) exemplar boxes, cxcywh 0..1, with labels (B, K); every prompt has them or none has.
        drawn: the prompts to draw masks for, which costs half of all time; all of them if None.
    """
    features = [level[image_index] for level in vision.fpn_hidden_states[:-1]]
    positions = [level[:1].expand(len(image_index), -1, -1, -1) for level in vision.fpn_position_encoding[:-1]]
    # The annotation leaves open whether this is a tuple.
    text: Tensor = cast(Any, model).get_text_features(input_ids=input_ids, attention_mask=attention_mask).pooler_output
    mask = attention_mask.bool()
    word = _mean_word(text, attention_mask)
    alignment = F.cosine_similarity(features[-1], word[:, :, None, None], dim=1)
    if boxes is not None and box_labels is not None:
        geometry = model.geometry_encoder(
            box_embeddings=boxes,
            box_mask=box_labels != -10,
            box_labels=box_labels.clamp(min=0),
            img_feats=features,
            img_pos_embeds=positions,
        )
        text = torch.cat([text, geometry.last_hidden_state], dim=1)
        mask = torch.cat([mask, geometry.attention_mask], dim=1)
    encoded = model.detr_encoder(
        vision_features=[features[-1]], text_features=text, vision_pos_embeds=[positions[-1]], text_mask=mask
    )
    decoded = model.detr_decoder(
        vision_features=encoded.last_hidden_state,
        text_features=encoded.text_features,
        vision_pos_encoding=encoded.pos_embeds_flattened,
        text_mask=mask,
        spatial_shapes=encoded.spatial_shapes,
    )
    hidden = cast(Tensor, decoded.intermediate_hidden_states)
    offsets = model.detr_decoder.box_head(hidden)
    if drawn is None:
        drawn = torch.arange(len(image_index))
    pictures = model.mask_decoder(
        decoder_queries=hidden[-1][drawn],
        backbone_features=[level[drawn] for level in features],
        encoder_hidden_states=encoded.last_hidden_state[drawn],
        prompt_features=text[drawn],
        prompt_mask=mask[drawn],
    )
    return Prediction(
        logits=model.dot_product_scoring(hidden, text, mask).squeeze(-1),
        boxes=(inverse_sigmoid(decoded.reference_boxes) + offsets).sigmoid(),
        presence=decoded.presence_logits.squeeze(-1),
        alignment=alignment,
        drawn=drawn,
        masks=pictures.pred_masks,
        semantic=pictures.semantic_seg.squeeze(1),
    )


def to_xyxy(boxes: Tensor) -> Tensor:
    return box_cxcywh_to_xyxy(boxes)
