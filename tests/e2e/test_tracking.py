"""A held-out tabletop clip, tracked over HTTP by a real server: objects keep their ids, and a correction counts."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import numpy as np
import pytest

from tests.conftest import Server
from vision_model_repo.demo.clip import frame_of
from vision_model_repo.demo.tracking_evaluation import TabletopClip, TrackingTally, occluded_clips
from vision_model_repo.formats.clips import encode_clip
from vision_model_repo.tasks.tracking import TrackedFrame

FRAMES = 40


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=120) as client:
        yield client


@pytest.fixture(scope="module")
def clip() -> TabletopClip:
    (clip,) = occluded_clips(1)
    return clip


@pytest.fixture(scope="module")
def mp4(clip: TabletopClip) -> bytes:
    return encode_clip((frame for _, frame in clip.frames()), clip.frames_per_second)


def begin(client: httpx.Client, mp4: bytes, **fields: str | list[str]) -> str:
    answer = client.post("/tracking", files={"video": ("clip.mp4", mp4)}, data={"model_id": "demo/sam3", **fields})
    assert answer.status_code == 201, answer.text
    return f"/tracking/{answer.json()['session_id']}"


def track(client: httpx.Client, session: str, **query: int) -> list[TrackedFrame]:
    answer = client.get(f"{session}/frames", params=query)
    assert answer.status_code == 200, answer.text
    told = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
    assert told[-1]["model_id"] == "demo/sam3"
    return [frame_of(frame) for frame in told[:-1]]


def test_objects_keep_their_ids_while_they_hide_each_other(
    client: httpx.Client, clip: TabletopClip, mp4: bytes
) -> None:
    colors = sorted({solid.color for solid in clip.scenes[0].solids})
    frames = track(client, begin(client, mp4, phrases=[f"{color} object" for color in colors]))
    assert [frame.frame_index for frame in frames] == list(range(FRAMES))
    tally = TrackingTally()
    tally.add(clip, frames)
    figures = tally.figures()
    assert figures["idf1"] >= 0.9 and figures["mask_iou"] >= 0.75, figures


def test_a_correction_gives_an_id_to_another_object(client: httpx.Client, clip: TabletopClip, mp4: bytes) -> None:
    """An object is meant on the first frame, and another one by the same id later, as if the first were wrong."""
    first, second = (middle_of(clip, index, which) for index, which in ((0, 0), (7, 1)))
    session = begin(client, mp4, prompts=json.dumps([{"object_id": 5, "points": [first[1]]}]))
    before = track(client, session, stop=14)
    correction = {"object_id": 5, "frame_index": 7, "points": [second[1]]}
    assert client.post(f"{session}/prompts", json={"prompts": [correction]}).status_code == 200
    after = track(client, session, stop=14)
    assert {each for frame in after for each in ids(frame)} == {5}
    assert np.mean([overlap(clip, frame, first[0]) for frame in before]) >= 0.75
    assert np.mean([overlap(clip, frame, first[0]) for frame in after[:7]]) >= 0.75
    assert np.mean([overlap(clip, frame, second[0]) for frame in after[7:]]) >= 0.75


def middle_of(clip: TabletopClip, index: int, which: int) -> tuple[int, list[float]]:
    """One of the objects that are seen best on a frame, and a point on it."""
    view = clip.view(index)
    order = np.argsort([-mask.sum() for mask in view.masks])
    mask = view.masks[order[which]]
    pixels = np.argwhere(mask)
    row, column = pixels[np.abs(pixels - pixels.mean(0)).sum(1).argmin()].tolist()
    return clip.identities(view, index)[order[which]], [column + 0.5, row + 0.5]


def ids(frame: TrackedFrame) -> list[int]:
    return [each.object_id for each in frame.objects]


def overlap(clip: TabletopClip, frame: TrackedFrame, identity: int) -> float:
    """Intersection over union of what is found on a frame with an object."""
    view = clip.view(frame.frame_index)
    truth = view.masks[clip.identities(view, frame.frame_index).index(identity)]
    found = np.zeros_like(truth)
    for each in frame.objects:
        assert each.mask is not None
        found |= each.mask.to_dense()
    return float((found & truth).sum() / (found | truth).sum())
