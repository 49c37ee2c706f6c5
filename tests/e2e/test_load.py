"""Many clients at once: one load, a live /health, and refusals instead of collapse."""

from __future__ import annotations

import asyncio
import base64

import httpx
import numpy as np
import pytest

from tests.conftest import Server, StartServer
from vision_model_repo.demo.scenes import render, sample_scene
from vision_model_repo.formats.images import encode_png

IMAGE = base64.b64encode(encode_png(render(sample_scene(1), 224).image)).decode()
SEGMENT = {"images": [IMAGE], "prompts": ["red cube", "object"], "model_id": "demo/sam3"}


async def test_two_loads_at_once_load_once(server: Server) -> None:
    async with httpx.AsyncClient(base_url=server.url, timeout=120) as client:
        assert (await client.post("/models/unload-all")).status_code == 200
        before = server.log().count("Loaded sam3 as demo/sam3")
        body = {"model_type": "sam3", "model_id": "demo/sam3"}
        answers = await asyncio.gather(*(client.post("/models/load", json=body) for _ in range(4)))
    assert [answer.status_code for answer in answers] == [200] * 4
    assert server.log().count("Loaded sam3 as demo/sam3") == before + 1


async def test_health_answers_while_eight_clients_keep_the_device_busy(server: Server) -> None:
    async with httpx.AsyncClient(base_url=server.url, timeout=120) as client:
        assert (await client.post("/inference/sam3", json=SEGMENT)).status_code == 200
        busy = [asyncio.create_task(client.post("/inference/sam3", json=SEGMENT)) for _ in range(8)]
        healthy = [await client.get("/health") for _ in range(20)]
        assert {answer.status_code for answer in healthy} == {200}
        answers = await asyncio.gather(*busy)
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text.split('"model_id"')[0] for answer in answers}) == 1, "company changes no answer"


@pytest.mark.slow  # A server of its own, with SAM3; test_middleware has the same with stand-ins.
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


async def test_a_model_that_refuses_says_which_image(server: Server) -> None:
    async with httpx.AsyncClient(base_url=server.url, timeout=120) as client:
        body = {"images": [IMAGE, IMAGE], "prompts": [["cube"], ["?"]], "model_id": "demo/grounding-dino"}
        answer = await client.post("/inference/grounding-dino", json=body)
        assert answer.status_code == 400
        assert answer.json()["detail"].startswith("images[1]: Phrase 0 '?' has no word")


async def test_a_shutdown_answers_whoever_is_inside_and_ends_every_stream(start_server: StartServer) -> None:
    server = start_server(SHUTDOWN_GRACE_SECONDS="2", TORCH_THREADS="1")
    many = {**SEGMENT, "images": [encode_noise(seed) for seed in range(12)]}
    async with httpx.AsyncClient(base_url=server.url, timeout=120) as client:
        assert (await client.post("/inference/sam3", json=SEGMENT)).status_code == 200
        job_id = (await client.post("/jobs/submit/sam3", json=many)).json()["job_id"]
        stream = asyncio.create_task(client.get(f"/jobs/{job_id}/events"))
        inside = [asyncio.create_task(client.post("/inference/sam3", json=many)) for _ in range(12)]
        await asyncio.sleep(1)
        server.process.terminate()
        answers = await asyncio.gather(*inside)
        assert "event: status" in (await stream).text
    assert {answer.status_code for answer in answers} <= {200, 503}
    refused = [answer for answer in answers if answer.status_code == 503]
    assert refused and all("retry-after" in answer.headers for answer in refused)
    server.process.wait(timeout=30)
    assert "Traceback" not in server.log()


def encode_noise(seed: int) -> str:
    noise = np.random.default_rng(seed).integers(0, 255, (64, 64, 3), np.uint8)
    return base64.b64encode(encode_png(noise)).decode()
