"""Depth Anything V2 answers as transformers does, for images of any shape, and the embedded one knows the tabletop."""

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
from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, DPTImageProcessor

from tests.support.scenes import held_out
from vision_model_repo.demo.evaluation import evaluate
from vision_model_repo.errors import InvalidInput, NotFound
from vision_model_repo.models import depth_anything
from vision_model_repo.models.base import Checkpoint
from vision_model_repo.models.depth_anything import DepthAnything
from vision_model_repo.models.hub import Hub
from vision_model_repo.tasks.depth import DepthRequest

SIDE = 56
PATCH = 14
GREY_LEVEL = 1 / 127.5
"""Of pixels normalised to -1..1."""


def write(folder: Path, kind: str, *, keep_aspect_ratio: bool = True) -> Checkpoint:
    """A tiny checkpoint with random weights, lively enough to answer differently for different pixels."""
    torch.manual_seed(0)
    config = DepthAnythingConfig(
        backbone_config={
            "model_type": "dinov2",
            "image_size": SIDE,
            "patch_size": PATCH,
            "hidden_size": 32,
            "num_hidden_layers": 4,
            "num_attention_heads": 2,
            "out_features": ["stage1", "stage2", "stage3", "stage4"],
            "reshape_hidden_states": False,
            "initializer_range": 0.2,
        },
        patch_size=PATCH,
        reassemble_hidden_size=32,
        neck_hidden_sizes=[8, 8, 16, 16],
        fusion_hidden_size=16,
        head_hidden_size=8,
        depth_estimation_type=kind,
        max_depth=20 if kind == "metric" else 1,
    )
    network = DepthAnythingForDepthEstimation(config)
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            torch.nn.init.kaiming_normal_(module.weight)
    last: Any = network.head.conv3
    torch.nn.init.normal_(last.weight, std=0.01)
    torch.nn.init.ones_(last.bias)
    network.save_pretrained(folder)
    DPTImageProcessor(
        size={"height": SIDE, "width": SIDE},
        keep_aspect_ratio=keep_aspect_ratio,
        ensure_multiple_of=PATCH,
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    ).save_pretrained(folder)
    return Checkpoint(f"random/{kind}", folder)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return write(tmp_path_factory.mktemp("relative"), "relative")


def read(checkpoint: Checkpoint, dtype: str = "float32") -> DepthAnything:
    model = depth_anything.load(checkpoint, device="cpu", dtype=dtype)
    assert isinstance(model, DepthAnything)
    return model


@pytest.fixture(scope="module")
def model(checkpoint: Checkpoint) -> DepthAnything:
    return read(checkpoint)


def picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth stripes, another slope and speed in each channel, and a little noise."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width] / max(height, width)
    waves = [np.sin(2 * np.pi * (a * rows + b * columns) + c) for a, b, c in rng.uniform(0.5, 3, (3, 3))]
    return (np.stack(waves, -1) * 100 + 128 + rng.uniform(-9, 9, (height, width, 3))).astype(np.uint8)


def reference(checkpoint: Checkpoint, image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What transformers answers by its own processor, network and postprocessing, less what bicubic overshoots."""
    processor: Any = DPTImageProcessor.from_pretrained(checkpoint.folder)
    network = DepthAnythingForDepthEstimation.from_pretrained(checkpoint.folder).eval()
    with torch.inference_mode():
        outputs = network(**processor(image, return_tensors="pt"))
    depth = processor.post_process_depth_estimation(outputs, target_sizes=[image.shape[:2]])[0]["predicted_depth"]
    return depth.clamp(*outputs.predicted_depth.aminmax()).numpy()


SHAPES = [(56, 56), (90, 120), (120, 90), (20, 30), (33, 200), (500, 400), (57, 83), (300, 77)]


@pytest.mark.parametrize("keep_aspect_ratio", [True, False])
def test_pixels_are_the_processors_within_a_grey_level(tmp_path: Path, keep_aspect_ratio: bool) -> None:
    checkpoint = write(tmp_path, "relative", keep_aspect_ratio=keep_aspect_ratio)
    processor: Any = DPTImageProcessor.from_pretrained(checkpoint.folder)
    model = read(checkpoint)
    for height, width in SHAPES:
        image = picture(height, width)
        expected = processor(image, return_tensors="pt")["pixel_values"][0]
        pixels = model.prepare(image)
        assert pixels.shape == expected.shape, (height, width)
        assert (pixels - expected).abs().max() <= GREY_LEVEL * 1.001
        assert (pixels - expected).abs().mean() <= 0.1 * GREY_LEVEL


@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_the_answer_is_that_of_transformers(
    checkpoint: Checkpoint, model: DepthAnything, height: int, width: int
) -> None:
    image = picture(height, width)
    result, expected = model(DepthRequest(image)), reference(checkpoint, image)
    assert result.depth.shape == (height, width)
    assert result.depth.dtype == np.float32
    spread = np.ptp(expected)
    assert spread > 0.1
    assert np.abs(result.depth - expected).max() < 1e-3 * spread


def test_relative_depth_says_so(model: DepthAnything) -> None:
    result = model(DepthRequest(picture(60, 80)))
    assert (result.unit, result.intrinsics, result.extrinsics) == ("relative", None, None)


def test_metric_depth_is_in_metres_up_to_the_greatest_it_knows(tmp_path: Path) -> None:
    result = read(write(tmp_path, "metric"))(DepthRequest(picture(60, 80)))
    assert result.unit == "metre"
    assert 0 < result.depth.min() < result.depth.max() < 20


def test_a_batch_answers_as_each_alone(model: DepthAnything) -> None:
    images = [model.prepare(picture(90, 120, seed)) for seed in range(3)]
    assert len({model.image_key(image) for image in images}) == 1
    for together, image in zip(model.encode(images), images, strict=True):
        np.testing.assert_allclose(together.depth, model.encode([image])[0].depth, rtol=1e-4, atol=1e-5)


def test_images_of_other_input_sizes_are_no_company(model: DepthAnything) -> None:
    square, wide = (model.prepare(picture(*size)) for size in ((60, 60), (60, 120)))
    assert model.image_key(square) != model.image_key(wide)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 2), (1, 400), (400, 1), (3, 40)])
def test_even_a_line_of_pixels_is_answered(model: DepthAnything, height: int, width: int) -> None:
    depth = model(DepthRequest(picture(height, width))).depth
    assert depth.shape == (height, width)
    assert np.isfinite(depth).all()


@pytest.mark.parametrize(("height", "width"), [(60, 2000), (2000, 60)])
def test_a_large_strip_is_refused_before_it_takes_memory(model: DepthAnything, height: int, width: int) -> None:
    with pytest.raises(InvalidInput, match=f"{width} x {height}.*Send it in parts"):
        model.prepare(picture(height, width))


def test_the_map_stays_within_what_the_network_said(model: DepthAnything) -> None:
    raw = np.zeros((28, 28), np.float32)
    raw[:, 14:] = 3
    depth = depth_anything.resize_depth(raw, 100, 90)
    assert (depth.min(), depth.max()) == (0, 3)


def test_half_precision_is_close_and_without_steps(checkpoint: Checkpoint, model: DepthAnything) -> None:
    half, image = read(checkpoint, "bfloat16"), picture(90, 120)
    assert half.dtype == "bfloat16"
    assert half.memory_bytes() < model.memory_bytes()
    expected, result = model(DepthRequest(image)).depth, half(DepthRequest(image)).depth
    assert result.dtype == np.float32
    assert np.abs(result - expected).mean() < 0.05 * np.ptp(expected)
    raw = half.encode([half.prepare(image)])[0].depth
    assert len(np.unique(raw)) > raw.size / 2, "rounded to the few numbers of bfloat16"


def test_unloading_frees_the_weights(checkpoint: Checkpoint) -> None:
    model = read(checkpoint)
    model(DepthRequest(picture(60, 80)))
    weight = weakref.ref(model.network.head.conv1.weight)
    held = model.memory_bytes()
    assert held >= 4 * checkpoint.parameter_count
    model.unload()
    gc.collect()
    assert weight() is None
    assert model.memory_bytes() == 0


def altered(checkpoint: Checkpoint, folder: Path, **changes: object) -> Checkpoint:
    shutil.copytree(checkpoint.folder, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    return Checkpoint("some/thing", folder)


def test_another_kind_of_network_is_refused_by_name(checkpoint: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="some/thing is a checkpoint of the kind 'dpt', not depth_anything"):
        read(altered(checkpoint, tmp_path / "copy", model_type="dpt"))


def test_weights_that_do_not_belong_are_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    backbone = json.loads((checkpoint.folder / "config.json").read_text())["backbone_config"] | {"num_hidden_layers": 6}
    with pytest.raises(NotFound, match="weights are missing"):
        read(altered(checkpoint, tmp_path / "copy", backbone_config=backbone))


def test_a_damaged_config_is_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    damaged = altered(checkpoint, tmp_path / "copy")
    (damaged.folder / "config.json").write_text('{"model_type": "depth_any')
    with pytest.raises(NotFound, match="damaged"):
        read(damaged)


def test_a_checkpoint_must_say_how_it_wants_its_images(checkpoint: Checkpoint, tmp_path: Path) -> None:
    silent = altered(checkpoint, tmp_path / "copy")
    (silent.folder / "preprocessor_config.json").unlink()
    with pytest.raises(NotFound, match=r"preprocessor_config\.json") as caught:
        read(silent)
    assert str(tmp_path) not in caught.value.message


@pytest.fixture(scope="module")
def tabletop() -> DepthAnything:
    return read(Hub(offline=True).resolve("demo/depth-anything"))


@pytest.mark.parametrize(("width", "height", "error"), [(224, 224, 0.09), (320, 240, 0.09), (240, 320, 0.12)])
def test_the_embedded_checkpoint_measures_the_tabletop(
    tabletop: DepthAnything, width: int, height: int, error: float
) -> None:
    figures = evaluate("depth", tabletop, [held_out(index, width, height) for index in range(10)])
    assert figures["abs_rel"] < error
    assert figures["abs_rel_objects"] < error
