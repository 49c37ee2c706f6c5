"""The contract: keys, either spelling, what is right where the reference is not, and who gets which metrics."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI

from tests.api.conftest import IMAGE, LiveServer, b64, png

PROMETHEUS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"


def post(http: httpx.Client, path: str, **body: Any) -> httpx.Response:
    return http.post(path, json=body)


def answer(http: httpx.Client, path: str, **body: Any) -> dict[str, Any]:
    response = post(http, path, **body)
    assert response.status_code == 200, response.text
    return response.json()


def refusal(http: httpx.Client, path: str, **body: Any) -> str:
    response = post(http, path, **body)
    assert response.status_code == 400, response.text
    return response.json()["detail"]


def test_keys_are_those_of_the_reference(http: httpx.Client, texts: str, pairs: str, classes: str) -> None:
    keys = {
        "/embed_text": ({"name": texts, "text": "a"}, {"embeddings", "processingTimeMs"}),
        "/embed_image": ({"name": pairs, "image": IMAGE}, {"embeddings", "processingTimeMs"}),
        "/embed": ({"name": pairs}, {"textEmbeddings", "imageEmbeddings", "processingTimeMs"}),
        "/infer": ({"name": pairs, "text": "a"}, {"textEmbeddings", "imageEmbeddings", "processingTimeMs"}),
        "/classify_image": ({"name": classes, "image": IMAGE}, {"probabilities", "processingTimeMs"}),
        "/load_model": ({"name": texts, "library": "sentence_transformers"}, {"message"}),
    }
    for path, (body, expected) in keys.items():
        assert set(answer(http, path, **body)) == expected
    assert set(http.get("/health").json()) == {"message"}
    assert set(http.get("/model_classification_labels", params={"name": classes}).json()) == {"labels"}
    assert set(http.get("/model_embedding_size", params={"name": texts}).json()) == {"embeddingSize"}
    assert set(http.get("/loaded_models").json()["models"][0]) == {"name", "library"}
    assert set(http.get("/repository_models").json()["models"][0]) == {"name", "library", "state"}


def test_both_spellings_are_read_and_the_camel_case_one_wins(http: httpx.Client, texts: str) -> None:
    def length(**dimensions: Any) -> int:
        return len(answer(http, "/embed_text", name=texts, text="a", **dimensions)["embeddings"][0])

    assert [length(nDims=2), length(n_dims=3), length(nDims=2, n_dims=3), length(nDims="3"), length()] == [
        2,
        3,
        2,
        3,
        4,
    ]


def test_shortened_vectors_have_unit_length(http: httpx.Client, texts: str) -> None:
    [vector] = answer(http, "/embed_text", name=texts, text="abc", nDims=2)["embeddings"]
    assert vector == pytest.approx([0.5**0.5] * 2)
    raw = answer(http, "/embed_text", name=texts, text="abc", nDims=2, normalize=False)["embeddings"]
    assert raw == [[3, 3]] == answer(http, "/embed_text", name=texts, text="abc", nDims=2, normalize=None)["embeddings"]


def test_a_setting_keeps_the_order_of_the_reference(build: Callable[..., FastAPI], names: Path) -> None:
    name = str(names / "text_embedding")
    with (
        LiveServer(build(renormalize_shortened=False)) as server,
        httpx.Client(base_url=server.url, timeout=30) as http,
    ):
        answer(http, "/load_model", name=name, library="sentence_transformers")
        [vector] = answer(http, "/embed_text", name=name, text="abc", n_dims=1)["embeddings"]
        assert vector == pytest.approx([3 / 34**0.5])


@pytest.mark.parametrize("dimensions", [0, -1, 5, 10**30])
def test_dimensions_that_a_model_has_not_are_refused(http: httpx.Client, texts: str, dimensions: int) -> None:
    assert "imensions" in refusal(http, "/embed_text", name=texts, text="a", nDims=dimensions)


def test_more_texts_than_a_batch_holds_are_split_and_keep_their_order(http: httpx.Client, texts: str) -> None:
    given = ["x" * count for count in range(1, 50)]
    vectors = answer(http, "/embed_text", name=texts, text=given, normalize=False)["embeddings"]
    assert [vector[0] for vector in vectors] == list(range(1, 50))


def test_numbers_are_written_as_the_shortest_that_mean_the_same_float32(http: httpx.Client, texts: str) -> None:
    text = post(http, "/embed_text", name=texts, text=["a", "abcdefg"]).text
    numbers = re.findall(r"-?\d[\d.e-]*", text.partition("processingTimeMs")[0])
    assert len(numbers) == 8 and all(str(np.float32(number)) == number for number in numbers)


def test_probabilities_of_extreme_logits_are_numbers(http: httpx.Client, classes: str) -> None:
    white = b64(png(color=(255, 255, 0)))
    [row] = answer(http, "/classify_image", name=classes, image=white)["probabilities"]
    assert math.isclose(sum(row), 1, rel_tol=1e-6) and row[1] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("path", "kind", "fields", "sentence"),
    [
        ("/embed_text", "classes", {"text": "a"}, "does not support text inference."),
        ("/embed_image", "texts", {"image": "no image"}, "does not support image inference."),
        ("/embed", "texts", {"text": "a", "image": IMAGE}, "does not support image inference."),
        ("/classify_image", "pairs", {"image": IMAGE}, "is not a classification model."),
        ("/embed_text", "texts", {"text": []}, "text is empty."),
        ("/embed_image", "pairs", {"image": []}, "image is empty."),
        ("/embed_image", "pairs", {"image": "no image"}, "image[0]: "),
        ("/embed_image", "pairs", {"image": [IMAGE, "AAAA"]}, "image[1]: "),
        ("/embed_image", "pairs", {"image": "http://127.0.0.1:1/x.png"}, "image[0]: "),
        ("/embed_image", "pairs", {"image": "s3://bucket/x.png"}, "image[0]: Only http"),
        ("/embed_image", "pairs", {"image": IMAGE, "imageDownloadHeaders": {"X\r\nY": "1"}}, "imageDownloadHeaders"),
    ],
)
def test_bad_input_is_400_with_a_sentence(
    http: httpx.Client,
    request: pytest.FixtureRequest,
    path: str,
    kind: str,
    fields: dict[str, Any],
    sentence: str,
) -> None:
    assert sentence in refusal(http, path, name=request.getfixturevalue(kind), **fields)


def test_what_is_not_loaded_or_of_another_kind_cannot_be_asked(http: httpx.Client) -> None:
    assert "is not loaded. Load the model first" in refusal(http, "/embed_text", name="a/b", text="x")
    assert "is for segmentation" in refusal(http, "/embed_text", name="seg_menter", text="x")


def test_a_body_that_does_not_fit_is_422_as_in_the_reference(http: httpx.Client) -> None:
    response = http.post("/embed_text", content=b"{", headers={"Content-Type": "text/plain"})
    assert response.status_code == 422 and response.json()["detail"][0]["type"] == "json_invalid"
    missing = http.get("/model_embedding_size")
    assert missing.status_code == 422 and missing.json()["detail"][0]["loc"] == ["query", "name"]


def test_loading_tells_what_is_wrong(http: httpx.Client, names: Path) -> None:
    name = str(names / "image_classifier")
    http.request("DELETE", "/delete_model", json={"name": name})
    wrong = refusal(http, "/load_model", name=name, library="sentence_transformers")
    assert wrong.startswith("Error in creating model client: ")
    assert name not in http.get("/repository_models").text
    assert "Error in creating model client" in refusal(http, "/load_model", name="a/b", library="timm")
    for bad in ("", " ", "a\nb", "x" * 501):
        assert "name must be" in refusal(http, "/load_model", name=bad, library="timm")
    assert post(http, "/load_model", name="a/b", library="sklearn").status_code == 422


def test_the_repository_says_what_it_has_not(http: httpx.Client) -> None:
    assert post(http, "/unload_model", name="a/b").status_code == 404
    assert post(http, "/unload_model", name="clip").json()["detail"] == "Model clip is not loaded."
    assert http.request("DELETE", "/delete_model", json={"name": "a/b"}).status_code == 404
    assert http.request("DELETE", "/delete_model", json={"name": "clip"}).status_code == 400
    assert http.get("/model_embedding_size", params={"name": "a/b"}).status_code == 404


def test_a_model_that_was_unloaded_comes_back_unless_settings_forbid_it(
    http: httpx.Client, texts: str, build: Callable[..., FastAPI]
) -> None:
    assert post(http, "/unload_model", name=texts).status_code == 200
    assert answer(http, "/embed_text", name=texts, text="a")
    with (
        LiveServer(build(auto_load=False)) as server,
        httpx.Client(base_url=server.url, timeout=30) as strict,
    ):
        answer(strict, "/load_model", name=texts, library="sentence_transformers")
        assert answer(strict, "/embed_text", name=texts, text="a")
        assert post(strict, "/unload_model", name=texts).status_code == 200
        assert "is not loaded." in refusal(strict, "/embed_text", name=texts, text="a")


def test_a_backbone_embeds_images(http: httpx.Client) -> None:
    answer(http, "/load_model", name="backbone", library="timm")
    [vector] = answer(http, "/embed_image", name="backbone", image=IMAGE, normalize=False)["embeddings"]
    assert vector == [0.5, 1.5, 2.5]


def test_metrics_follow_accept(http: httpx.Client, build: Callable[..., FastAPI], texts: str) -> None:
    def kind(client: httpx.Client, path: str, accept: str) -> str:
        response = client.get(path, headers={"Accept": accept})
        assert response.status_code == 200 and "Accept" in response.headers["vary"]
        return response.headers["content-type"].partition(";")[0]

    plain_json, text, open_metrics = "application/json", "text/plain", "application/openmetrics-text"
    accepts = ("*/*", plain_json, text, open_metrics, PROMETHEUS)
    assert [kind(http, "/metrics", accept) for accept in accepts] == [
        plain_json,
        plain_json,
        text,
        open_metrics,
        open_metrics,
    ]
    with LiveServer(build()) as server, httpx.Client(base_url=server.url, timeout=30) as native:
        assert [kind(native, "/metrics", each) for each in accepts] == [
            text,
            plain_json,
            text,
            open_metrics,
            open_metrics,
        ]
        assert kind(native, "/ingrain/metrics", "*/*") == plain_json


def test_statistics_have_the_form_of_the_reference(http: httpx.Client, texts: str) -> None:
    answer(http, "/embed_text", name=texts, text="a")
    entries = {entry["name"]: entry for entry in http.get("/metrics").json()["modelStats"]}
    entry = entries[texts]
    assert set(entry) == {
        *("name", "version", "lastInference", "inferenceCount", "executionCount", "inferenceStats", "batchStats")
    }
    assert set(entry["inferenceStats"]) == {
        *("success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss")
    }
    for tally in entry["inferenceStats"].values():
        assert set(tally) == {"count", "ns"} and all(each is None or each.isdecimal() for each in tally.values())
    assert set(entry["batchStats"][0]) == {"batchSize", "computeInput", "computeInfer", "computeOutput"}


def test_a_model_that_leaves_memory_is_counted(http: httpx.Client, texts: str) -> None:
    assert post(http, "/unload_model", name=texts).status_code == 200
    text = http.get("/metrics", headers={"Accept": "text/plain"}).text
    assert f'vision_unloads_total{{model_type="{texts}",reason="asked"}}' in text


def test_its_paths_are_at_the_root_of_every_server(build: Callable[..., FastAPI]) -> None:
    with LiveServer(build()) as server, httpx.Client(base_url=server.url, timeout=30) as native:
        assert "is not loaded" in refusal(native, "/infer", name="a/b")
        assert "status" in native.get("/health").json()
        assert native.get("/ingrain/health").json() == {"message": "The inference server is running."}


HUGE = 10**40
VALUES: list[Any] = [
    None,
    True,
    7,
    -1,
    HUGE,
    1e999,
    "",
    "\0",
    "x" * 1100,
    [],
    {},
    [[]],
    [None],
    ["a"] * 60,
    "://",
    "data:",
]
FIELDS = {
    "/embed_text": ("name", "text", "normalize", "nDims"),
    "/embed_image": ("name", "image", "normalize", "n_dims", "imageDownloadHeaders"),
    "/embed": ("name", "text", "image", "normalize", "nDims", "image_download_headers"),
    "/classify_image": ("name", "image", "imageDownloadHeaders"),
    "/load_model": ("name", "library"),
    "/unload_model": ("name",),
    "/delete_model": ("name",),
}


@pytest.mark.parametrize(("path", "field"), [(path, field) for path, fields in FIELDS.items() for field in fields])
def test_no_value_of_any_field_is_too_much(http: httpx.Client, pairs: str, classes: str, path: str, field: str) -> None:
    good: dict[str, Any] = {"name": classes if path == "/classify_image" else pairs, "library": "timm"}
    good |= {"image": IMAGE} if path in ("/embed_image", "/classify_image") else {"text": "a"}
    method = "DELETE" if path == "/delete_model" else "POST"
    for value in VALUES:
        body = json.dumps({**good, field: value})
        response = http.request(method, path, content=body, headers={"Content-Type": "text/plain"})
        assert response.status_code < 500, (value, response.text[:500])
        assert len(response.text) < 5000 and "Traceback" not in response.text
        if response.status_code >= 400:
            assert response.json()["detail"]


@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b"{", b'"x"', b"\xff\xfe", b'{"name": "\\ud800"}', b"[" * 100_000]
)
def test_no_body_is_too_much(http: httpx.Client, body: bytes) -> None:
    for path in FIELDS:
        method = "DELETE" if path == "/delete_model" else "POST"
        assert http.request(method, path, content=body).status_code == (413 if len(body) > 1000 else 422)
