"""SigLIP, in the form of transformers and of OpenCLIP: the padding that fills up a text counts in its vector."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import sentencepiece
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from transformers import SiglipConfig, SiglipImageProcessor, SiglipModel, SiglipProcessor, SiglipTokenizer

from vision_model_repo.models import clip
from vision_model_repo.models.base import Checkpoint
from vision_model_repo.tasks.embedding import EmbeddingRequest

LENGTH, SIDE = 16, 32
TEXTS = ("", "a red cube", "A Red, cube!", "two big " * 20)
CUT = (3,)
WORDS = "a red blue cube sphere left right two big small cone behind table the".split()


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """SigLIP's own kind, taught some words."""
    chance = np.random.default_rng(0)
    written = BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(" ".join(chance.choice(WORDS, 6)) for _ in range(300)),
        model_writer=written,
        vocab_size=60,
        hard_vocab_limit=False,
        minloglevel=2,
        unk_id=0,
        eos_id=1,
        bos_id=-1,
        pad_id=-1,
    )
    path = tmp_path_factory.mktemp("words") / "spiece.model"
    path.write_bytes(written.getvalue())
    return SiglipTokenizer(str(path), model_max_length=LENGTH)


@pytest.fixture(scope="module")
def processor(tokenizer: Any) -> Any:
    return SiglipProcessor(SiglipImageProcessor(size={"height": SIDE, "width": SIDE}), tokenizer)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, processor: Any) -> Checkpoint:
    folder = tmp_path_factory.mktemp("siglip")
    processor.save_pretrained(folder)
    torch.manual_seed(0)
    sizes: Any = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    words: Any = {"vocab_size": 64, "max_position_embeddings": LENGTH, "pad_token_id": 1, "bos_token_id": 1}
    network: Any = SiglipModel(
        SiglipConfig(
            text_config={**sizes, **words, "eos_token_id": 1},
            vision_config={**sizes, "image_size": SIDE, "patch_size": 16},
        )
    )
    network.save_pretrained(folder)
    return Checkpoint("random/siglip", folder)


@pytest.fixture(scope="module")
def picture() -> NDArray[np.uint8]:
    """Of the size that the networks see: it reaches them as it is."""
    return np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3), np.uint8)


@torch.inference_mode()
def test_it_embeds_as_transformers_does(checkpoint: Checkpoint, processor: Any, picture: NDArray[np.uint8]) -> None:
    model = clip.load(checkpoint, device="cpu", dtype="float32")
    network: Any = SiglipModel.from_pretrained(checkpoint.folder).eval()
    # It was trained on texts filled up to one length, without a mask, so that its last token is of padding mostly.
    tokens = processor.tokenizer(
        list(TEXTS), padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt"
    )
    said = network.get_text_features(input_ids=tokens["input_ids"]).pooler_output.numpy()
    found = model(EmbeddingRequest(texts=TEXTS, normalize=False))
    assert found.vectors == pytest.approx(said, abs=1e-5)
    assert np.abs(said[0] - said[1]).max() > 0.1
    assert found.truncated == CUT
    alone = [model(EmbeddingRequest(texts=(text,), normalize=False)).vectors[0] for text in TEXTS]
    assert np.array(alone) == pytest.approx(said, abs=1e-5)
    pixels = processor(images=picture, return_tensors="pt")["pixel_values"]
    seen = network.get_image_features(pixel_values=pixels).pooler_output.numpy()
    assert model(EmbeddingRequest(images=(picture,), normalize=False)).vectors == pytest.approx(seen, abs=1e-5)


def test_a_photo_that_is_not_square_is_squeezed_as_its_files_say(checkpoint: Checkpoint, processor: Any) -> None:
    model = clip.load(checkpoint, device="cpu", dtype="float32")
    noise = np.random.default_rng(2).integers(0, 256, (6, 8, 3), np.uint8)
    photo = np.array(Image.fromarray(noise).resize((90, 60), Image.Resampling.BICUBIC))
    expected = processor(images=photo, return_tensors="pt")["pixel_values"][0].numpy()
    prepared = model.preprocess(EmbeddingRequest(images=(photo,))).images[0].numpy()
    assert prepared == pytest.approx(expected, abs=1.1 / (255 * 0.5))


@pytest.fixture
def open_checkpoint(tmp_path: Path, tokenizer: Any) -> Checkpoint:
    """The files of timm/ViT-B-16-SigLIP, with the smallest of timm's vision transformers in it."""
    vision = {"image_size": SIDE, "timm_model_name": "test_vit", "timm_pool": "map", "timm_proj": "none"}
    text = {
        "context_length": LENGTH,
        "vocab_size": 64,
        "width": 64,
        "heads": 2,
        "layers": 1,
        "pool_type": "last",
        "hf_tokenizer_name": "timm/ViT-B-16-SigLIP",
        "tokenizer_kwargs": {"clean": "canonicalize"},
        "no_causal_mask": True,
        "proj_bias": True,
    }
    config = {"embed_dim": 64, "custom_text": True, "init_logit_bias": -10, "vision_cfg": vision, "text_cfg": text}
    prepared = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": prepared}))
    tokenizer.save_pretrained(tmp_path)
    torch.manual_seed(0)
    network: Any = open_clip.create_model(f"local-dir:{tmp_path}", load_weights=False)
    weights = {name: weight.contiguous() for name, weight in network.state_dict().items()}
    save_file(weights, tmp_path / "open_clip_model.safetensors")
    return Checkpoint("random/open-siglip", tmp_path)


@torch.inference_mode()
def test_in_open_clips_form_it_embeds_as_open_clip_does(
    open_checkpoint: Checkpoint, picture: NDArray[np.uint8]
) -> None:
    name = f"local-dir:{open_checkpoint.folder}"
    network, _, transform = open_clip.create_model_and_transforms(name)
    tokenizer: Any = open_clip.get_tokenizer(name)
    plain: Any = network.eval()
    model = clip.load(open_checkpoint, device="cpu", dtype="float32")
    found = model(EmbeddingRequest(texts=TEXTS, normalize=False))
    assert found.vectors == pytest.approx(plain.encode_text(tokenizer(list(TEXTS))).numpy(), abs=1e-5)
    assert found.vectors[1] == pytest.approx(found.vectors[2], abs=1e-6), "punctuation and case do not count"
    assert found.truncated == CUT
    prepared: Any = transform(Image.fromarray(picture))  # type: ignore[operator]
    seen = plain.encode_image(prepared[None]).numpy()
    assert model(EmbeddingRequest(images=(picture,), normalize=False)).vectors == pytest.approx(seen, abs=1e-5)
