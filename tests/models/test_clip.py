"""Images and texts are embedded as transformers and OpenCLIP do it, whoever shares their pass."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

from tests.support.scenes import held_out
from vision_model_repo.demo.captions import caption, layout
from vision_model_repo.engine.engine import Engine
from vision_model_repo.errors import InvalidInput, NotFound
from vision_model_repo.models import clip
from vision_model_repo.models.base import Checkpoint
from vision_model_repo.models.clip import DualEncoder
from vision_model_repo.models.hub import Hub
from vision_model_repo.settings import Settings
from vision_model_repo.tasks.embedding import EmbeddingRequest

TEXTS = ("", "a", "b c a", "c " * 40)
WORDS = ["<|startoftext|>", "a</w>", "b</w>", "c</w>", "<|endoftext|>"]


def photo(height: int, width: int) -> NDArray[np.uint8]:
    noise = np.random.default_rng(height).integers(0, 255, (6, 8, 3), np.uint8)
    return np.array(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC))


PHOTOS = (photo(60, 91), photo(90, 50), photo(40, 40))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A CLIP of random weights, with a tokenizer of three words."""
    folder = tmp_path_factory.mktemp("clip")
    tokenizer: Any = CLIPTokenizer(vocab={word: index for index, word in enumerate(WORDS)}, merges=[])
    tokenizer.save_pretrained(folder)
    processor: Any = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    processor.save_pretrained(folder)
    torch.manual_seed(0)
    sizes: Any = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    text = {**sizes, "vocab_size": len(WORDS), "max_position_embeddings": 10, "bos_token_id": 0, "eos_token_id": 4}
    config = CLIPConfig(
        text_config={**text, "pad_token_id": 4},
        vision_config={**sizes, "image_size": 32, "patch_size": 16},
        projection_dim=12,
        initializer_factor=20.0,
    )
    network: Any = CLIPModel(config)
    network.save_pretrained(folder)
    return Checkpoint("random/clip", folder)


@pytest.fixture(scope="module")
def model(checkpoint: Checkpoint) -> DualEncoder:
    return clip.load(checkpoint, device="cpu", dtype="float32")


@pytest.mark.parametrize("text", TEXTS)
def test_texts_are_embedded_as_transformers_does(model: DualEncoder, checkpoint: Checkpoint, text: str) -> None:
    tokenizer: Any = CLIPTokenizer.from_pretrained(checkpoint.folder)
    network: Any = CLIPModel.from_pretrained(checkpoint.folder).eval()
    with torch.no_grad():
        inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=10)
        plain = network.get_text_features(**inputs).pooler_output[0].numpy()
    found = model(EmbeddingRequest(texts=("c c c a b", text), normalize=False))
    assert found.vectors[1] == pytest.approx(plain, abs=1e-5)


@pytest.mark.parametrize("image", PHOTOS, ids=lambda image: f"{image.shape[0]}x{image.shape[1]}")
def test_images_of_any_shape_are_prepared_as_transformers_does(
    model: DualEncoder, checkpoint: Checkpoint, image: NDArray[np.uint8]
) -> None:
    processor: Any = CLIPImageProcessor.from_pretrained(checkpoint.folder)
    expected = processor(images=image, return_tensors="pt")["pixel_values"][0].numpy()
    item = model.preprocess(EmbeddingRequest(images=(image,)))
    assert item.images[0].numpy() == pytest.approx(expected, abs=1.1 / (255 * 0.26))


def test_images_are_embedded_as_by_the_plain_forward(model: DualEncoder) -> None:
    item = model.preprocess(EmbeddingRequest(images=PHOTOS, normalize=False))
    with torch.no_grad():
        plain = model.network.network.get_image_features(pixel_values=torch.stack(item.images)).pooler_output
    assert model(EmbeddingRequest(images=PHOTOS, normalize=False)).vectors == pytest.approx(plain.numpy(), abs=1e-5)


def test_nothing_depends_on_its_company(model: DualEncoder) -> None:
    texts = np.concatenate([model(EmbeddingRequest(texts=(text,))).vectors for text in TEXTS])
    assert model(EmbeddingRequest(texts=TEXTS)).vectors == pytest.approx(texts, abs=1e-5)
    many = PHOTOS * 6
    images = np.concatenate([model(EmbeddingRequest(images=(image,))).vectors for image in many])
    assert model(EmbeddingRequest(images=many)).vectors == pytest.approx(images, abs=1e-5)


def test_images_and_texts_share_no_pass(model: DualEncoder) -> None:
    image, text = (EmbeddingRequest(images=PHOTOS[:1]), EmbeddingRequest(texts=("a",)))
    assert model.batch_key(model.preprocess(image)) != model.batch_key(model.preprocess(text))


def test_a_long_text_keeps_the_token_that_ends_it(model: DualEncoder) -> None:
    item = model.preprocess(EmbeddingRequest(texts=("a", "c " * 40)))
    assert (len(item.texts[1]), item.texts[1][-1]) == (10, 4)
    assert item.truncated == (1,)


@pytest.mark.parametrize(
    "request_",
    [
        EmbeddingRequest(),
        EmbeddingRequest(images=PHOTOS[:1], texts=("a",)),
        EmbeddingRequest(texts=("a",), prompt="query"),
    ],
)
def test_requests_of_both_kinds_or_none_are_refused(model: DualEncoder, request_: EmbeddingRequest) -> None:
    with pytest.raises(InvalidInput):
        model.preprocess(request_)


@pytest.fixture
def open_checkpoint(tmp_path: Path) -> Checkpoint:
    """A network of OpenCLIP's with random weights, in the files that it has on the hub."""
    config = {
        "embed_dim": 12,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "head_width": 32, "patch_size": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    }
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    torch.manual_seed(0)
    network: Any = open_clip.create_model(f"local-dir:{tmp_path}", load_weights=False)
    save_file(
        {name: weight.contiguous() for name, weight in network.state_dict().items()},
        tmp_path / "open_clip_model.safetensors",
    )
    return Checkpoint("random/open-clip", tmp_path)


def test_a_folder_of_open_clip_answers_as_it_does_itself(open_checkpoint: Checkpoint) -> None:
    model = clip.load(open_checkpoint, device="cpu", dtype="float32")
    network, _, transform = open_clip.create_model_and_transforms(f"local-dir:{open_checkpoint.folder}")
    tokenizer: Any = open_clip.get_tokenizer(f"local-dir:{open_checkpoint.folder}")
    texts = ["", "a cat", "word " * 100]
    prepared: Any = transform(Image.fromarray(PHOTOS[0]))  # type: ignore[operator]
    with torch.no_grad():
        plain: Any = network.eval().encode_text(tokenizer(texts))  # type: ignore[operator]
    found = model(EmbeddingRequest(texts=tuple(texts), normalize=False))
    assert found.vectors == pytest.approx(plain.numpy(), abs=1e-5)
    assert found.truncated == (2,)
    item = model.preprocess(EmbeddingRequest(images=PHOTOS[:1]))
    assert item.images[0].numpy() == pytest.approx(prepared.numpy(), abs=1.1 / (255 * 0.26))


def test_a_pickle_of_open_clip_is_not_read(open_checkpoint: Checkpoint) -> None:
    weights = open_checkpoint.folder / "open_clip_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(NotFound, match="pickles are not read"):
        clip.load(open_checkpoint, device="cpu", dtype="float32")


def test_the_embedded_pair_finds_scenes_by_their_captions() -> None:
    model = clip.load(Hub(offline=True).resolve("demo/clip"), device="cpu", dtype="float32")
    views = [held_out(index) for index in range(50)]
    texts = tuple(caption(layout(view), index) for index, view in enumerate(views))
    said = model(EmbeddingRequest(texts=texts)).vectors
    seen = model(EmbeddingRequest(images=tuple(view.image for view in views))).vectors
    assert np.mean((said @ seen.T).argmax(axis=1) == np.arange(50)) >= 0.6


async def test_both_towers_are_run_before_it_counts_as_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[bool] = set()
    forward = DualEncoder.forward

    def spy(model: DualEncoder, items: Any) -> Any:
        seen.add(bool(items[0].images))
        return forward(model, items)

    monkeypatch.setattr(DualEncoder, "forward", spy)
    settings: dict[str, Any] = {"device": "cpu", "hf_hub_offline": True, "warm_up": "on", "max_batch_size": 2}
    engine = Engine(Settings(_env_file=None, **settings))  # pyright: ignore[reportCallIssue]
    await engine.start()
    try:
        await engine.manager.load("clip", "demo/clip")
        assert seen == {True, False}
    finally:
        await engine.close()
