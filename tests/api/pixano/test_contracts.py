"""The contracts on the wire: paths, names, arrays, forms, errors, keys, and where the protocol stands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.api.conftest import IMAGE, Serve, png

URI = f"data:image/png;base64,{IMAGE}"
CLICK = {"model": "seg_menter", "image": URI, "points": [[[5, 4]]], "labels": [[1]]}
DETECT = {"model": "detector", "image": URI, "classes": ["cat", "remote control"]}


async def test_the_documentations_service_paths_answer_at_the_root(client: httpx.AsyncClient) -> None:
    settings = (await client.get("/app/settings/")).json()
    assert set(settings) == {
        *("app_name", "app_version", "app_description", "num_cpus", "num_gpus", "num_nodes"),
        *("gpus_used", "gpu_to_model", "models", "models_to_capability"),
    }
    assert settings["models_to_capability"] == {
        "detector": "detection",
        "seg_menter": "segmentation",
        "detector-tracking": "tracking",
        "seg_menter-tracking": "tracking",
    }
    models = (await client.get("/app/models/")).json()
    assert [set(model) for model in models] == [{"name", "capability", "model_path", "model_class"}] * 4


async def test_the_documentations_segmentation_example(client: httpx.AsyncClient) -> None:
    answer = (await client.post("/inference/segmentation/", json=CLICK)).json()
    assert set(answer) == {"id", "status", "timestamp", "processing_time", "metadata", "data"}
    assert answer["status"] == "SUCCESS" and answer["id"].startswith("ray-seg_menter-")
    scores = answer["data"]["scores"]
    assert scores["shape"] == [1, 3] and scores["values"] == pytest.approx([0.8, 0.7, 0.6])
    assert answer["data"]["masks"][0][0]["size"] == [8, 16]


async def test_the_documentations_detection_example(client: httpx.AsyncClient) -> None:
    body = {**DETECT, "box_threshold": 0.3, "text_threshold": 0.2}
    answer = (await client.post("/inference/detection/", json=body)).json()
    assert answer["data"]["classes"] == DETECT["classes"]
    assert answer["metadata"]["capability"] == "detection"


async def test_the_packages_write_camel_case_and_base64(client: httpx.AsyncClient) -> None:
    answer = (await client.post("/v1/inference/segmentation", json={**CLICK, "returnLogits": True})).json()
    assert "processingTime" in answer and answer["timestamp"].endswith("Z")
    assert set(answer["data"]) == {"masks", "scores", "imageEmbedding", "highResolutionFeatures", "maskLogits"}
    assert set(answer["data"]["scores"]) == {"shape", "dtype", "data"}
    assert set(answer["metadata"]) == {"model_name", "capability", "model_class"}


@pytest.mark.parametrize("name", ["boxThreshold", "box_threshold"])
async def test_names_are_read_in_either_spelling_and_text_as_a_number(client: httpx.AsyncClient, name: str) -> None:
    answer = await client.post("/v1/inference/detection", json={**DETECT, name: "2", "unknown": 1})
    assert answer.status_code == 422
    assert answer.json()["error"]["message"][0]["loc"][0] == "body"
    assert (await client.post("/v1/inference/detection", json={**DETECT, name: "0.5"})).status_code == 200


@pytest.mark.parametrize("path", ["/v1/inference/detection/binary", "/inference/segmentation/binary"])
@pytest.mark.parametrize("as_file", [True, False])
async def test_media_as_files(client: httpx.AsyncClient, path: str, as_file: bool) -> None:
    given: dict[str, Any] = DETECT if "detection" in path else CLICK
    metadata = json.dumps({name: value for name, value in given.items() if name != "image"})
    files: dict[str, Any] = {"image": ("a.png", png())}
    if as_file:
        answer = await client.post(path, files={**files, "metadata": ("m", metadata, "application/json")})
    else:
        answer = await client.post(path, files=files, data={"metadata": metadata})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("metadata", "words"),
    [(None, "no field metadata"), ("{", "not valid JSON"), ("[1]", "no object")],
)
async def test_a_broken_form_is_a_400(client: httpx.AsyncClient, metadata: str | None, words: str) -> None:
    data = {} if metadata is None else {"metadata": metadata}
    answer = await client.post("/v1/inference/detection/binary", files={"image": png()}, data=data)
    assert answer.status_code == 400 and words in answer.json()["error"]["message"]


async def test_errors_have_the_form_of_their_contract_and_echo_nothing(client: httpx.AsyncClient) -> None:
    bad = {**DETECT, "classes": 7, "image": "secret"}
    new = await client.post("/v1/inference/detection", json=bad, headers={"X-Request-ID": "mine-1"})
    assert new.status_code == 422 and "secret" not in new.text
    assert new.json()["error"]["code"] == "validation_error"
    assert new.json()["error"]["requestId"] == new.headers["X-Request-ID"] == "mine-1"
    old = await client.post("/inference/detection/", json=bad)
    assert old.status_code == 422 and set(old.json()) == {"detail"}
    unknown = await client.get("/pixano/v1/nothing")
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "not_found")


async def test_keys_guard_all_but_the_service(serve: Serve) -> None:
    async with serve(api_keys=("k",)) as client:
        for path in ("/v1/health", "/v1/ready", "/v1/info", "/v1/metrics", "/pixano/health"):
            assert (await client.get(path)).status_code == 200
        refused = await client.get("/pixano/v1/models")
        assert refused.status_code == 401 and refused.json()["error"]["code"] == "unauthorized"
        assert refused.headers["WWW-Authenticate"] == "Bearer"
        assert (await client.get("/v1/models", headers={"X-API-Key": "k"})).status_code == 200
        assert (await client.get("/app/models/")).status_code == 401


async def test_a_body_over_the_limit_is_told_in_the_protocols_words(serve: Serve) -> None:
    async with serve(max_body_mb=1) as client:
        answer = await client.post("/v1/inference/detection", json={**DETECT, "image": "A" * 2**21})
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "payload_too_large")


async def test_files_of_the_server_are_read_from_open_folders_alone(serve: Serve, tmp_path: Path) -> None:
    inside, outside = tmp_path / "open" / "a.png", tmp_path / "b.png"
    inside.parent.mkdir()
    for path in (inside, outside):
        path.write_bytes(png())
    (inside.parent / "link.png").symlink_to(outside)
    async with serve(media_roots=(inside.parent,)) as client:

        async def status(path: str) -> int:
            return (await client.post("/v1/inference/detection", json={**DETECT, "image": path})).status_code

        assert await status(str(inside)) == 200
        assert await status(str(outside)) == 403
        assert await status(f"{inside.parent}/../b.png") == 403
        assert await status(str(inside.parent / "link.png")) == 403
        assert await status(str(inside.parent / "no.png")) == 400


async def test_every_path_is_under_the_prefix_as_well(client: httpx.AsyncClient) -> None:
    assert (await client.get("/pixano/health")).json() == {"status": "healthy"}
    assert (await client.post("/pixano/v1/inference/detection", json=DETECT)).status_code == 200
    assert (await client.post("/pixano/inference/detection/", json=DETECT)).status_code == 200
    assert "loaded_models" in (await client.get("/health")).json(), "the native protocol has the root"


async def test_the_root_can_be_the_protocols(serve: Serve) -> None:
    async with serve(root_protocol="pixano") as client:
        assert (await client.get("/health")).json() == {"status": "healthy"}
        assert (await client.get("/")).json()["message"] == "Pixano Inference"
        assert set((await client.get("/ready")).json()) == {"ready", "models", "models_loaded", "version"}
        assert "loaded_models" in (await client.get("/native/health")).json()
        native = {"images": [IMAGE], "prompts": ["a"]}
        for path in ("/inference/detector", "/native/inference/detector"):
            assert (await client.post(path, json=native)).status_code == 200
        paths = (await client.get("/openapi.json")).json()["paths"]
        assert "/v1/models" in paths and "/native/inference/detector" in paths
