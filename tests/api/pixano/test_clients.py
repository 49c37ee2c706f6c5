"""The real clients, of contract 0.7 and of the one that the released application uses, against a live server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import numpy as np
import pixano_inference_client as old
import pytest
from fastapi import FastAPI
from pixano_inference import schemas
from pixano_inference.client import PixanoInferenceClient, PixanoInferenceError, SyncPixanoInferenceClient
from pixano_inference.schemas.rle import CompressedRLE

from tests.api.conftest import IMAGE, LiveServer
from tests.api.stand_ins import GATE

# The clients decode masks with an old call of pycocotools.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")
URI = f"data:image/png;base64,{IMAGE}"


@pytest.fixture(scope="module")
def server(build_app: Callable[..., FastAPI]) -> Iterator[LiveServer]:
    with LiveServer(build_app(root_protocol="pixano")) as server:
        yield server


@pytest.fixture
def client(server: LiveServer) -> Iterator[SyncPixanoInferenceClient]:
    with SyncPixanoInferenceClient.connect(f"{server.url}/pixano") as client:
        yield client


@pytest.fixture
async def async_client(server: LiveServer) -> AsyncIterator[PixanoInferenceClient]:
    async with PixanoInferenceClient.connect(f"{server.url}/pixano") as client:
        yield client


def segmentation(**changes: Any) -> schemas.SegmentationRequest:
    fields = {"model": "seg_menter", "image": URI, "points": [[[5, 4]]], "labels": [[1]], **changes}
    return schemas.SegmentationRequest(**fields)


def test_service(client: SyncPixanoInferenceClient) -> None:
    assert client.health()["status"] == "healthy"
    assert client.ready()["ready"] is True
    info = client.info()
    assert info["appName"] == "Pixano Inference" and "detector" in info["models"]


def test_only_models_of_the_protocols_capabilities_are_listed(client: SyncPixanoInferenceClient) -> None:
    listed = {model.name: model.capability for model in client.list_models()}
    trackers = {"detector-tracking": "tracking", "seg_menter-tracking": "tracking"}
    assert listed == {"detector": "detection", "seg_menter": "segmentation", **trackers}


async def test_segmentation_gives_readings_best_first(async_client: PixanoInferenceClient) -> None:
    answer = await async_client.segmentation(segmentation())
    assert answer.data.scores.to_numpy() == pytest.approx(np.array([[0.8, 0.7, 0.6]]))
    first, whole, _ = answer.data.masks[0]
    assert CompressedRLE(size=first.size, counts=first.counts).to_mask().sum() == 16
    assert whole.to_mask().shape == (8, 16) and whole.to_mask().all()
    assert answer.metadata == {"model_name": "seg_menter", "capability": "segmentation", "model_class": "seg_menter"}


def test_logits_of_an_answer_go_back_in_to_correct_it(client: SyncPixanoInferenceClient) -> None:
    first = client.segmentation(segmentation(multimask_output=False, return_logits=True)).data
    assert first.mask_logits is not None and first.mask_logits.shape == [1, 1, 2, 2]
    again = client.segmentation(segmentation(return_logits=True, mask_input=first.mask_logits)).data
    assert again.mask_logits is not None and (again.mask_logits.to_numpy() == 2).all()


def test_prompts_with_fewer_readings_are_filled_up_to_one_array(client: SyncPixanoInferenceClient) -> None:
    answer = client.segmentation(segmentation(boxes=[[0, 0, 4, 4]], num_multimask_outputs=2)).data
    assert [len(masks) for masks in answer.masks] == [2] and answer.scores.shape == [1, 2]


async def test_detection_answers_whole_pixels(async_client: PixanoInferenceClient) -> None:
    request = schemas.DetectionRequest(model="detector", image=URI, classes=["cat", "dog"])
    answer = await async_client.detection(request)
    assert answer.data.boxes == [[4, 2, 12, 6]] * 2
    assert answer.data.classes == ["cat", "dog"] and answer.data.scores == [1.0, 1.0]


def test_the_released_applications_client_reads_the_same_answers(server: LiveServer) -> None:
    with old.SyncPixanoInferenceClient.connect(f"{server.url}/pixano") as client:
        assert client.list_models()[0].status == "RUNNING"
        answer = client.segmentation(old.SegmentationRequest(model="seg_menter", image=URI, points=[[[5, 4]]]))
        assert answer.data.masks[0][0].to_mask().sum() == 16
        found = client.detection(old.DetectionRequest(model="detector", image=URI, classes="cat"))
        assert found.data.boxes == [[4, 2, 12, 6]]


def test_a_model_is_deployed_used_counted_and_undeployed(client: SyncPixanoInferenceClient, server: LiveServer) -> None:
    deployment = {"num_gpus": 0, "max_batch_size": 2, "timeout_s": 30.0}
    request = schemas.DeployModelRequest(name="my-detector", model_class="detector", deployment=deployment)
    deployed = client.deploy_model(request)
    assert (deployed.name, deployed.capability, deployed.model_class) == ("my-detector", "detection", "detector")
    assert deployed.status == "RUNNING"
    try:
        with pytest.raises(PixanoInferenceError, match="409 conflict"):
            client.deploy_model(request)
        client.detection(schemas.DetectionRequest(model="my-detector", image=URI, classes=["cat"]))
        stats = client._request("GET", "/v1/models/my-detector/stats").json()
        assert stats["request_count"] == 1 and stats["model_class"] == "detector"
        assert stats["avg_processing_time"] > 0
    finally:
        assert client.undeploy_model("my-detector") == {"status": "deleted", "model": "my-detector"}
    with pytest.raises(PixanoInferenceError, match="404 not_found"):
        client.detection(schemas.DetectionRequest(model="my-detector", image=URI, classes=["cat"]))
    assert "my-detector" not in server.engine.manager.loaded()


def test_two_deployments_of_one_family_live_beside_each_other(
    client: SyncPixanoInferenceClient, server: LiveServer
) -> None:
    small, large = server.engine.manager.catalog["detector"].variants
    for name, path in (("small", small), ("large", large)):
        client.deploy_model(schemas.DeployModelRequest(name=name, model_class="detector", model_params={"path": path}))
    try:
        paths = {model.name: model.model_path for model in client.list_models()}
        assert (paths["small"], paths["large"]) == (small, large)
        assert {"small", "large"} <= set(server.engine.manager.loaded())
    finally:
        for name in ("small", "large"):
            client.undeploy_model(name)


@pytest.mark.parametrize(
    ("request_", "status", "words"),
    [
        ({"model_class": "Nothing"}, 404, "Families: detector"),
        ({"model_class": "detector", "deployment": {"num_gpu": 1}}, 422, "num_gpu"),
        ({"model_class": "detector", "model_params": {"path": "nobody/nothing"}}, 404, "nobody/nothing"),
    ],
)
def test_a_deployment_that_cannot_be_is_refused_and_leaves_nothing(
    client: SyncPixanoInferenceClient, request_: dict[str, Any], status: int, words: str
) -> None:
    with pytest.raises(PixanoInferenceError, match=words) as refusal:
        client.deploy_model(schemas.DeployModelRequest(name="new", **request_))
    assert refusal.value.status_code == status
    assert "new" not in [model.name for model in client.list_models()]


def test_a_family_of_the_server_is_not_undeployed(client: SyncPixanoInferenceClient) -> None:
    with pytest.raises(PixanoInferenceError, match="409"):
        client.undeploy_model("detector")


def test_a_model_that_takes_longer_than_its_deployment_says_is_stopped(server: LiveServer) -> None:
    with SyncPixanoInferenceClient.connect(f"{server.url}/pixano", max_retries=0) as client:
        deployment = {"timeout_s": 0.2}
        client.deploy_model(schemas.DeployModelRequest(name="late", model_class="detector", deployment=deployment))
        GATE.clear()
        try:
            with pytest.raises(PixanoInferenceError, match=r"504 timeout.*0\.2s"):
                client.detection(schemas.DetectionRequest(model="late", image=URI, classes=["cat"]))
        finally:
            GATE.set()
            client.undeploy_model("late")


@pytest.mark.parametrize(
    ("call", "request_"),
    [
        ("ner", schemas.NERRequest(model="x", text="Ann")),
        ("embedding", schemas.EmbeddingRequest(model="x", text="a cat")),
    ],
)
def test_capabilities_without_a_model_say_so(client: SyncPixanoInferenceClient, call: str, request_: Any) -> None:
    with pytest.raises(PixanoInferenceError, match=f"404 not_found. No model for {call} is deployed"):
        getattr(client, call)(request_)


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"model": "nothing"}, 404, "Models for segmentation: seg_menter"),
        ({"model": "detector"}, 400, "is for detection, not for segmentation"),
        ({"points": None, "labels": None}, 400, "no prompt"),
        ({"labels": [[1, 0]]}, 400, "2 labels for 1 points"),
        ({"image": "data:image/png;base64,AAAA"}, 400, "image: The data is no image"),
        ({"image": "http://127.0.0.1:9/a.png"}, 400, "image: .*not public"),
        ({"image": "/etc/passwd"}, 400, "image: "),
        ({"mask_input": schemas.NDArrayFloat(shape=[7], dtype="", data="AAAAAA==")}, 400, "do not fit its shape"),
    ],
)
def test_a_clients_mistake_is_told_in_a_sentence(
    client: SyncPixanoInferenceClient, changes: dict[str, Any], status: int, words: str
) -> None:
    with pytest.raises(PixanoInferenceError, match=words) as refusal:
        client.segmentation(segmentation(**changes))
    assert refusal.value.status_code == status
    assert refusal.value.request_id
