"""Tracking by the real clients and on the wire: answered at once or as a job, in the words of every contract."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pixano_inference_client as old
import pytest
from pixano_inference import schemas
from pixano_inference.client import PixanoInferenceClient, PixanoInferenceError, SyncPixanoInferenceClient
from pixano_inference.schemas.v1 import TrackingKeyframeV1, TrackingPrompts, TrackingRequestV1

from tests.api.conftest import LiveServer, b64
from tests.api.pixano.conftest import FRAMES, frame
from tests.engine import colorful
from vision_model_repo.formats.video import Frame

# The clients decode masks with an old call of pycocotools.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")
RED, BLUE = (1, 2, 7, 8), (20, 14, 30, 22)


@pytest.fixture
def client(colors: LiveServer) -> Iterator[SyncPixanoInferenceClient]:
    with SyncPixanoInferenceClient.connect(colors.url, max_retries=0) as client:
        yield client


@pytest.fixture
def wire(colors: LiveServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=colors.url) as client:
        yield client


def box_keyframe(index: int = 0, x: int = 1) -> dict[str, Any]:
    return {"frame_index": index, "prompts": {"box": {"x": x, "y": 2, "width": 6, "height": 6}}}


def request_of(clip: list[str], **changes: Any) -> TrackingRequestV1:
    fields = {"model": "segmenter", "video": clip, "objects_ids": [7], "keyframes": [box_keyframe()], **changes}
    return TrackingRequestV1.model_validate(fields)


def moved(index: int) -> list[float]:
    return [RED[0] + 3 * index, RED[1], RED[2] + 3 * index, RED[3]]


async def test_an_object_meant_by_a_box_is_followed(colors: LiveServer, clip: list[str]) -> None:
    async with PixanoInferenceClient.connect(colors.url) as client:
        answer = await client.tracking(request_of(clip))
    frames = answer.data.frames
    assert [each.frame_index for each in frames] == list(range(FRAMES))
    assert [each.objects[0].box for each in frames] == [moved(index) for index in range(FRAMES)]
    assert {each.track_id for frame in frames for each in frame.objects} == {7}
    mask = frames[3].objects[0].mask
    assert mask is not None and mask.to_mask().sum() == 36
    assert answer.metadata["model_name"] == "segmenter"


def test_the_released_applications_client_reads_the_same_answer(colors: LiveServer, clip: list[str]) -> None:
    request = old.TrackingRequestV1.model_validate(request_of(clip).model_dump())
    with old.SyncPixanoInferenceClient.connect(colors.url) as client:
        data = client.tracking(request).data
        assert (data.objects_ids, data.frame_indexes) == ([7] * FRAMES, list(range(FRAMES)))
        assert all(mask.to_mask().sum() == 36 for mask in data.masks)
        job = client.wait_for_job(client.submit_tracking_job(request).job_id, poll_interval=0.05)
    assert job.status == "completed" and job.data is not None
    assert len(job.data["masks"]) == FRAMES


def test_classes_are_looked_for_without_prompts(client: SyncPixanoInferenceClient, clip: list[str]) -> None:
    fields = {"model": "detector", "video": clip, "classes": ["red", "blue"]}
    frames = client.tracking(TrackingRequestV1.model_validate(fields)).data.frames
    found = {each.class_name: each for each in frames[-1].objects}
    assert found["red"].box == moved(FRAMES - 1) and found["blue"].box == [*BLUE]
    assert found["red"].mask is None and found["red"].score == 1.0


def test_a_video_alone_is_searched_for_anything(client: SyncPixanoInferenceClient, clip: list[str]) -> None:
    frames = client.tracking(TrackingRequestV1.model_validate({"model": "detector", "video": clip})).data.frames
    assert [len(each.objects) for each in frames] == [2] * FRAMES


def test_a_box_threshold_is_for_what_begins_a_track(client: SyncPixanoInferenceClient, clip: list[str]) -> None:
    fields = {"model": "detector", "video": clip, "classes": "red", "box_threshold": 1.0}
    assert client.tracking(TrackingRequestV1.model_validate(fields)).data.frames[0].objects
    with pytest.raises(PixanoInferenceError, match="422 validation_error"):
        client.tracking(TrackingRequestV1.model_validate({**fields, "box_threshold": 1.1}))


@pytest.mark.parametrize(
    ("changes", "indices"),
    [
        ({"interval": {"start_frame": 2, "end_frame": 4}}, [2, 3, 4]),
        ({"interval": {"start_frame": 3, "end_frame": 99}, "keyframes": [box_keyframe(3, 10)]}, [3, 4, 5, 6, 7]),
        (
            {
                "interval": {"start_frame": 3, "end_frame": 1, "direction": "backward"},
                "keyframes": [box_keyframe(3, 10)],
            },
            [3, 2, 1],
        ),
        ({"keyframes": [box_keyframe(5, 16)]}, [5, 6, 7]),
        ({"propagate": False}, [0]),
        (
            {
                "propagate": False,
                "objects_ids": [7, 8],
                "keyframes": [box_keyframe(1, 4), box_keyframe(3, 10)],
            },
            [1, 3],
        ),
    ],
)
def test_frames_that_are_wanted_come_in_the_order_of_tracking(
    client: SyncPixanoInferenceClient, clip: list[str], changes: dict[str, Any], indices: list[int]
) -> None:
    frames = client.tracking(request_of(clip, **changes)).data.frames
    assert [each.frame_index for each in frames] == indices
    assert frames[0].objects[0].box == moved(indices[0])


def test_points_and_masks_mean_objects_too(client: SyncPixanoInferenceClient, clip: list[str]) -> None:
    points = TrackingPrompts.model_validate({"points": [{"x": 24, "y": 17, "label": 1}, {"x": 3, "y": 4, "label": 0}]})
    dense = np.zeros((24, 40), bool)
    dense[2:8, 1:7] = True
    mask = schemas.CompressedRLE.from_mask(dense)
    keyframes = [
        TrackingKeyframeV1(frame_index=0, prompts=points),
        TrackingKeyframeV1(frame_index=0, prompts=TrackingPrompts(mask=mask)),
    ]
    frames = client.tracking(request_of(clip, objects_ids=[1, 2], keyframes=keyframes)).data.frames
    assert {each.track_id: each.box for each in frames[2].objects} == {1: [*BLUE], 2: moved(2)}


def test_an_object_is_corrected_on_a_second_frame(wire: httpx.Client, clip: list[str]) -> None:
    blue = {"frame_index": 4, "prompts": {"box": {"x": 20, "y": 14, "width": 10, "height": 8}}}
    body = {"model": "segmenter", "video": clip, "objectsIds": [7, 7], "keyframes": [box_keyframe(), blue]}
    frames = wire.post("/v1/inference/tracking", json=body).json()["data"]["frames"]
    boxes = [each["objects"][0]["box"] for each in frames]
    assert boxes[3] == moved(3) and boxes[4] == boxes[7] == [*BLUE]


@pytest.mark.parametrize("as_keyframes", [True, False])
def test_the_documentations_contract(wire: httpx.Client, clip: list[str], as_keyframes: bool) -> None:
    body: dict[str, Any] = {"model": "segmenter", "video": clip, "objects_ids": [7, 9], "frame_indexes": [0, 0]}
    if as_keyframes:
        body["keyframes"] = [
            {"frame_index": 0, "box": {"x": 1, "y": 2, "width": 6, "height": 6}},
            {"frame_index": 0, "points": [{"x": 24, "y": 17, "label": 1}]},
        ]
    else:
        body["boxes"] = [[*RED], [*BLUE]]
    data = wire.post("/inference/tracking/", json=body).json()["data"]
    assert data["objects_ids"] == [7, 9] * FRAMES
    assert data["frame_indexes"] == [index for index in range(FRAMES) for _ in range(2)]
    assert data["masks"][0]["size"] == [24, 40]
    assert data["frames"][0]["objects"][0]["track_id"] == 7


@pytest.mark.parametrize("path", ["/v1/inference/tracking/binary", "/inference/tracking/binary"])
def test_frames_as_files(wire: httpx.Client, path: str) -> None:
    metadata = {"model": "segmenter", "objects_ids": [7], "frame_indexes": [0], "boxes": [[*RED]]}
    files = [("frames", (f"{index}.png", frame(index))) for index in range(FRAMES)]
    answer = wire.post(path, data={"metadata": json.dumps(metadata)}, files=files).json()
    assert len(answer["data"]["masks"]) == FRAMES


def test_a_video_file(wire: httpx.Client) -> None:
    frames = [np.full((24, 40, 3), 128, np.uint8) for _ in range(5)]
    for index, each in enumerate(frames):
        each[2:8, 1 + index : 9 + index] = 255
    video = f"data:video/mp4;base64,{b64(clip_of(frames))}"
    body = {"model": "segmenter", "video": video, "objectsIds": [1], "frameIndexes": [0], "boxes": [[1, 2, 9, 8]]}
    answer = wire.post("/v1/inference/tracking", json=body).json()
    assert [each["frameIndex"] for each in answer["data"]["frames"]] == list(range(5))


def clip_of(frames: list[Frame]) -> bytes:
    from vision_model_repo.formats.clips import encode_clip

    return encode_clip(frames, 10.0)


async def test_a_job_is_watched_to_its_end(colors: LiveServer, clip: list[str]) -> None:
    async with PixanoInferenceClient.connect(colors.url) as client:
        submitted = await client.submit_tracking_job(request_of(clip))
        assert submitted.status == "running" and submitted.job_id.startswith("job-")
        job = await client.wait_for_job(submitted.job_id, poll_interval=0.02)
        assert job.status == "completed" and job.detail is None and job.data is not None
        assert len(job.data.frames) == FRAMES
        assert job.metadata == {"model_name": "segmenter", "capability": "tracking", "model_class": "segmenter"}
        again = await client.cancel_job(submitted.job_id)
    assert again.status == "completed"


def test_cancelling_a_job_stops_its_work(client: SyncPixanoInferenceClient, clip: list[str]) -> None:
    job = client.submit_tracking_job(request_of(clip * 60))
    while not _json(client, job.job_id)["progress"]:
        time.sleep(0.01)
    cancelled = client.cancel_job(job.job_id)
    done, forwards = _json(client, job.job_id)["progress"], len(colorful.FORWARDS)
    assert cancelled.status == "canceled" and cancelled.detail == "The job was cancelled."
    assert 0 < done < 1
    time.sleep(0.1)
    assert len(colorful.FORWARDS) == forwards
    assert client.wait_for_job(job.job_id).status == "canceled"


def _json(client: SyncPixanoInferenceClient, job_id: str) -> dict[str, Any]:
    return client._request("GET", f"/v1/jobs/{job_id}").json()


def test_a_job_that_fails_says_why_and_no_more(client: SyncPixanoInferenceClient, clip: list[str]) -> None:
    broken = [*clip[:3], "data:image/png;base64,AAAA"]
    job = client.wait_for_job(client.submit_tracking_job(request_of(broken)).job_id, poll_interval=0.02)
    assert job.status == "failed" and job.detail is not None and job.detail.startswith("Frame 3: ")
    assert "Traceback" not in job.detail and "AAAA" not in job.detail


@pytest.mark.parametrize("binary", [True, False])
def test_jobs_in_the_documentations_contract(wire: httpx.Client, clip: list[str], binary: bool) -> None:
    body = {"model": "segmenter", "objects_ids": [7], "frame_indexes": [0], "boxes": [[*RED]]}
    if binary:
        files = [("frames", (f"{index}.png", frame(index))) for index in range(FRAMES)]
        data = {"metadata": json.dumps(body)}
        submitted = wire.post("/inference/tracking/jobs/binary", data=data, files=files)
    else:
        submitted = wire.post("/inference/tracking/jobs/", json={**body, "video": clip})
    assert submitted.status_code == 202
    at = f"/inference/tracking/jobs/{submitted.json()['job_id']}"
    assert submitted.json()["job_id"].startswith("tracking-job-")
    while (job := wire.get(at).json())["status"] == "running":
        time.sleep(0.02)
    assert job["status"] == "completed" and job["data"]["frame_indexes"] == list(range(FRAMES))
    assert wire.delete(at).json()["status"] == "completed"
    assert wire.get(f"/v1/jobs/{submitted.json()['job_id']}").status_code == 404


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"model": "nothing"}, 404, "Models that can track: segmenter, detector"),
        ({"model": "other"}, 400, "cannot track"),
        ({"keyframes": [box_keyframe(99)]}, 400, "about frame 99; the video has 8 frames"),
        ({"video": "data:video/mp4;base64,AAAA"}, 400, "video"),
        ({"video": []}, 400, "no frames"),
        ({"video": ["data:image/png;base64,AAAA"]}, 400, "Frame 0: "),
        ({"interval": {"start_frame": 50, "end_frame": 60}}, 400, "begins with frame 50; the video has 8 frames"),
        ({"classes": ["red"] * 65}, 413, "65 classes"),
    ],
)
@pytest.mark.parametrize("as_job", [True, False])
def test_a_clients_mistake_is_told_in_a_sentence(
    client: SyncPixanoInferenceClient, clip: list[str], changes: dict[str, Any], status: int, words: str, as_job: bool
) -> None:
    call = client.submit_tracking_job if as_job else client.tracking
    with pytest.raises(PixanoInferenceError, match=words) as refusal:
        call(request_of(clip, **changes))
    assert refusal.value.status_code == status


@pytest.mark.parametrize(
    "changes",
    [
        {"objectsIds": [1, 1], "keyframes": [box_keyframe()] * 2},
        {"objectsIds": [1], "keyframes": []},
        {"objectsIds": [], "keyframes": [box_keyframe()]},
        {"objectsIds": [1], "keyframes": [{"frameIndex": 0}]},
        {"objectsIds": [1], "frameIndexes": [], "boxes": [[*RED]]},
        {"objectsIds": [1], "keyframes": [{"frameIndex": -1, "prompts": {"points": [{"x": 1, "y": 1, "label": 1}]}}]},
    ],
)
def test_prompts_that_do_not_fit_together_are_refused(
    wire: httpx.Client, clip: list[str], changes: dict[str, Any]
) -> None:
    answer = wire.post("/v1/inference/tracking", json={"model": "segmenter", "video": clip, **changes})
    assert answer.status_code == 422 and clip[0][30:60] not in answer.text


def test_a_job_that_is_not_there(client: SyncPixanoInferenceClient) -> None:
    for job_id in ("job-0", "0"):
        with pytest.raises(PixanoInferenceError, match="404 not_found"):
            client.get_job(job_id)
