"""Tokens, one by one: those that transformers would choose, also for two answers in turn; and what can be read."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

import pytest
import torch
from transformers import (
    BartConfig,
    Florence2Config,
    Florence2ForConditionalGeneration,
    Florence2VisionConfig,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)

from vision_model_repo.models.generation import Sampler, Writer, generate

IMAGE, VISION_START, VOCABULARY = 90, 91, 100
NEW_TOKENS = 12


def qwen() -> tuple[Any, list[Mapping[str, Any]]]:
    """A network whose positions depend on where images were in its prompt, and two prompts."""
    text = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0},
    }
    vision = {
        "depth": 1,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_heads": 2,
        "out_hidden_size": 32,
        "patch_size": 4,
        "fullatt_block_indexes": [0],
    }
    ids = {"image_token_id": IMAGE, "vision_start_token_id": VISION_START, "video_token_id": 92}
    config: Any = Qwen2_5_VLConfig(**{"text_config": text, "vision_config": vision, **ids})
    network = Qwen2_5_VLForConditionalGeneration(config)

    def prompt(rows: int, columns: int, words: list[int]) -> Mapping[str, Any]:
        tokens = [VISION_START, *[IMAGE] * (rows * columns // 4), *words]
        input_ids = torch.tensor([tokens])
        return {
            "input_ids": input_ids,
            "attention_mask": torch.ones_like(input_ids),
            "mm_token_type_ids": (input_ids == IMAGE).int(),
            "image_grid_thw": torch.tensor([[1, rows, columns]]),
            "pixel_values": torch.randn(rows * columns, 3 * 2 * 4 * 4),
        }

    return network, [prompt(4, 8, [3, 4, 5]), prompt(2, 2, [6, 7])]


def florence() -> tuple[Any, list[Mapping[str, Any]]]:
    """A network of an encoder and a decoder, and two prompts."""
    text = BartConfig(
        vocab_size=VOCABULARY,
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
    )
    sizes: Any = {"num_heads": [1] * 4, "num_groups": [1] * 4, "depths": [1] * 4, "projection_dim": 32}
    vision = Florence2VisionConfig(**{"embed_dim": [16, 16, 16, 16], **sizes})
    parts: Any = {"text_config": text.to_dict(), "vision_config": vision.to_dict(), "image_token_id": IMAGE}
    network: Any = Florence2ForConditionalGeneration(Florence2Config(**parts))
    side = 64
    pixels = torch.randn(2, 3, side, side)
    count = network.get_image_features(pixels[:1]).pooler_output.shape[1]

    def prompt(index: int, words: list[int]) -> Mapping[str, Any]:
        input_ids = torch.tensor([[*[IMAGE] * count, *words]])
        return {
            "input_ids": input_ids,
            "attention_mask": torch.ones_like(input_ids),
            "pixel_values": pixels[index : index + 1],
        }

    return network, [prompt(0, [3, 4, 5]), prompt(1, [6, 7])]


@pytest.mark.parametrize("build", [qwen, florence])
def test_two_answers_in_turn_are_those_of_transformers(build: Any) -> None:
    torch.manual_seed(0)
    network, prompts = build()
    network.eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    greedy = Sampler(0.0, 1.0, None)
    with torch.inference_mode():
        alone = [
            network.generate(**prompt, max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS, do_sample=False)
            for prompt in prompts
        ]
        answers = [generate(network, prompt, greedy, limit=NEW_TOKENS) for prompt in prompts]
        ends = network.generation_config.eos_token_id
        in_turn = zip(*(islice(answer, NEW_TOKENS) for answer in answers), strict=True)
        chosen = list(zip(*([token for token, _ in step] for step in in_turn), strict=True))
    for whole, tokens in zip(alone, chosen, strict=True):
        expected = whole[0, -NEW_TOKENS:].tolist()
        # Where the end is chosen, transformers was told to go on.
        length = tokens.index(ends) if ends in tokens else NEW_TOKENS
        assert list(tokens[:length]) == expected[:length] and length > 3
    assert chosen[0] != chosen[1]


SCORES = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05]))


def test_without_temperature_the_most_probable_token_is_chosen() -> None:
    sampler = Sampler(0.0, 1.0, 1)
    assert {sampler(SCORES) for _ in range(20)} == {0}


def test_a_seed_gives_the_same_choices_and_none_gives_others() -> None:
    def choices(seed: int | None) -> list[int]:
        sampler = Sampler(1.0, 1.0, seed)
        return [sampler(SCORES) for _ in range(64)]

    assert choices(5) == choices(5) != choices(6)
    assert choices(None) != choices(None)
    assert choices(-1) == choices(-1)


def test_choices_begin_anew_after_a_restart() -> None:
    sampler = Sampler(1.0, 1.0, None)
    first = [sampler(SCORES) for _ in range(64)]
    sampler.restart()
    assert [sampler(SCORES) for _ in range(64)] == first


@pytest.mark.parametrize(
    ("top_p", "possible"), [(0.0, {0}), (0.5, {0}), (0.6, {0, 1}), (0.9, {0, 1, 2}), (1.0, {0, 1, 2, 3})]
)
def test_top_p_leaves_the_fewest_tokens_that_make_up_the_share(top_p: float, possible: set[int]) -> None:
    sampler = Sampler(1.0, top_p, 1)
    assert {sampler(SCORES) for _ in range(400)} == possible


@pytest.mark.parametrize("temperature", [1e-5, 1e-38, 1e-45, 5e-324])
@pytest.mark.parametrize("scores", [SCORES, 1e4 * SCORES, torch.tensor([9.0, float("-inf"), 0.0, 8.9])])
def test_a_tiny_temperature_is_as_good_as_none(temperature: float, scores: torch.Tensor) -> None:
    sampler = Sampler(temperature, 1.0, 1)
    assert {sampler(scores) for _ in range(20)} == {0}


def test_a_high_temperature_makes_choices_even() -> None:
    sampler = Sampler(100.0, 1.0, 1)
    counts = torch.bincount(torch.tensor([sampler(SCORES) for _ in range(2000)]), minlength=4)
    assert counts.min() > 400


def decode(tokens: list[int]) -> str:
    """Tokens are bytes."""
    return bytes(tokens).decode(errors="replace")


def write(text: str, *stop: str) -> tuple[list[str], Writer]:
    """What can be read after each byte of a text, until it ends."""
    writer, seen = Writer(decode, stop), []
    for token in text.encode():
        writer.add(token)
        seen.append(writer.text(complete=writer.stopped))
        if writer.stopped:
            break
    return seen, writer


def test_a_character_is_read_when_all_its_bytes_are_there() -> None:
    assert write("aé€")[0] == ["a", "a", "aé", "aé", "aé", "aé€"]


def test_half_a_character_at_the_end_is_told_as_such() -> None:
    writer = Writer(decode, ())
    writer.add("é".encode()[0])
    assert (writer.text(complete=False), writer.text(complete=True)) == ("", "\ufffd")


def test_the_text_ends_before_a_stop_text_whose_beginning_is_held_back() -> None:
    seen, writer = write("ab--cd---ef", "---")
    assert seen == ["a", "ab", "ab", "ab", "ab--c", "ab--cd", "ab--cd", "ab--cd", "ab--cd"]
    assert writer.stopped and writer.count == 9


def test_what_was_held_back_is_read_at_the_end() -> None:
    seen, writer = write("ab--", "---")
    assert seen[-1] == "ab" and writer.text(complete=True) == "ab--"


def test_the_first_stop_text_counts() -> None:
    assert write("one two", "two", "e t")[0][-1] == "on"
