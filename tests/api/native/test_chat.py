"""Questions about images over the native protocol."""

from __future__ import annotations

from collections.abc import AsyncIterator
from io import BytesIO

import httpx
import numpy as np
import pytest

from tests.api import talking
from tests.api.conftest import IMAGE, pixels_of, png, settings_of
from tests.api.stand_ins import SEEN
from vision_model_repo.api.server import create_app
from vision_model_repo.models.catalog import Catalog

WHOLE = "one two three four five"


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(settings_of(max_new_tokens=1000), catalog=Catalog((talking.spec(),)))
    transport = httpx.ASGITransport(app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://x") as it:
        yield it


async def test_every_image_is_asked_by_itself(client: httpx.AsyncClient) -> None:
    body = {"images": [IMAGE, IMAGE], "prompt": "What is it?", "stop": ["four"], "seed": 1, "temperature": 0.5}
    answer = (await client.post("/inference/talker", json=body)).json()
    expected = {"text": "one two three", "finish_reason": "stop", "prompt_tokens": 3, "completion_tokens": 3}
    assert answer["results"] == [expected, expected]
    assert answer["model_id"] == "talker" and len(answer["cache_hits"]) == 2
    assert [message.role for message in SEEN[0].messages] == ["user"]
    assert [part if isinstance(part, str) else part.shape for part in SEEN[0].messages[0].parts] == [
        (8, 16, 3),
        "What is it?",
    ]
    assert (SEEN[0].seed, SEEN[0].temperature) == (1, 0.5)


async def test_images_as_files(client: httpx.AsyncClient) -> None:
    files = [("images", ("a.png", png()))]
    form = {"prompt": "What?", "max_new_tokens": "2"}
    answer = await client.post("/inference/talker/upload", data=form, files=files)
    assert [(each["text"], each["finish_reason"]) for each in answer.json()["results"]] == [("one two", "length")]


async def test_a_job_answers_the_same(client: httpx.AsyncClient) -> None:
    job = (await client.post("/jobs/submit/talker", json={"images": [IMAGE], "prompt": "What?"})).json()
    events = (await client.get(f"/jobs/{job['job_id']}/events")).text
    assert '"completed"' in events
    result = (await client.get(f"/jobs/{job['job_id']}")).json()["result"]
    assert result["results"][0]["text"] == WHOLE


async def test_answers_as_an_archive_and_below_the_picture(client: httpx.AsyncClient) -> None:
    body = {"images": [IMAGE], "prompt": "What?"}
    archive = await client.post("/inference/talker", json=body, headers={"Accept": "application/x-npz"})
    assert np.load(BytesIO(archive.content))["texts"].tolist() == [WHOLE]
    picture = pixels_of((await client.post("/inference/talker/overlay", json=body)).content)
    assert picture.shape[0] > 8 and picture.shape[1] == 16
    assert (picture[0, 0] == (200, 30, 30)).all()


@pytest.mark.parametrize(
    ("changes", "status"),
    [({"max_new_tokens": 1001}, 400), ({"prompt": ""}, 422), ({"prompt": talking.MUTE}, 400), ({"top_p": 2}, 422)],
)
async def test_what_makes_no_sense(client: httpx.AsyncClient, changes: dict[str, object], status: int) -> None:
    answer = await client.post("/inference/talker", json={"images": [IMAGE], "prompt": "What?", **changes})
    assert answer.status_code == status
