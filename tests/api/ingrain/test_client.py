"""The real client, every one of its methods, with and without numpy, against a live server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ingrain
import numpy as np
import pytest
from ingrain.ingrain_errors import IngrainWebException
from PIL import Image

from tests.api.conftest import IMAGE, LiveServer, b64, encoded
from tests.api.ingrain.stand_ins import LABELS

UNIT = [[1 / 26**0.5, 3 / 26**0.5, 0, 4 / 26**0.5]]
"""Of a text of one character."""


@pytest.fixture(params=[False, True], ids=["lists", "numpy"])
def asking(request: pytest.FixtureRequest, server: LiveServer) -> ingrain.Client:
    return ingrain.Client(server.url, server.url, return_numpy=request.param)


@pytest.fixture
def big_image() -> str:
    """More than a megabyte, with which the client waits for leave to send it."""
    noise = np.random.default_rng(0).integers(0, 255, (640, 640, 3), np.uint8)
    return b64(encoded(Image.fromarray(noise)))


def near(given: Any, expected: Any) -> bool:
    return np.allclose(np.array(given, float), np.array(expected, float), atol=1e-5)


def test_health_of_both_servers(client: ingrain.Client) -> None:
    assert [each.message for each in client.health()] == ["The inference server is running."] * 2


def test_a_model_is_loaded_listed_unloaded_loaded_again_and_deleted(client: ingrain.Client, names: Path) -> None:
    name = str(names / "clip")
    model = client.load_model(name, "open_clip")
    assert (model.name, model.library) == (name, "open_clip")
    assert model.load().message == f"Model {name} is already loaded."
    assert ("open_clip", name) in [(each.library, each.name) for each in client.loaded_models().models]
    assert client.unload_model(name).message == f"Model {name} unloaded successfully."
    assert name not in [each.name for each in client.loaded_models().models]
    assert states(client)[name] == "UNAVAILABLE"
    assert model.load().message == f"Model {name} loaded successfully."
    assert states(client)[name] == "READY"
    assert client.delete_model(name).message == f"Model {name} deleted successfully."
    assert name not in states(client)


def test_a_model_object_does_what_the_client_does(client: ingrain.Client, names: Path) -> None:
    model = client.load_model(str(names / "clip"), "open_clip")
    assert near(model.embed_text("a").embeddings, UNIT)
    assert near(model.embed_image(IMAGE, normalize=False).embeddings, [[200, 30, 30, 1]])
    both = model.embed(text="a", image=IMAGE, normalize=False)
    assert both.text_embeddings == [[1, 3, 0, 4]] and both.image_embeddings == [[200, 30, 30, 1]]
    assert model.unload().message.endswith("unloaded successfully.")
    assert model.delete().message.endswith("deleted successfully.")
    classifier = client.load_model(str(names / "image_classifier"), "timm")
    assert near(classifier.classify_image(IMAGE).probabilities, [[0, 1, 0, 0]])


def test_texts(asking: ingrain.Client, texts: str) -> None:
    answer = asking.embed_text(texts, "a")
    assert isinstance(answer.embeddings, np.ndarray) == asking.return_numpy
    assert near(answer.embeddings, UNIT) and answer.processing_time_ms > 0
    assert near(asking.embed_text(texts, ["a", "bc"], normalize=False).embeddings, [[1, 3, 0, 4], [2, 3, 0, 4]])


def test_images(asking: ingrain.Client, pairs: str, big_image: str) -> None:
    answer = asking.embed_image(pairs, [IMAGE, f"data:image/png;base64,{IMAGE}"], normalize=False)
    assert near(answer.embeddings, [[200, 30, 30, 1]] * 2)
    assert len(asking.embed_image(pairs, big_image).embeddings) == 1


def test_both_either_and_neither(asking: ingrain.Client, pairs: str) -> None:
    both = asking.embed(pairs, text=["a", "b"], image=IMAGE, normalize=False)
    assert near(both.text_embeddings, [[1, 3, 0, 4]] * 2) and near(both.image_embeddings, [[200, 30, 30, 1]])
    one = asking.embed(pairs, text="a")
    assert near(one.text_embeddings, UNIT)
    none = asking.embed(pairs)
    missing = [one.image_embeddings, none.text_embeddings, none.image_embeddings]
    assert all(np.array(each).tolist() is None for each in missing)


def test_classes_and_their_names(asking: ingrain.Client, classes: str) -> None:
    answer = asking.classify_image(classes, [IMAGE, IMAGE])
    assert near(answer.probabilities, [[0, 1, 0, 0]] * 2)
    assert asking.model_classification_labels(classes).labels == list(LABELS)


def test_sizes_of_all_kinds_of_models(client: ingrain.Client, texts: str, pairs: str, classes: str) -> None:
    assert [client.model_embedding_dims(name).embedding_size for name in (texts, pairs, classes)] == [4, 4, 4]


def test_metrics_count_what_was_done(client: ingrain.Client, names: Path) -> None:
    name = str(names / "text_embedding")
    client.load_model(name, "sentence_transformers")
    before = {each.name: each for each in client.metrics().model_stats}[name]
    for _ in range(3):
        client.embed_text(name, "a")
    with pytest.raises(IngrainWebException):
        client.embed_text(name, "broken")
    after = {each.name: each for each in client.metrics().model_stats}[name]
    assert whole(after.inference_count) == whole(before.inference_count) + 3
    assert whole(after.execution_count) == whole(before.execution_count) + 3
    assert whole(after.inference_stats["success"].count) == whole(before.inference_stats["success"].count) + 3
    assert whole(after.inference_stats["fail"].count) == whole(before.inference_stats["fail"].count) + 1
    assert whole(after.last_inference) > 1.7e12
    assert after.batch_stats is not None
    assert after.batch_stats[0].batch_size == "1" and whole(after.batch_stats[0].compute_infer.ns) > 0


def test_a_get_may_carry_the_body_of_the_last_post(client: ingrain.Client, texts: str) -> None:
    client.embed_text(texts, ["a" * 900] * 50)
    assert client.model_embedding_dims(texts).embedding_size == 4
    assert client.health()[0].message


def test_refusals_are_told_as_a_sentence(client: ingrain.Client) -> None:
    with pytest.raises(IngrainWebException) as refusal:
        client.embed_text("nobody/nothing", "a")
    assert refusal.value.status_code == 400
    assert refusal.value.text.startswith("Model nobody/nothing is not loaded.")


def test_the_content_type_may_be_any(server: LiveServer, texts: str) -> None:
    asking = ingrain.Client(server.url, server.url, header=["X-API-Key: none"])
    assert near(asking.embed_text(texts, "a").embeddings, UNIT)


def test_the_prefix_serves_the_same(server: LiveServer, texts: str) -> None:
    asking = ingrain.Client(f"{server.url}/ingrain", f"{server.url}/ingrain")
    assert asking.health()[0].message and near(asking.embed_text(texts, "a").embeddings, UNIT)
    assert asking.metrics().model_stats


def states(client: ingrain.Client) -> dict[str, str | None]:
    return {model.name: model.state for model in client.repository_models().models}


def whole(number: str | None) -> int:
    return int(number or 0)
