"""Jobs over HTTP: taken once checked, answered as the route answers, watched, cancelled, forgotten."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.api.conftest import IMAGE, Serve, b64, encoded, engine_of, png
from tests.api.stand_ins import GATE, SEEN
from vision_model_repo.api.native.jobs import Job, JobWithResult

BODY = {"images": [IMAGE], "prompts": ["person"]}


async def submit(client: httpx.AsyncClient, model: str = "detector", **changes: Any) -> httpx.Response:
    return await client.post(f"/jobs/submit/{model}", json={**BODY, **changes})


async def finished(client: httpx.AsyncClient, job_id: str) -> dict[str, Any]:
    await client.get(f"/jobs/{job_id}/events")
    return (await client.get(f"/jobs/{job_id}")).json()


async def until(client: httpx.AsyncClient, job_id: str, status: str) -> None:
    async with asyncio.timeout(30):
        while (await client.get(f"/jobs/{job_id}")).json()["status"] != status:
            await asyncio.sleep(0.01)


async def test_a_new_job_is_pending(client: httpx.AsyncClient) -> None:
    response = await submit(client)
    job = response.json()
    assert (response.status_code, job["status"]) == (200, "pending")
    assert (job["completed_at"], job["result"], job["error"]) == (None, None, None)
    JobWithResult.model_validate_json(response.content, extra="forbid")


async def test_a_jobs_result_is_byte_for_byte_the_routes_answer(client: httpx.AsyncClient) -> None:
    body = {"images": [IMAGE, IMAGE], "prompts": ["person", "nothing"], "output_format": "polygons"}
    job_id = (await client.post("/jobs/submit/seg-menter", json=body)).json()["job_id"]
    await finished(client, job_id)
    job = (await client.get(f"/jobs/{job_id}")).content
    answer = (await client.post("/inference/seg-menter", json=body)).content
    before_the_time = answer[: answer.index(b'"processing_time"')]
    assert b'"result":' + before_the_time in job
    assert 0 < json.loads(job)["result"]["processing_time"] < 60


@pytest.mark.parametrize("name", ["seg_menter", "seg-menter"])
async def test_a_hyphen_is_as_good_as_an_underscore(client: httpx.AsyncClient, name: str) -> None:
    job = await finished(client, (await submit(client, name)).json()["job_id"])
    assert (job["status"], job["model_type"], job["error"]) == ("completed", "seg_menter", None)
    assert job["completed_at"] > job["created_at"]


async def test_files_can_be_submitted_too(client: httpx.AsyncClient) -> None:
    files = [("images", ("a.png", png(), "image/png"))]
    job_id = (await client.post("/jobs/submit/depth", files=files, data={"export_format": "png"})).json()["job_id"]
    assert (await finished(client, job_id))["result"]["metadata"]["shape"] == [1, 8, 16]


@pytest.mark.parametrize(
    ("changes", "status", "word"),
    [
        ({"images": []}, 422, "images"),
        ({"images": [IMAGE, "not base64!"]}, 400, "images[1]"),
        ({"prompts": [" "]}, 400, "prompts[0]"),
        ({"threshold": 2}, 422, "threshold"),
        ({"boxes": [[[50, 50, 60, 60]]]}, 400, "boxes[0][0]"),
        ({"output_format": "bmp"}, 422, "output_format"),
    ],
)
async def test_what_the_route_would_refuse_is_not_taken(
    client: httpx.AsyncClient, changes: dict[str, Any], status: int, word: str
) -> None:
    refused = await submit(client, "seg-menter", **changes)
    assert (refused.status_code, word in refused.text) == (status, True), refused.text
    assert refused.text == (await client.post("/inference/seg-menter", json={**BODY, **changes})).text
    assert (await client.get("/jobs")).json() == {}


async def test_an_unknown_model_type_is_not_found(client: httpx.AsyncClient) -> None:
    response = await submit(client, "yolo")
    assert (response.status_code, "yolo" in response.json()["detail"]) == (404, True)


async def test_a_job_that_fails_says_why_without_internals(client: httpx.AsyncClient) -> None:
    job = await finished(client, (await submit(client, "seg-menter", prompts=["broken"])).json()["job_id"])
    assert (job["status"], job["result"]) == ("failed", None)
    assert "error" in job["error"] and "secret" not in job["error"]
    job = await finished(client, (await submit(client, model_id="nobody/nothing")).json()["job_id"])
    assert (job["status"], "nobody/nothing" in job["error"]) == ("failed", True)


async def test_events_tell_every_change_and_end_with_the_job(client: httpx.AsyncClient) -> None:
    job_id = (await submit(client, images=[IMAGE] * 3)).json()["job_id"]
    response = await client.get(f"/jobs/{job_id}/events")
    assert response.headers["content-type"].startswith("text/event-stream")
    lines = response.text.splitlines()
    events = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    jobs = [Job.model_validate_json(line[6:], extra="forbid") for line in lines if line.startswith("data: ")]
    assert [(job.status, job.images_done) for job in jobs] == [
        ("pending", 0),
        ("running", 0),
        ("running", 1),
        ("running", 2),
        ("completed", 3),
    ]
    assert events == ["status", "status", "progress", "progress", "status"]
    assert "result" not in response.text


async def test_jobs_are_listed_newest_first_without_results(client: httpx.AsyncClient) -> None:
    ids = [(await submit(client)).json()["job_id"] for _ in range(3)]
    for job_id in ids:
        await finished(client, job_id)
    listed = (await client.get("/jobs")).json()
    assert list(listed) == ids[::-1]
    assert all("result" not in job and job["status"] == "completed" for job in listed.values())
    assert list((await client.get("/jobs", params={"limit": 1, "offset": 1})).json()) == [ids[1]]
    assert (await client.get("/jobs", params={"status": "failed"})).json() == {}


@pytest.mark.parametrize("query", [{"limit": 0}, {"limit": "x"}, {"offset": -1}, {"status": "lost"}])
async def test_a_listing_that_makes_no_sense_is_refused(client: httpx.AsyncClient, query: dict[str, Any]) -> None:
    response = await client.get("/jobs", params=query)
    assert (response.status_code, response.json()["detail"][0]["loc"]) == (422, ["query", *query])


async def test_a_full_queue_answers_503_with_retry_after(serve: Serve) -> None:
    async with serve(max_concurrent_jobs=1, max_queued_jobs=1) as client:
        GATE.clear()
        ids = [(await submit(client)).json()["job_id"] for _ in range(2)]
        refused = await submit(client)
        assert (refused.status_code, int(refused.headers["retry-after"]) > 0) == (503, True)
        assert (await submit(client, images=["no picture"])).status_code == 503, "nothing is decoded in vain"
        GATE.set()
        assert [(await finished(client, job_id))["status"] for job_id in ids] == ["completed", "completed"]


async def test_waiting_jobs_may_hold_only_so_many_bytes(serve: Serve) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8)
    large = b64(encoded(Image.fromarray(noise)))
    async with serve(max_concurrent_jobs=1, max_queued_job_mb=1) as client:
        GATE.clear()
        ids = [(await submit(client, images=[large])).json()["job_id"] for _ in range(3)]
        refused = await submit(client, images=[large])
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "10")
        assert "send less" in refused.json()["detail"]
        ids.append((await submit(client)).json()["job_id"])
        await client.delete(f"/jobs/{ids.pop(1)}")
        ids.append((await submit(client, images=[large])).json()["job_id"])
        GATE.set()
        assert {(await finished(client, job_id))["status"] for job_id in ids} == {"completed"}


async def test_a_waiting_job_is_dropped_and_a_running_one_cancelled(serve: Serve) -> None:
    async with serve(max_concurrent_jobs=1) as client:
        GATE.clear()
        running, waiting = [(await submit(client)).json()["job_id"] for _ in range(2)]
        await until(client, running, "running")
        for job_id in (waiting, running):
            answer = await client.delete(f"/jobs/{job_id}")
            assert (answer.status_code, answer.json()) == (200, {"message": f"Job {job_id} deleted"})
            assert (await client.get(f"/jobs/{job_id}")).status_code == 404
        GATE.set()
        assert (await client.post("/inference/detector", json=BODY)).status_code == 200


async def test_a_job_can_be_deleted_once(client: httpx.AsyncClient) -> None:
    job_id = (await submit(client)).json()["job_id"]
    await finished(client, job_id)
    assert (await client.delete(f"/jobs/{job_id}")).status_code == 200
    again = await client.delete(f"/jobs/{job_id}")
    assert (again.status_code, job_id in again.json()["detail"]) == (404, True)


@pytest.mark.parametrize(("method", "path"), [("GET", "/jobs/x"), ("DELETE", "/jobs/x"), ("GET", "/jobs/x/events")])
async def test_an_unknown_job_is_not_found(client: httpx.AsyncClient, method: str, path: str) -> None:
    assert (await client.request(method, path)).status_code == 404


async def test_a_waiting_job_keeps_images_encoded_and_frees_its_place(serve: Serve) -> None:
    async with serve(max_concurrent_jobs=1, max_pending_requests=1) as client:
        GATE.clear()
        for _ in range(4):
            assert (await submit(client)).status_code == 200
        assert engine_of(client).admission.inside == 0
        async with asyncio.timeout(30):
            while not SEEN:
                await asyncio.sleep(0.01)
        assert len(SEEN) == 1
        GATE.set()
