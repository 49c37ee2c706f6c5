"""Every method of the real clients, of both packages, with and without asyncio, against one live server."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pixano_inference_client as old
import pytest
from pixano_inference import client as new
from pixano_inference import schemas

from tests.api.conftest import LiveServer
from tests.engine import colorful

CLIENTS = {
    "0.7.1, asyncio": new.PixanoInferenceClient,
    "0.7.1": new.SyncPixanoInferenceClient,
    "0.1.0, asyncio": old.PixanoInferenceClient,
    "0.1.0": old.SyncPixanoInferenceClient,
}


class Caller:
    """Calls methods by name, whether they are to be awaited or not, and notes which."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.called: set[str] = {"connect"}

    async def __call__(self, method: str, *args: Any, **options: Any) -> Any:
        self.called.add(method)
        answer = getattr(self.client, method)(*args, **options)
        return await answer if inspect.isawaitable(answer) else answer


@asynccontextmanager
async def calling(name: str, url: str) -> AsyncIterator[tuple[Caller, Any]]:
    call = Caller(CLIENTS[name].connect(url, max_retries=0))
    yield call, schemas if name.startswith("0.7") else old
    await call("aclose" if "asyncio" in name else "close")
    public = {method for method, _ in inspect.getmembers(CLIENTS[name], callable) if not method.startswith("_")}
    assert call.called == public


@pytest.mark.filterwarnings("ignore:__array__ implementation")
@pytest.mark.parametrize("place", ["", "/pixano"])
@pytest.mark.parametrize("name", CLIENTS)
async def test_every_method(colors: LiveServer, clip: list[str], name: str, place: str) -> None:
    async with calling(name, f"{colors.url}{place}") as (call, package):
        assert (await call("health"))["status"] == "healthy"
        assert (await call("ready"))["ready"] is True
        assert "segmenter" in (await call("info"))["models"]
        listed = {model.name: model.capability for model in await call("list_models")}
        assert listed["segmenter"] == "segmentation" and listed["capitals"] == "ner"

        x, y = 24, 17
        click = package.SegmentationRequest(model="segmenter", image=clip[0], points=[[[x, y]]], labels=[[1]])
        assert (await call("segmentation", click)).data.masks[0][0].to_mask().sum() == 80
        detect = package.DetectionRequest(model="detector", image=clip[1], classes=["red"])
        assert (await call("detection", detect)).data.boxes == [[4, 2, 10, 8]]
        names = package.NERRequest(model="capitals", text="in Paris")
        assert [each.text for each in (await call("ner", names)).data.entities] == ["Paris"]
        embed = package.EmbeddingRequest(model="lengths", text=["a", "abc"], normalize=False)
        assert (await call("embedding", embed)).data.embeddings.to_numpy().tolist() == [[1], [3]]
        ask = package.VLMRequest(model="parrot", prompt="Who?", images=clip[:2], max_new_tokens=5)
        answer = (await call("vlm", ask)).data
        assert (answer.generated_text, answer.usage.total_tokens) == ("Who? [(40, 24), (40, 24)]", 5)

        keyframe = {"frame_index": 0, "prompts": {"points": [{"x": x, "y": y, "label": 1}]}}
        fields = {"model": "segmenter", "video": clip, "objects_ids": [4], "frame_indexes": [0]}
        fields["keyframes"] = [keyframe]
        track = package.TrackingRequestV1.model_validate(fields)
        assert (await call("tracking", track)).metadata["capability"] == "tracking"
        job = await call("submit_tracking_job", track)
        assert (await call("wait_for_job", job.job_id, poll_interval=0.02)).status == "completed"
        assert (await call("get_job", job.job_id)).job_id == job.job_id
        assert (await call("cancel_job", job.job_id)).status == "completed"

        deploy = package.DeployModelRequest(name="second", model_class="Reds", model_params={"least": 9})
        assert (await call("deploy_model", deploy)).status == "RUNNING"
        assert (await call("undeploy_model", "second"))["status"] == "deleted"
    assert colorful.FORWARDS
