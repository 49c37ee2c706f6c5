"""Depth Anything 3: what is known of its checkpoints without the package, and what they answer with it."""

from __future__ import annotations

import gc
import json
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_model

from tests.models.encoded import complete
from vision_model_repo.errors import InvalidInput, NotFound
from vision_model_repo.models import depth_anything, depth_anything_3
from vision_model_repo.models.base import Checkpoint
from vision_model_repo.models.catalog import DEPTH_ANYTHING_3
from vision_model_repo.models.depth_anything_3 import DepthAnything3
from vision_model_repo.tasks.depth import DepthRequest

with_package = [
    pytest.mark.skipif(not DEPTH_ANYTHING_3.installed, reason="needs the extra depth-anything-3"),
    # Of the package itself, as it is imported.
    pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*register_new_resolver:UserWarning"),
]

NESTED = """
__object__: {path: depth_anything_3.model.da3, name: NestedDepthAnything3Net, args: as_params}
anyview: {__inherit__: depth_anything_3.configs.da3-small}
metric:
  __object__: {path: depth_anything_3.model.da3, name: DepthAnything3Net, args: as_params}
  net:
    __object__: {path: depth_anything_3.model.dinov2.dinov2, name: DinoV2, args: as_params}
    name: vits
    out_layers: [2, 5, 8, 11]
    alt_start: -1
    qknorm_start: -1
    rope_start: -1
    cat_token: false
  head:
    __object__: {path: depth_anything_3.model.dpt, name: DPT, args: as_params}
    dim_in: 384
    output_dim: 1
    features: 32
    out_channels: [24, 48, 96, 96]
"""
"""A nested network of the package's own parts, a twentieth of the published one."""


def picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def write(folder: Path, name: str) -> Checkpoint:
    """A checkpoint as the package saves one, with random weights."""
    from depth_anything_3.cfg import create_object, load_config  # pyright: ignore[reportMissingImports]
    from depth_anything_3.registry import MODEL_REGISTRY  # pyright: ignore[reportMissingImports]

    torch.manual_seed(0)
    network: Any = create_object(load_config(MODEL_REGISTRY[name]))
    if name.startswith("da3nested"):
        # Random weights would see sky everywhere.
        torch.nn.init.constant_(network.da3_metric.head.scratch.sky_output_conv2[-1].bias, -100)
    (folder / "config.json").write_text(json.dumps({"model_name": name}))
    save_model(torch.nn.ModuleDict({"model": network}), str(folder / "model.safetensors"))
    return Checkpoint(f"random/{name}", folder)


@pytest.fixture
def small_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(depth_anything_3, "LONGER_SIDE", 70)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return write(tmp_path_factory.mktemp("da3"), "da3-small")


@pytest.fixture
def nested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkpoint:
    from depth_anything_3.registry import MODEL_REGISTRY  # pyright: ignore[reportMissingImports]

    (tmp_path / "nested.yaml").write_text(NESTED)
    monkeypatch.setitem(MODEL_REGISTRY, "da3nested-tiny", str(tmp_path / "nested.yaml"))
    return write(tmp_path, "da3nested-tiny")


def read(checkpoint: Checkpoint, dtype: str = "float32") -> DepthAnything3:
    model = depth_anything.load(checkpoint, device="cpu", dtype=dtype)
    assert isinstance(model, DepthAnything3)
    return model


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"model_name": "da3-base"}, True),
        ({"model_name": "DA3NESTED-GIANT-LARGE"}, True),
        ({"config": {"__object__": {"path": "depth_anything_3.model.da3", "name": "DepthAnything3Net"}}}, True),
        ({"model_type": "depth_anything"}, False),
        ({"model_type": "depth_anything", "model_name": None, "config": None}, False),
        ({"config": {"__object__": "depth_anything_3"}}, False),
        ({}, False),
    ],
)
def test_a_config_says_what_it_is_of(config: dict[str, object], expected: bool) -> None:
    assert depth_anything_3.describes(config) is expected


@pytest.mark.parametrize(
    ("image", "network"),
    [
        # As the package's own InputProcessor makes them.
        ((240, 320), (378, 504)),
        ((1125, 2000), (280, 504)),
        ((500, 700), (364, 504)),
        ((833, 1511), (280, 504)),
        ((504, 378), (504, 378)),
        # The package fails for these.
        ((1, 1), (504, 504)),
        ((1, 4000), (14, 504)),
    ],
)
def test_images_are_scaled_to_whole_patches(image: tuple[int, int], network: tuple[int, int]) -> None:
    assert depth_anything_3.resized_size(*image) == network


@pytest.mark.skipif(DEPTH_ANYTHING_3.installed, reason="the extra is there")
def test_without_the_package_the_answer_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_name": "da3-base"}))
    with pytest.raises(NotFound, match=r"pip install 'vision-model-repo\[depth-anything-3\]'"):
        depth_anything.load(Checkpoint("my/da3", tmp_path), device="cpu", dtype="float32")


@pytest.mark.usefixtures("small_inputs")
class TestWithThePackage:
    pytestmark = with_package

    def test_depth_and_camera_are_of_the_image_as_sent(self, checkpoint: Checkpoint) -> None:
        result = read(checkpoint)(DepthRequest(picture(90, 120)))
        assert (result.depth.shape, result.depth.dtype, result.unit) == ((90, 120), np.float32, "relative")
        assert result.intrinsics is not None
        assert result.extrinsics is not None
        np.testing.assert_allclose(result.intrinsics[:2, 2], [60, 45], rtol=1e-5)
        np.testing.assert_array_equal(result.extrinsics[3], [0, 0, 0, 1])

    def test_relative_depth_is_the_inverse_of_what_the_network_says(self, checkpoint: Checkpoint) -> None:
        model = read(checkpoint)
        item = complete(model, DepthRequest(picture(70, 56)))[0]
        raw = model.forward([item])[0]
        np.testing.assert_allclose(model.postprocess(raw, item).depth, 1 / raw.depth, rtol=1e-5)

    def test_a_batch_answers_as_each_alone(self, checkpoint: Checkpoint) -> None:
        model = read(checkpoint)
        images = [model.prepare(picture(60, 80, seed)) for seed in range(3)]
        assert model.max_batch > 1
        assert len({model.image_key(image) for image in images}) == 1
        for together, image in zip(model.encode(images), images, strict=True):
            alone = model.encode([image])[0]
            np.testing.assert_allclose(together.depth, alone.depth, rtol=1e-4)
            np.testing.assert_allclose(together.extrinsics, alone.extrinsics, atol=1e-4)  # pyright: ignore[reportArgumentType, reportCallIssue]

    @pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 300), (300, 2)])
    def test_even_a_line_of_pixels_is_answered(self, checkpoint: Checkpoint, height: int, width: int) -> None:
        depth = read(checkpoint)(DepthRequest(picture(height, width))).depth
        assert depth.shape == (height, width)
        assert np.isfinite(depth).all()

    def test_half_precision_is_close(self, checkpoint: Checkpoint) -> None:
        request = DepthRequest(picture(60, 80))
        half = read(checkpoint, "bfloat16")
        assert half.dtype == "bfloat16"
        np.testing.assert_allclose(half(request).depth, read(checkpoint)(request).depth, rtol=0.02)

    def test_the_nested_network_answers_in_metres_one_image_at_a_time(self, nested: Checkpoint) -> None:
        model = read(nested)
        assert model.max_batch == 1
        result = model(DepthRequest(picture(60, 80)))
        assert result.unit == "metre"
        assert result.intrinsics is not None
        np.testing.assert_array_equal(result.depth, model(DepthRequest(picture(60, 80))).depth)

    def test_nothing_but_sky_has_no_depth(self, nested: Checkpoint) -> None:
        model = read(nested)
        torch.nn.init.constant_(model.network.da3_metric.head.scratch.sky_output_conv2[-1].bias, 100)
        with pytest.raises(InvalidInput, match="nothing but sky"):
            model(DepthRequest(picture(60, 80)))

    def test_a_kind_that_the_package_does_not_know_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text(json.dumps({"model_name": "da3-enormous"}))
        with pytest.raises(NotFound, match=r"'da3-enormous'.*It knows.*da3-small"):
            read(Checkpoint("my/da3", tmp_path))

    def test_weights_of_another_network_are_refused(self, checkpoint: Checkpoint, tmp_path: Path) -> None:
        save_model(torch.nn.ModuleDict({"model": torch.nn.Linear(2, 2)}), str(tmp_path / "model.safetensors"))
        (tmp_path / "config.json").write_bytes((checkpoint.folder / "config.json").read_bytes())
        with pytest.raises(NotFound, match="weights are missing"):
            read(Checkpoint("my/da3", tmp_path))

    def test_a_checkpoint_names_nothing_to_import(self, tmp_path: Path) -> None:
        config = {"model_name": "os", "config": {"__object__": {"path": "depth_anything_3.cfg", "name": "load_config"}}}
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(NotFound, match="does not know"):
            read(Checkpoint("my/da3", tmp_path))

    def test_unloading_frees_the_weights(self, checkpoint: Checkpoint) -> None:
        model = read(checkpoint)
        weight = weakref.ref(next(model.network.parameters()))
        model.unload()
        gc.collect()
        assert weight() is None
        assert model.memory_bytes() == 0
