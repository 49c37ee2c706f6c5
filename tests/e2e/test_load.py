"""Many clients at once: one load, a live /health, and refusals instead of collapse."""

from __future__ import annotations

import asyncio
import base64

import httpx
import pytest

from tests.conftest import Server, StartServer
from vision_model_repo.demo.scenes import render, sample_scene
from vision_model_repo.formats.images import encode_png

IMAGE = base64.b64encode(encode_png(render(sample_scene(1), 224).image)).decode()
SEGMENT = {"images": [IMAGE], "prompts": ["red cube", "object"], "model_id": "demo/sam3"}


async def test_two_loads_at_once_load_once(start_server: StartServer) -> None:
    server: Server = start_server()
    async with httpx.AsyncClient(base_url=server.url, timeout=120) as client:
        body = {"model_type": "sam3", "model_id": "demo/sam3"}
        answers = await asyncio.gather(*(client.post("/models/load", json=body) for _ in range(4)))
    assert [answer.status_code for answer in answers] == [200] * 4
    assert server.log().count("Loaded sam3 as demo/sam3") == 1


async def test_health_answers_while_eight_clients_keep_the_device_busy(start_server: StartServer) -> None:
    server = start_server()
    async with httpx.AsyncClient(base_url=server.url, timeout=120) as client:
        assert (await client.post("/inference/sam3", json=SEGMENT)).status_code == 200
        busy = [asyncio.create_task(client.post("/inference/sam3", json=SEGMENT)) for _ in range(8)]
        healthy = [await client.get("/health") for _ in range(20)]
        assert {answer.status_code for answer in healthy} == {200}
        answers = await asyncio.gather(*busy)
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text.split('"model_id"')[0] for answer in answers}) == 1, "company changes no answer"


async def test_one_request_too_many_is_told_when_to_come_back(start_server: StartServer) -> None:
    server = start_server(MAX_PENDING_REQUESTS="2")
    async with httpx.AsyncClient(base_url=server.url, timeout=120) as client:
        answers = await asyncio.gather(*(client.post("/inference/sam3", json=SEGMENT) for _ in range(12)))
        refused = [answer for answer in answers if answer.status_code == 503]
        assert refused and {answer.status_code for answer in answers} == {200, 503}
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
        assert (await client.get("/health")).json()["status"] == "healthy"


@pytest.mark.parametrize("device", ["cuda:9", "tpu"])
async def test_a_device_that_is_not_there(server: Server, device: str) -> None:
    async with httpx.AsyncClient(base_url=server.url, timeout=120) as client:
        body = {"model_type": "sam3", "model_id": "demo/sam3", "device": device}
        answer = await client.post("/models/load", json=body)
        assert answer.status_code == 400
        assert device in answer.json()["detail"]
