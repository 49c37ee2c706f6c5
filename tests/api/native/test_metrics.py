"""GET /metrics: what Prometheus scrapes."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.api import stand_ins
from tests.api.conftest import IMAGE, engine_of
from vision_model_repo.errors import VisionError

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def scrape(client: httpx.AsyncClient) -> Samples:
    text = (await client.get("/metrics", headers={"Accept": "text/plain"})).text
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def labels(**values: str) -> frozenset[tuple[str, str]]:
    return frozenset(values.items())


async def test_every_image_is_counted_in_every_stage(client: httpx.AsyncClient) -> None:
    response = await client.post("/inference/backbone", json={"images": [IMAGE] * 3})
    assert response.status_code == 200
    samples = await scrape(client)
    for stage in ("prepare", "queue", "encode", "prompt", "post"):
        assert samples["vision_stage_seconds_count", labels(model_type="backbone", stage=stage)] == 3
    assert samples["vision_batch_size_sum", labels(model_type="backbone", step="forward")] == 3


async def test_gauges_say_what_is_there_now(client: httpx.AsyncClient) -> None:
    await client.post("/inference/backbone", json={"images": [IMAGE]})
    samples = await scrape(client)
    assert ("vision_model_bytes", labels(model_type="backbone", device="cpu")) in samples
    assert samples["vision_encoding_cache_bytes", labels(place="host")] == 0
    assert samples["vision_requests_inside", labels()] <= 1


async def test_failures_are_counted_by_what_they_were(client: httpx.AsyncClient) -> None:
    response = await client.post("/inference/seg_menter", json={"images": [IMAGE], "prompts": [stand_ins.BROKEN]})
    assert response.status_code == 500
    samples = await scrape(client)
    assert samples["vision_failures_total", labels(model_type="seg_menter", error="ZeroDivisionError")] == 1


async def test_a_deployment_that_is_removed_leaves_nothing_behind(client: httpx.AsyncClient) -> None:
    manager = engine_of(client).manager
    body = {"images": [IMAGE] * 4, "prompts": ["a"]}
    spec = manager.catalog["detector"]
    for number in range(3):
        await manager.deploy(replace(spec, model_type=f"passing-{number}", family="detector"))
        submitted = [client.post(f"/jobs/submit/passing-{number}", json=body) for _ in range(2)]
        jobs = [(await each).json()["job_id"] for each in submitted]
        # While the second one still has to be answered.
        await client.get(f"/jobs/{jobs[0]}/events")
        assert any("passing" in str(key) for key in await scrape(client))
        await manager.undeploy(f"passing-{number}")
        await asyncio.gather(*(client.get(f"/jobs/{job}/events") for job in jobs))
    assert not [key for key in await scrape(client) if "passing" in str(key)]


async def test_a_deployment_that_cannot_be_loaded_leaves_nothing_behind(client: httpx.AsyncClient) -> None:
    manager = engine_of(client).manager
    lost = replace(manager.catalog["detector"], model_type="lost", family="detector", variants=("nobody/nothing",))
    with pytest.raises(VisionError):
        await manager.deploy(replace(lost, demo=None))
    assert not [key for key in await scrape(client) if "lost" in str(key)]


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("text/plain", "text/plain"),
        ("*/*", "text/plain"),
        ("application/openmetrics-text; version=1.0.0", "application/openmetrics-text"),
    ],
)
async def test_the_form_follows_what_is_accepted(client: httpx.AsyncClient, accept: str, content_type: str) -> None:
    response = await client.get("/metrics", headers={"Accept": accept})
    assert response.status_code == 200
    assert response.headers["content-type"].startswith(content_type)
    assert "Accept" in response.headers["vary"]
