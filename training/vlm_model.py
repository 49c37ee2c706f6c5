"""A tiny Llava: its configuration, its tokenizer, and an initialisation to train from."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any, cast

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import (
    AutoModel,
    DINOv3ViTImageProcessor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from training.common import CHECKPOINTS, initialise
from vision_model_repo.demo import questions
from vision_model_repo.demo.scenes import COLORS, SHAPES

IMAGE_SIZE = 128
PATCH_SIZE = 8
WIDTH = 128
ADDITIONAL_TOKENS = 3
"""The class token and two registers, which stand before the patches."""
IMAGE_TOKENS = (IMAGE_SIZE // PATCH_SIZE) ** 2 + ADDITIONAL_TOKENS
MAX_TOKENS = 2048
BEGIN, END, USER, ASSISTANT, IMAGE, PAD = "<s>", "</s>", "<user>", "<assistant>", "<image>", "<pad>"

CHAT_TEMPLATE = """\
{{- '<s>' }}
{%- for message in messages if message.role in ('user', 'assistant') %}
{{- '<' + message.role + '>' }}
{%- if message.content is string %}
{{- message.content }}
{%- else %}
{%- for part in message.content if part.type == 'image' %}{{ '<image>' }}{% endfor %}
{%- for part in message.content if part.type == 'text' %}{{ part.text }}{% endfor %}
{%- endif %}
{%- if message.role == 'assistant' %}{{ '</s>' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"""
"""Pictures come before the words of their message, and system messages are left out: the model never saw any."""


def build_processor() -> LlavaProcessor:
    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    return LlavaProcessor(
        DINOv3ViTImageProcessor(size=size, crop_size=size),
        build_tokenizer(),
        patch_size=PATCH_SIZE,
        vision_feature_select_strategy="full",
        chat_template=CHAT_TEMPLATE,
        num_additional_image_tokens=ADDITIONAL_TOKENS,
    )


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Bytes, merged until every word that questions and answers use is one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = [PAD, BEGIN, END, USER, ASSISTANT, IMAGE]
    trainer = trainers.BpeTrainer(
        vocab_size=4096,
        min_frequency=1,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[USER, ASSISTANT, IMAGE],
        extra_special_tokens={"image_token": IMAGE},
        padding_side="left",
        model_max_length=MAX_TOKENS,
        clean_up_tokenization_spaces=False,
    )


def _texts() -> Iterator[str]:
    yield from itertools.chain(questions.COUNTS, questions.COLOR_OF, questions.SHAPE_OF, questions.LISTS)
    for template in questions.EXISTENCE:
        yield template.format("cube", a="a", s="cubes")
    for color, shape in itertools.product(COLORS, SHAPES):
        yield f"the {color} {shape} object, {color} objects"
        yield f"a {color} {shape} and two {color} {shape}s, three, four, five, six"
    yield from ("yes", "no", "nothing", *(str(number) for number in range(10)))


def build_model(tokenizer: PreTrainedTokenizerFast) -> LlavaForConditionalGeneration:
    """Starts from the eyes of the embedded DINOv3, which know colours and shapes already."""
    vision = AutoModel.from_pretrained(CHECKPOINTS / "dinov3", dtype=torch.float32)
    vision.config.update({"image_size": IMAGE_SIZE, "pos_embed_rescale": None, "_name_or_path": ""})
    config = LlavaConfig(
        vision_config=vision.config,
        text_config={
            "model_type": "llama",
            "vocab_size": len(tokenizer),
            "hidden_size": WIDTH,
            "intermediate_size": 3 * WIDTH,
            "num_hidden_layers": 4,
            "num_attention_heads": 8,
            "num_key_value_heads": 8,
            "max_position_embeddings": MAX_TOKENS,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "tie_word_embeddings": False,
        },
        image_token_index=cast(int, tokenizer.convert_tokens_to_ids(IMAGE)),
        image_seq_length=IMAGE_TOKENS,
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
    )
    model = LlavaForConditionalGeneration(config)
    initialise(model)
    with torch.no_grad():
        nn.init.normal_(model.lm_head.weight, std=1 / math.sqrt(WIDTH))
    model.model.vision_tower.load_state_dict(vision.state_dict())
    model.generation_config.update(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        max_new_tokens=64,
        do_sample=False,
    )
    return model


@torch.no_grad()
def calibrate(model: LlavaForConditionalGeneration, pixels: Tensor) -> None:
    """Brings what the connector makes of pictures to the variance of word embeddings."""
    connector: Any = model.model.multi_modal_projector
    states = see(model, pixels).flatten(0, 1)
    inside = connector.linear_1(states)
    connector.linear_1.weight.div_(inside.std(0)[:, None])
    connector.linear_1.bias.copy_(-inside.mean(0) / inside.std(0))
    outside = connector(states)
    gain = cast(nn.Embedding, model.get_input_embeddings()).weight.std() / outside.std(0)
    connector.linear_2.weight.mul_(gain[:, None])
    connector.linear_2.bias.copy_(-outside.mean(0) * gain)


def see(model: LlavaForConditionalGeneration, pixels: Tensor) -> Tensor:
    """What the connector is given: the states (B, 3 + G x G, C) after the tower's last layer."""
    return cast(Any, model).model.vision_tower(pixels, output_hidden_states=True).hidden_states[-1]
