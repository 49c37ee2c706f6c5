"""Health, and what is in memory."""

from __future__ import annotations

import asyncio
import threading
import time

import httpx
import pytest

from tests.api.conftest import IMAGE, Serve, engine_of
from vision_model_repo import __version__
from vision_model_repo.engine.worker import DeviceWorker

PROMPTED = {"images": [IMAGE], "prompts": ["a"]}


async def test_the_root_names_the_api(client: httpx.AsyncClient) -> None:
    answer = (await client.get("/")).json()
    assert answer == {"message": "Vision Models API", "version": __version__, "docs": "/docs"}


async def test_health_lists_what_is_loaded(client: httpx.AsyncClient) -> None:
    health = (await client.get("/health")).json()
    assert (health["status"], health["loaded_models"]) == ("healthy", [])
    assert health["available_memory_gb"] > 0 and isinstance(health["gpu_available"], bool)
    await client.post("/models/load", json={"model_type": "detector"})
    assert (await client.get("/health")).json()["loaded_models"] == ["detector"]


async def test_health_answers_within_milliseconds(client: httpx.AsyncClient) -> None:
    await client.get("/health")
    # Processor time: other programs may keep the machine busy, and nothing here may wait.
    started = time.process_time()
    for _ in range(50):
        await client.get("/health")
    assert (time.process_time() - started) / 50 < 0.01


async def test_health_waits_for_no_thread(client: httpx.AsyncClient) -> None:
    await client.get("/health")
    before = {thread.ident for thread in threading.enumerate()}
    await client.get("/health")
    assert {thread.ident for thread in threading.enumerate()} <= before
    assert not any("AnyIO" in thread.name for thread in threading.enumerate())


async def test_a_dead_device_thread_is_unhealthy(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    await client.post("/models/load", json={"model_type": "detector"})
    with monkeypatch.context() as patch:
        patch.setattr(DeviceWorker, "alive", False)
        health = await client.get("/health")
    assert (health.status_code, health.json()["status"]) == (503, "unhealthy")
    assert (await client.get("/health")).status_code == 200


async def test_status_lists_every_model_type(client: httpx.AsyncClient) -> None:
    await client.post("/models/load", json={"model_type": "backbone"})
    status = (await client.get("/models/status")).json()
    assert set(status["models"]) == {"detector", "seg_menter", "depth", "camera", "backbone"}
    loaded, absent = status["models"]["backbone"], status["models"]["depth"]
    assert (loaded["loaded"], loaded["device"], loaded["memory_mb"]) == (True, "cpu", 1.0)
    assert (absent["loaded"], absent["model_id"], absent["memory_mb"]) == (False, None, 0.0)
    assert status["total_memory_mb"] == 1.0


@pytest.mark.parametrize("name", ["seg_menter", "seg-menter"])
async def test_loading_takes_a_hyphen_for_an_underscore(client: httpx.AsyncClient, name: str) -> None:
    answer = (await client.post("/models/load", json={"model_type": name, "device": "cpu"})).json()
    assert answer["message"] == "Model seg_menter loaded successfully"
    assert (answer["model_info"]["model_type"], answer["model_info"]["loaded"]) == ("seg_menter", True)


async def test_another_model_id_replaces_the_one_in_memory(client: httpx.AsyncClient) -> None:
    first = (await client.post("/models/load", json={"model_type": "detector"})).json()["model_info"]["model_id"]
    again = (await client.post("/models/load", json={"model_type": "detector"})).json()["model_info"]["model_id"]
    body = {"model_type": "detector", "model_id": first.replace("small", "large")}
    other = (await client.post("/models/load", json=body)).json()["model_info"]["model_id"]
    assert (again, other) == (first, body["model_id"])


async def test_unloading_frees_and_says_so(client: httpx.AsyncClient) -> None:
    await client.post("/models/load", json={"model_type": "detector"})
    answer = await client.post("/models/unload", json={"model_type": "detector"})
    assert answer.json() == {"message": "Model detector unloaded successfully"}
    assert (await client.get("/health")).json()["loaded_models"] == []


async def test_all_can_be_unloaded_at_once(client: httpx.AsyncClient) -> None:
    for name in ("detector", "depth"):
        await client.post("/models/load", json={"model_type": name})
    assert (await client.post("/models/unload-all")).json() == {"message": "All models unloaded successfully"}
    assert engine_of(client).manager.loaded() == []


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        ({"model_type": "yolo"}, 404, "yolo"),
        ({"model_type": "detector", "model_id": "nobody/nothing"}, 404, "nobody/nothing"),
        ({"model_type": "detector", "model_id": "../../etc"}, 404, "etc"),
        ({"model_type": "detector", "device": "cuda:9"}, 400, "cuda:9"),
        ({"model_type": "detector", "device": "toaster"}, 400, "toaster"),
        ({"model_typ": "detector"}, 422, "model_typ"),
        ({"model_type": "x" * 1000}, 422, "model_type"),
    ],
)
async def test_what_cannot_be_loaded_is_refused_by_name(
    client: httpx.AsyncClient, body: dict[str, str], status: int, word: str
) -> None:
    response = await client.post("/models/load", json=body)
    assert (response.status_code, word in response.text) == (status, True), response.text
    assert (await client.get("/health")).json()["loaded_models"] == []


async def test_unloading_an_unknown_type_is_refused(client: httpx.AsyncClient) -> None:
    assert (await client.post("/models/unload", json={"model_type": "yolo"})).status_code == 404


async def test_without_auto_load_a_model_must_be_loaded_first(serve: Serve) -> None:
    async with serve(auto_load=False) as client:
        for path in ("/inference/detector", "/jobs/submit/detector"):
            refused = await client.post(path, json=PROMPTED)
            assert refused.status_code == 404
            assert refused.json() == {"detail": "Model detector not loaded. Call load_model() first."}
        await client.post("/models/load", json={"model_type": "detector"})
        assert (await client.post("/inference/detector", json=PROMPTED)).status_code == 200


async def test_two_first_requests_load_once(client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    answers = await asyncio.gather(*(client.post("/inference/detector", json=PROMPTED) for _ in range(2)))
    assert [answer.status_code for answer in answers] == [200, 200]
    assert caplog.text.count("Loaded detector") == 1
