"""GET /ready: whether the models that the server was started with are there."""

from __future__ import annotations

import asyncio
import threading
import time

import httpx
import pytest

from tests.api import stand_ins
from tests.api.conftest import Serve, settings_of
from vision_model_repo.api.server import create_app


async def readiness(client: httpx.AsyncClient, status: str) -> httpx.Response:
    """The answer once it has a status; a test that waits for ever fails by its time limit."""
    while (answer := await client.get("/ready")).json()["status"] != status:
        await asyncio.sleep(0.01)
    return answer


async def test_a_server_without_models_to_preload_is_ready_at_once(client: httpx.AsyncClient) -> None:
    answer = await client.get("/ready")
    assert (answer.status_code, answer.json()) == (200, {"status": "ready", "loading": [], "failed": {}})


async def test_health_answers_while_a_model_warms_up_and_ready_waits_for_it(serve: Serve) -> None:
    stand_ins.GATE.clear()
    async with asyncio.timeout(20), serve(preload_models="detector,backbone", warm_up="on") as client:
        assert (await client.get("/health")).status_code == 200
        while not stand_ins.SEEN:
            await asyncio.sleep(0.01)
        answer = await client.get("/ready")
        assert (answer.status_code, answer.json()["loading"]) == (503, ["detector", "backbone"])
        assert int(answer.headers["retry-after"]) > 0
        assert (await client.get("/health")).json()["loaded_models"] == [], "it is not announced before it is warm"
        stand_ins.GATE.set()
        assert (await readiness(client, "ready")).status_code == 200
        assert sorted((await client.get("/health")).json()["loaded_models"]) == ["backbone", "detector"]


async def test_a_model_that_cannot_be_loaded_is_named(serve: Serve) -> None:
    async with asyncio.timeout(20), serve(preload_models="detector", allowed_model_ids="other/*") as client:
        answer = await readiness(client, "failed")
        assert answer.status_code == 503 and list(answer.json()["failed"]) == ["detector"]
        assert (await client.get("/health")).json()["status"] == "healthy"


async def test_ready_needs_no_key(serve: Serve) -> None:
    async with serve(api_keys=("k",)) as client:
        assert (await client.get("/ready")).status_code == 200


async def test_a_model_type_that_does_not_exist_stops_the_start(serve: Serve) -> None:
    with pytest.raises(Exception, match="models that there are not: nothing"):
        async with serve(preload_models="nothing"):
            pass


@pytest.mark.parametrize("path", ["/", "/health", "/ready"])
async def test_a_probe_may_ask_for_the_head_alone(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.head(path)).status_code == 200


def test_a_default_for_a_model_that_there_is_not_stops_the_start() -> None:
    with pytest.raises(ValueError, match="models that there are not: nothing"):
        create_app(settings_of(default_model_ids={"nothing": "demo/sam3"}))


async def test_a_checkpoint_that_never_ends_loading_degrades_the_server_until_another_is_read(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, ended = stand_ins.load, threading.Event()

    def endless(*args: object, **options: object) -> None:
        try:
            while True:
                time.sleep(0.001)
        finally:
            ended.set()

    async with asyncio.timeout(20), serve(model_load_timeout_seconds=0.1) as client:
        monkeypatch.setattr(stand_ins, "load", endless)
        late = await client.post("/models/load", json={"model_type": "detector"})
        assert late.status_code == 504 and "MODEL_LOAD_TIMEOUT_SECONDS" in late.text
        answer = await client.get("/ready")
        assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
        await asyncio.to_thread(ended.wait, 10)
        monkeypatch.setattr(stand_ins, "load", honest)
        assert (await client.post("/models/load", json={"model_type": "detector"})).status_code == 200
        assert (await readiness(client, "ready")).status_code == 200
