"""DINOv3 answers as transformers does, in both architectures, and the embedded one knows like objects as alike."""

from __future__ import annotations

import gc
import json
import shutil
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import (
    DINOv3ConvNextConfig,
    DINOv3ConvNextModel,
    DINOv3ViTConfig,
    DINOv3ViTImageProcessor,
    DINOv3ViTModel,
    PreTrainedModel,
)

from tests.models.encoded import complete
from tests.support.scenes import held_out
from vision_model_repo.demo.evaluation import evaluate
from vision_model_repo.errors import NotFound
from vision_model_repo.models import dinov3
from vision_model_repo.models.base import Checkpoint
from vision_model_repo.models.dinov3 import Dinov3
from vision_model_repo.models.hub import Hub
from vision_model_repo.tasks.features import FeatureRequest, FeatureResult

HEIGHT, WIDTH = 64, 96
REGISTERS = 2
GREY_LEVEL = 1 / (255 * 0.224)
"""Of normalised pixels, in the channel where it is largest."""


def vision_transformer() -> PreTrainedModel:
    return DINOv3ViTModel(
        DINOv3ViTConfig(
            patch_size=16,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_register_tokens=REGISTERS,
            initializer_range=0.2,
        )
    )


def convnext() -> PreTrainedModel:
    config = DINOv3ConvNextConfig(
        hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], layer_scale_init_value=1.0, initializer_range=0.2
    )
    return DINOv3ConvNextModel(config)


@pytest.fixture(scope="module", params=[vision_transformer, convnext])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tmp_path_factory.mktemp("dinov3")
    torch.manual_seed(0)
    request.param().save_pretrained(folder)
    DINOv3ViTImageProcessor(size={"height": HEIGHT, "width": WIDTH}).save_pretrained(folder)
    return Checkpoint(f"random/{request.param.__name__}", folder)


@pytest.fixture(scope="module")
def model(checkpoint: Checkpoint) -> Dinov3:
    return dinov3.load(checkpoint, device="cpu", dtype="float32")


def picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def features(model: Dinov3, request: FeatureRequest) -> FeatureResult:
    result = model(request)
    assert isinstance(result, FeatureResult)
    return result


def test_pixels_are_the_processors_within_a_grey_level(checkpoint: Checkpoint, model: Dinov3) -> None:
    processor: Any = DINOv3ViTImageProcessor.from_pretrained(checkpoint.folder)
    for height, width in [(64, 96), (96, 64), (200, 333), (20, 10), (1, 1), (3, 400)]:
        image = picture(height, width)
        expected = processor(image, input_data_format="channels_last", return_tensors="pt")["pixel_values"][0]
        pixels = model.prepare(image)
        assert pixels.shape == expected.shape == (3, HEIGHT, WIDTH)
        assert (pixels - expected).abs().max() <= GREY_LEVEL


def test_the_answer_is_that_of_transformers(checkpoint: Checkpoint, model: Dinov3) -> None:
    image = picture(HEIGHT, WIDTH)
    network_class = dinov3.NETWORKS[json.loads((checkpoint.folder / "config.json").read_text())["model_type"]]
    network: Any = network_class.from_pretrained(checkpoint.folder)
    processor: Any = DINOv3ViTImageProcessor.from_pretrained(checkpoint.folder)
    with torch.inference_mode():
        expected = network.eval()(**processor(image, return_tensors="pt"))
    result = features(model, FeatureRequest(image))
    assert result.last_hidden_state.dtype == result.pooler_output.dtype == np.float32
    np.testing.assert_allclose(result.last_hidden_state, expected.last_hidden_state[0], atol=1e-4)
    np.testing.assert_allclose(result.pooler_output, expected.pooler_output[0], atol=1e-4)


def test_tokens_are_the_pooled_one_the_registers_and_the_grid(checkpoint: Checkpoint, model: Dinov3) -> None:
    result = features(model, FeatureRequest(picture(50, 70)))
    transformer = checkpoint.model_id == "random/vision_transformer"
    assert result.grid == ((4, 6) if transformer else (2, 3))
    assert len(result.last_hidden_state) == 1 + (REGISTERS if transformer else 0) + result.grid[0] * result.grid[1]
    np.testing.assert_array_equal(result.last_hidden_state[0], result.pooler_output)


def test_patches_lie_row_by_row(model: Dinov3) -> None:
    plain = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    rows, columns = features(model, FeatureRequest(plain)).grid
    marked = plain.copy()
    # The middle of the leftmost patch of the second row.
    side = HEIGHT // rows
    marked[side + side // 4 : 2 * side - side // 4, side // 4 : side - side // 4] = [255, 0, 0]
    before, after = (features(model, FeatureRequest(image)).last_hidden_state for image in (plain, marked))
    changed = np.linalg.norm(after - before, axis=1)[-rows * columns :]
    assert int(changed.argmax()) == columns


def test_unit_length_is_for_every_vector(model: Dinov3) -> None:
    image = picture(HEIGHT, WIDTH)
    plain, unit = (features(model, FeatureRequest(image, normalize=normalize)) for normalize in (False, True))
    np.testing.assert_allclose(np.linalg.norm(unit.last_hidden_state, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(unit.pooler_output, plain.pooler_output / np.linalg.norm(plain.pooler_output), rtol=1e-5)


def test_a_batch_answers_as_each_alone_with_its_own_wish(model: Dinov3) -> None:
    requests = [FeatureRequest(picture(60, 90, seed), normalize=seed == 1) for seed in range(3)]
    items = complete(model, *requests)
    assert len({model.batch_key(item) for item in items}) == 1
    for raw, item, request in zip(model.forward(items), items, requests, strict=True):
        together, alone = model.postprocess(raw, item), features(model, request)
        assert isinstance(together, FeatureResult)
        np.testing.assert_allclose(together.last_hidden_state, alone.last_hidden_state, atol=1e-4)
        np.testing.assert_allclose(together.pooler_output, alone.pooler_output, atol=1e-4)


def test_half_precision_is_close_and_answered_in_float32(checkpoint: Checkpoint, model: Dinov3) -> None:
    half = dinov3.load(checkpoint, device="cpu", dtype="bfloat16")
    assert half.dtype == "bfloat16"
    assert half.memory_bytes() < 0.6 * model.memory_bytes()
    request = FeatureRequest(picture(HEIGHT, WIDTH), normalize=True)
    expected, result = features(model, request), features(half, request)
    assert result.pooler_output.dtype == np.float32
    assert result.pooler_output @ expected.pooler_output > 0.99


def test_unloading_frees_the_weights(checkpoint: Checkpoint) -> None:
    model = dinov3.load(checkpoint, device="cpu", dtype="float32")
    features(model, FeatureRequest(picture(20, 20)))
    weight = weakref.ref(next(model.network.parameters()))
    assert model.memory_bytes() >= 4 * checkpoint.parameter_count
    model.unload()
    gc.collect()
    assert weight() is None
    assert model.memory_bytes() == 0


@pytest.mark.parametrize(
    ("file", "changes", "reason"),
    [
        ("config.json", {"model_type": "dinov2"}, "of the kind 'dinov2', not dinov3_vit or dinov3_convnext"),
        ("preprocessor_config.json", {"size": {"shortest_edge": 224}}, "no height and width"),
    ],
)
def test_what_is_not_dinov3_is_refused(
    checkpoint: Checkpoint, tmp_path: Path, file: str, changes: dict[str, object], reason: str
) -> None:
    folder = shutil.copytree(checkpoint.folder, tmp_path / "copy")
    (folder / file).write_text(json.dumps(json.loads((folder / file).read_text()) | changes))
    with pytest.raises(NotFound, match=reason):
        dinov3.load(Checkpoint("some/thing", folder), device="cpu", dtype="float32")


def test_the_embedded_checkpoint_finds_objects_alike_in_other_scenes() -> None:
    tabletop = dinov3.load(Hub(offline=True).resolve("demo/dinov3"), device="cpu", dtype="float32")
    figures = evaluate("features", tabletop, [held_out(index) for index in range(30)])
    # Of 24 kinds, and some of the objects are the only ones of their kind.
    assert figures["nearest_same"] > 0.7
