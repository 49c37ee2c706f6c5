"""What all families share: pixels on either side, attention, tuning, and that nothing stays behind."""

from __future__ import annotations

import gc
import json
import shutil
import threading
import weakref
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F
from torchvision.transforms.v2 import InterpolationMode
from transformers import DINOv3ViTConfig, DINOv3ViTImageProcessor, DINOv3ViTModel, PreTrainedModel

from vision_model_repo.engine.engine import Engine
from vision_model_repo.engine.warmup import warm_batches
from vision_model_repo.engine.worker import DeviceWorker
from vision_model_repo.errors import NotFound
from vision_model_repo.models import dinov3, grounding_dino, image_classifier, sam3, torch_model
from vision_model_repo.models.base import Checkpoint, EncoderModel
from vision_model_repo.models.catalog import BUILT_IN, ModelSpec
from vision_model_repo.models.hub import Hub
from vision_model_repo.models.torch_model import ImageInput, TorchModel
from vision_model_repo.settings import Settings
from vision_model_repo.tasks.examples import examples
from vision_model_repo.tasks.features import FeatureRequest, FeatureResult

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
GREY_LEVEL = 1 / (255 * min(STD))
"""Of normalised pixels, in the channel where it is largest."""
SIZES = ((480, 640), (37, 53), (96, 96), (96, 300), (700, 90))

ABOUT_ONE_IMAGE = ("segmentation", "detection", "depth", "features")
every_family = pytest.mark.parametrize(
    "spec", [spec for spec in BUILT_IN if spec.task in ABOUT_ONE_IMAGE], ids=lambda spec: spec.model_type
)
needs_compiler = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")), reason="torch.compile needs a C++ compiler on the CPU"
)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def demo(spec: ModelSpec, device: str = "cpu") -> Any:
    assert spec.demo is not None
    return spec.loader()(Hub(offline=True).resolve(spec.demo), device=device, dtype="float32")


def image_input(resample: Any = InterpolationMode.BILINEAR, device: str = "cpu") -> ImageInput:
    return ImageInput(lambda height, width: (96, 96), mean=MEAN, std=STD, resample=resample, device=device)


def picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def numbers(result: Any) -> Iterator[NDArray[np.floating[Any]]]:
    """All arrays of floats in a result, in order."""
    if isinstance(result, np.ndarray):
        if np.issubdtype(result.dtype, np.floating):
            yield result
    elif isinstance(result, tuple):
        for each in result:
            yield from numbers(each)
    elif is_dataclass(result):
        for field in fields(result):
            yield from numbers(getattr(result, field.name))


# Pixels


@pytest.mark.parametrize(("resample", "beyond"), [(InterpolationMode.BILINEAR, 0.0), (InterpolationMode.BICUBIC, 1e-4)])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_gpu)])
def test_the_devices_pixels_are_the_cpus_within_a_grey_level(
    resample: InterpolationMode, beyond: float, device: str
) -> None:
    """Of noise, the worst case: there a cubic's share of pixels that are two levels off is `beyond`."""
    host, there = image_input(resample), image_input(resample, device)
    host.on_device, there.on_device = False, True
    images = [picture(*size, seed) for seed, size in enumerate(SIZES)]
    on_host = host.batch([host.prepare(image) for image in images], torch.float32)
    handed_over = [there.prepare(image) for image in images]
    assert {pixels.dtype for pixels in handed_over} == {torch.uint8}
    on_device = there.batch(handed_over, torch.float32)
    assert on_device.shape == on_host.shape == (len(SIZES), 3, 96, 96)
    assert on_device.device.type == device
    difference = (on_device.cpu() - on_host).abs()
    assert difference.max() <= 2.02 * GREY_LEVEL
    assert (difference > 1.01 * GREY_LEVEL).float().mean() <= beyond


def test_only_a_gpu_is_handed_pixels_as_they_came() -> None:
    assert not image_input(device="cpu").on_device
    assert image_input(device="cuda:0").on_device
    assert not image_input(InterpolationMode.LANCZOS, device="cuda:0").on_device, "it has no kernel for it"


def test_what_is_too_large_or_shrinks_too_far_is_resized_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    images = image_input()
    images.on_device = True
    far = 96 * torch_model.MAX_SHRINK
    assert images.prepare(picture(far, 100)).dtype == torch.uint8
    assert images.prepare(picture(far + 1, 100)).shape == (3, 96, 96)
    monkeypatch.setattr(torch_model, "MAX_DEVICE_PIXELS", 10_000)
    prepared = [images.prepare(picture(100, 100)), images.prepare(picture(100, 101))]
    assert [pixels.dtype for pixels in prepared] == [torch.uint8, torch.float32]
    assert images.batch(prepared, torch.float32).shape == (2, 3, 96, 96), "both kinds go in one batch"
    assert [images.size(pixels) for pixels in prepared] == [(96, 96)] * 2


@every_family
def test_a_familys_answer_hardly_depends_on_who_resizes(spec: ModelSpec) -> None:
    model = demo(spec)
    request = examples(spec.task)[0]
    on_host = list(numbers(model(request)))
    model._images.on_device = True
    prepared = model.prepare(request.image) if isinstance(model, EncoderModel) else model.preprocess(request).pixels
    assert prepared.dtype == torch.uint8
    on_device = list(numbers(model(request)))
    assert on_host and len(on_device) == len(on_host)
    for one, other in zip(on_host, on_device, strict=True):
        assert one.shape == other.shape
        if one.size:
            assert np.abs(one - other).max() <= 0.05 * max(np.abs(one).max(), 1e-3)


# Checkpoints that are not what they should be


def copied(model_id: str, folder: Path, *without: str) -> Checkpoint:
    """An embedded checkpoint in a folder that may be changed, without some of its files."""
    for file in Hub(offline=True).resolve(model_id).folder.iterdir():
        if file.name not in without:
            shutil.copy(file, folder)
    return Checkpoint("some/checkpoint", folder)


def configured(checkpoint: Checkpoint, **changes: object) -> Checkpoint:
    """The checkpoint with some entries of its config.json changed."""
    file = checkpoint.folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return checkpoint


@pytest.mark.parametrize("changes", [{"hidden_size": "wide"}, {"layer_norm_eps": []}])
def test_a_config_that_makes_no_network_is_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    checkpoint = configured(copied("demo/dinov3", tmp_path), **changes)
    with pytest.raises(NotFound, match=r"some/checkpoint is no checkpoint of DINOv3ViTModel: its config\.json"):
        dinov3.load(checkpoint, device="cpu", dtype="float32")


def test_a_config_of_a_wider_network_is_refused(tmp_path: Path) -> None:
    checkpoint = configured(copied("demo/dinov3", tmp_path), hidden_size=256)
    with pytest.raises(NotFound, match="of its weights are of another size, such as embeddings"):
        dinov3.load(checkpoint, device="cpu", dtype="float32")


def test_a_network_far_larger_than_its_files_is_not_even_built(tmp_path: Path) -> None:
    checkpoint = configured(copied("demo/dinov3", tmp_path), num_hidden_layers=100, hidden_size=4096)
    with pytest.raises(NotFound, match=r"its config\.json describes [\d,]+ weights( or more)?, and its files hold"):
        dinov3.load(checkpoint, device="cpu", dtype="float32")


def test_a_checkpoint_of_another_task_is_refused() -> None:
    checkpoint = Hub(offline=True).resolve("demo/dinov3")
    with pytest.raises(NotFound, match="demo/dinov3 is no checkpoint of AutoModelForImageClassification"):
        image_classifier.load(checkpoint, device="cpu", dtype="float32")


@pytest.mark.parametrize("family", [sam3, grounding_dino])
def test_a_checkpoint_without_a_tokenizer_is_refused(tmp_path: Path, family: Any) -> None:
    model_id = f"demo/{family.__name__.rpartition('.')[2].replace('_', '-')}"
    checkpoint = copied(model_id, tmp_path, "tokenizer.json")
    with pytest.raises(NotFound, match="no processor and tokenizer that can be read"):
        family.load(checkpoint, device="cpu", dtype="float32")


# How networks run


@every_family
async def test_attention_is_fused_and_nothing_is_recorded_for_gradients(
    spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bool, str]] = []
    attend = F.scaled_dot_product_attention

    def spy(*args: Any, **kwargs: Any) -> torch.Tensor:
        seen.append((torch.is_inference_mode_enabled(), threading.current_thread().name))
        return attend(*args, **kwargs)

    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    settings: dict[str, Any] = {"device": "cpu", "hf_hub_offline": True, "default_model_ids": {}}
    engine = Engine(Settings(_env_file=None, **settings))  # pyright: ignore[reportCallIssue]
    await engine.start()
    try:
        for seed in range(2):
            request = examples(spec.task, 60 + seed, 80)[0]
            await engine.manager.run(spec.model_type, [request], model_id=spec.demo)
            assert seen, "no attention went through scaled_dot_product_attention"
            assert set(seen) == {(True, "device-cpu")}
            seen.clear()
    finally:
        await engine.close()


@every_family
def test_every_part_that_can_uses_sdpa(spec: ModelSpec) -> None:
    parts: list[Any] = [part for part in demo(spec).network.modules() if isinstance(part, PreTrainedModel)]
    kinds = {type(part).__name__: part.config._attn_implementation for part in parts if part._supports_sdpa}
    assert kinds and set(kinds.values()) == {"sdpa"}, kinds


# Tuning


@pytest.fixture
def one_layer(tmp_path: Path) -> Checkpoint:
    """A network that takes little time to compile."""
    config = DINOv3ViTConfig(
        patch_size=16, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2
    )
    DINOv3ViTModel(config).save_pretrained(tmp_path)
    DINOv3ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    return Checkpoint("random/one-layer", tmp_path)


@pytest.mark.slow
@needs_compiler
async def test_a_compiled_model_answers_as_the_plain_one_and_frees_its_weights(one_layer: Checkpoint) -> None:
    plain, tuned = (dinov3.load(one_layer, device="cpu", dtype="float32") for _ in range(2))
    tuned.max_batch = 1
    request = FeatureRequest(picture(32, 32))
    names = list(tuned.network.state_dict())
    worker = DeviceWorker("cpu")
    try:
        tuned.tune(compiled=True, channels_last=True)
        await warm_batches(tuned, worker, request)
        compiled = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        assert compiled > 0
        answer, expected = await worker.call(partial(tuned, request)), plain(request)
        assert isinstance(answer, FeatureResult) and isinstance(expected, FeatureResult)
        np.testing.assert_allclose(answer.last_hidden_state, expected.last_hidden_state, rtol=1e-3, atol=1e-3)
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == compiled, "no request has paid for it"
    finally:
        worker.stop()
    assert list(tuned.network.state_dict()) == names
    weights = [weakref.ref(weight) for weight in tuned.network.parameters()]
    tuned.unload()
    gc.collect()
    assert not [weight for weight in weights if weight() is not None]


def test_channels_last_changes_the_layout_of_convolutions_and_no_name() -> None:
    convolution = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8, 2))
    model = Plain(convolution)
    model.tune(channels_last=True)
    assert convolution[0].weight.is_contiguous(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    model.tune()
    assert model.encoders == [convolution]


class Plain(TorchModel[Any, Any, Any, Any]):
    """A network and none of the steps around it."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self.device = "cpu"

    def preprocess(self, request: Any) -> Any:
        raise NotImplementedError

    forward = postprocess = preprocess  # type: ignore[assignment]
