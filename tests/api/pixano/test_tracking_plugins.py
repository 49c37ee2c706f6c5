"""Trackers of one's own, as Pixano has them: a class gets a video whole, tells how far it is, and can be stopped."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from pixano_inference import schemas
from pixano_inference.client import PixanoInferenceError, SyncPixanoInferenceClient
from pixano_inference.schemas.v1 import TrackingRequestV1

from tests.api.conftest import LiveServer, b64
from tests.api.pixano.conftest import FRAMES
from tests.api.pixano.test_tracking import box_keyframe, clip_of, moved
from tests.engine.test_tracking import Crossing

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")


@pytest.fixture
def client(colors: LiveServer) -> Iterator[SyncPixanoInferenceClient]:
    with SyncPixanoInferenceClient.connect(colors.url, max_retries=0) as client:
        yield client


def request_of(clip: list[str] | str, model: str = "follower", **changes: Any) -> TrackingRequestV1:
    return TrackingRequestV1.model_validate({"model": model, "video": clip, **changes})


def asked() -> schemas.TrackingInput:
    """What the class was asked last."""
    return sys.modules["_pixano_config_models"].ASKED[-1]


def steps() -> list[float]:
    """When the endless class did something."""
    return sys.modules["_pixano_config_models"].STEPS


def test_a_class_that_tracks_answers_frame_by_frame(client: SyncPixanoInferenceClient, clip: list[str]) -> None:
    answer = client.tracking(request_of(clip, classes=["red"], box_threshold=0.25))
    assert [each.frame_index for each in answer.data.frames] == list(range(FRAMES))
    found = [each.objects[0] for each in answer.data.frames]
    assert [each.box for each in found] == [moved(index) for index in range(FRAMES)]
    assert {(each.track_id, each.score, each.class_name) for each in found} == {(5, 0.75, "red")}
    assert answer.metadata == {"model_name": "follower", "capability": "tracking", "model_class": "Follower"}
    assert (asked().classes, asked().box_threshold, asked().keyframes) == (["red"], 0.25, None)


def test_prompts_reach_the_class_as_they_were_given(client: SyncPixanoInferenceClient, clip: list[str]) -> None:
    prompts: dict[str, Any] = {"objects_ids": [7], "keyframes": [box_keyframe(2, 7)], "propagate": True}
    interval = {"start_frame": 2, "end_frame": 4, "direction": "backward"}
    frames = client.tracking(request_of(clip, **prompts, interval=interval)).data.frames
    assert [each.frame_index for each in frames] == list(range(2, FRAMES)) and frames[0].objects[0].track_id == 7
    (keyframe,) = asked().keyframes or []
    assert (keyframe.frame_index, keyframe.points, keyframe.mask) == (2, None, None)
    assert keyframe.box is not None and keyframe.box.model_dump() == {"x": 7, "y": 2, "width": 6, "height": 6}
    assert (asked().frame_indexes, asked().propagate) == ([2], True)
    given = asked().interval
    assert given is not None and given.model_dump() == interval


def test_lists_of_prompts_stay_lists(colors: LiveServer, clip: list[str]) -> None:
    body = {"model": "follower", "video": clip, "objects_ids": [3], "frame_indexes": [0], "boxes": [[1, 2, 7, 8]]}
    data = httpx.post(f"{colors.url}/inference/tracking/", json=body).json()["data"]
    assert data["frames"][0]["objects"][0]["track_id"] == 3 and data["masks"] == []
    assert (asked().boxes, asked().keyframes) == ([[1, 2, 7, 8]], None)


def test_a_video_file_reaches_the_class_as_frames(client: SyncPixanoInferenceClient) -> None:
    video = clip_of([frame for _, frame in Crossing().frames()])
    frames = client.tracking(request_of(f"data:video/mp4;base64,{b64(video)}")).data.frames
    assert len(frames) == 24 and frames[0].objects


def test_a_job_tells_how_far_it_is_and_ends(client: SyncPixanoInferenceClient, clip: list[str]) -> None:
    job = client.wait_for_job(client.submit_tracking_job(request_of(clip)).job_id, poll_interval=0.02)
    assert job.status == "completed" and job.data is not None and len(job.data.frames) == FRAMES
    assert told(client, job.job_id)["progress"] == 1


def test_cancelling_a_job_ends_the_class_and_the_next_begins(
    client: SyncPixanoInferenceClient, clip: list[str]
) -> None:
    steps().clear()
    job = client.submit_tracking_job(request_of(clip, "endless"))
    while len(steps()) < 3 or not (now := told(client, job.job_id))["progress"]:
        assert told(client, job.job_id)["status"] == "running"
        time.sleep(0.01)
    assert now["progress"] == (FRAMES - 1) / FRAMES
    assert client.cancel_job(job.job_id).status == "canceled"
    time.sleep(0.1)
    done = len(steps())
    assert client.tracking(request_of(clip, "endless", propagate=False)).data.frames == []
    assert len(steps()) == done


def test_a_class_that_takes_too_long_is_ended(client: SyncPixanoInferenceClient, clip: list[str]) -> None:
    with pytest.raises(PixanoInferenceError, match="504 timeout"):
        client.tracking(request_of(clip, "endless"))
    time.sleep(0.1)
    done = len(steps())
    time.sleep(0.1)
    assert len(steps()) == done


def told(client: SyncPixanoInferenceClient, job_id: str) -> dict[str, Any]:
    return client._request("GET", f"/v1/jobs/{job_id}").json()


def test_a_clients_mistake_is_told_in_a_sentence(client: SyncPixanoInferenceClient, clip: list[str]) -> None:
    with pytest.raises(PixanoInferenceError, match=r"400.*Frame 3: "):
        client.tracking(request_of([*clip[:3], "data:image/png;base64,AAAA"]))
    body = {"model": "follower", "video": clip, "objectsIds": [7, 7], "keyframes": [box_keyframe(0), box_keyframe(4)]}
    with pytest.raises(PixanoInferenceError, match=r"400.*no correction on another frame"):
        client._request("POST", "/v1/inference/tracking", json=body)


def test_the_native_protocol_says_that_it_shows_frames_one_by_one(colors: LiveServer, clip: list[str]) -> None:
    body = {"model_type": "follower", "phrases": ["red"], "video": clip}
    answer = httpx.post(f"{colors.url}/native/tracking", json=body)
    assert answer.status_code == 400 and "cannot track frame by frame" in answer.json()["detail"]


# The list of models


def test_whoever_looks_for_a_tracker_finds_all_that_can(client: SyncPixanoInferenceClient, clip: list[str]) -> None:
    models = client.list_models()
    names = [model.name for model in models]
    assert len(set(names)) == len(names)
    trackers = {model.name: model for model in models if model.capability == "tracking"}
    assert set(trackers) == {"follower", "endless", "segmenter-tracking", "detector-tracking", "reds-tracking"}
    assert {model.name: model.capability for model in models}["segmenter"] == "segmentation"
    for name in ("segmenter-tracking", "reds-tracking"):
        frames = client.tracking(request_of(clip, name)).data.frames
        assert len(frames) == FRAMES and frames[0].objects
    assert {model.name: model for model in client.list_models()}["follower"].interface == schemas.TrackingInterface(
        prompts=["box"], prompt_free=True, interval=True, outputs=["box", "score", "class"]
    )


def test_a_detector_of_known_classes_tracks_those(client: SyncPixanoInferenceClient, clip: list[str]) -> None:
    client.tracking(request_of(clip, "reds"))
    (reds,) = (model for model in client.list_models() if model.name == "reds-tracking")
    assert isinstance(reds.interface, schemas.TrackingInterface) and reds.interface.class_names == ["red"]
    assert (reds.interface.classes, reds.interface.prompt_free) == ("closed", True)


def test_a_second_name_is_counted_with_the_first_and_not_undeployed_alone(colors: LiveServer) -> None:
    stats = [httpx.get(f"{colors.url}/v1/models/{name}/stats").json() for name in ("reds", "reds-tracking")]
    assert stats[0] == stats[1] and stats[0]["model_name"] == "reds"
    refused = httpx.delete(f"{colors.url}/v1/models/reds-tracking")
    assert refused.status_code == 409 and "Undeploy reds." in refused.text
    unknown = httpx.get(f"{colors.url}/v1/models/blues-tracking/stats")
    assert unknown.status_code == 404 and "No model 'blues-tracking' is deployed" in unknown.text


def test_the_documentations_list_has_them_too(colors: LiveServer) -> None:
    capabilities = httpx.get(f"{colors.url}/app/settings/").json()["models_to_capability"]
    assert (capabilities["detector"], capabilities["detector-tracking"]) == ("detection", "tracking")
    listed = {model["name"]: model["capability"] for model in httpx.get(f"{colors.url}/app/models/").json()}
    assert listed == capabilities
