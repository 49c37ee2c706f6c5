"""Videos over HTTP: sent in every form, tracked frame by frame, corrected, drawn, as a job, refused in sentences."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from threading import Thread
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from PIL import Image, ImageSequence

from tests.api.conftest import LiveServer, b64, settings_of
from tests.engine import colorful, weighty
from tests.engine.test_tracking import HEIGHT, WIDTH, Crossing
from vision_model_repo.api.native.jobs import JobWithResult
from vision_model_repo.api.native.tracking import TrackedFrameAnswer, TrackingInfo
from vision_model_repo.api.server import create_app
from vision_model_repo.formats.clips import encode_clip
from vision_model_repo.formats.images import encode_png
from vision_model_repo.formats.masks import coco_rle, encode_mask, encode_mask_png, from_coco_rle
from vision_model_repo.formats.video import open_video

FRAMES = [encode_png(Crossing().frame(index)) for index in range(24)]
"""A red square goes behind a blue post; a green one stands. Without loss, since the stand-ins see plain colours."""
VIDEO = [b64(frame) for frame in FRAMES]
RED, GREEN = (5.0, 25.0), (60.0, 50.0)

Connect = Callable[..., LiveServer]


@pytest.fixture(scope="module")
def mp4() -> bytes:
    return encode_clip((frame for _, frame in Crossing().frames()), 10)


@pytest.fixture(scope="module")
def long_mp4() -> bytes:
    return encode_clip((frame for _, frame in Crossing(frame_count=1500).frames()), 25)


@pytest.fixture(scope="module")
def colors_app(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., FastAPI]:
    """Applications by their settings, each built once, whose models see colours."""
    checkpoint = weighty.write_checkpoint(tmp_path_factory.mktemp("colors") / "plain")
    models = dict.fromkeys(("segmenter", "detector", "other"), checkpoint)
    return cache(
        lambda **changes: create_app(settings_of(default_model_ids=models, **changes), catalog=colorful.catalog())
    )


@pytest.fixture
def connect(colors_app: Callable[..., FastAPI]) -> Connect:
    """`with connect(max_video_mb=1) as server:` is a server of that kind."""
    colorful.FORWARDS.clear()
    return lambda **changes: LiveServer(colors_app(**changes))


@pytest.fixture
async def client(connect: Connect) -> AsyncIterator[httpx.AsyncClient]:
    app = connect().app
    transport = httpx.ASGITransport(app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://x") as it:
        yield it


def body_of(**changes: Any) -> dict[str, Any]:
    return {"video": VIDEO, "model_type": "segmenter", "phrases": ["red", "blue"], **changes}


async def begin(client: httpx.AsyncClient, **changes: Any) -> dict[str, Any]:
    response = await client.post("/tracking", json=body_of(**changes))
    assert response.status_code == 201, response.text
    return TrackingInfo.model_validate_json(response.content, extra="forbid").model_dump(mode="json")


def events_of(text: str) -> list[tuple[str, str | None, Any]]:
    """Name, id and data of each event."""
    events = []
    for block in text.replace("\r\n", "\n").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            events.append((fields["event"], fields.get("id"), json.loads(fields["data"])))
    return events


async def frames_of(client: httpx.AsyncClient, session_id: str, **query: Any) -> list[dict[str, Any]]:
    response = await client.get(f"/tracking/{session_id}/frames", params=query)
    assert response.status_code == 200, response.text
    *frames, (last, _, end) = events_of(response.text)
    assert last == "end" and end["frames"] == len(frames) and end["processing_time"] > 0
    for name, event_id, data in frames:
        assert (name, event_id) == ("frame", str(data["frame_index"]))
        TrackedFrameAnswer.model_validate(data, extra="forbid")
    return [data for _, _, data in frames]


def box_of(frame: dict[str, Any], object_id: int) -> list[float] | None:
    return next((each["box"] for each in frame["objects"] if each["object_id"] == object_id), None)


# Videos


async def test_a_video_comes_in_every_form(client: httpx.AsyncClient, mp4: bytes) -> None:
    stored = [(await client.post("/images", files={"image": frame})).json()["image_id"] for frame in FRAMES[:2]]
    plain = {"model_type": "segmenter", "phrases": "red"}
    files = [("frames", (f"{index}.png", frame)) for index, frame in enumerate(FRAMES)]
    answers = [
        await client.post("/tracking", json=body_of()),
        await client.post("/tracking", json=body_of(video=b64(mp4))),
        await client.post("/tracking", json=body_of(video={"data": f"data:video/mp4;base64,{b64(mp4)}"})),
        await client.post("/tracking", files={"video": ("a.mp4", mp4, "video/mp4")}, data=plain),
        await client.post("/tracking", files=files, data=plain),
        await client.post(
            "/tracking", json=body_of(video=[{"data": each, "format": "id"} for each in stored] + VIDEO[2:])
        ),
    ]
    assert [answer.status_code for answer in answers] == [201] * 6, [answer.text for answer in answers]
    for answer in answers:
        told = answer.json()
        assert (told["width"], told["height"], told["frame_count"]) == (WIDTH, HEIGHT, 24)
        assert (told["frames_per_second"], told["tracking"]) == (10.0, False)


@contextmanager
def website(data: bytes) -> Iterator[str]:
    class Site(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    Thread(target=server.serve_forever).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/clip.mp4"
    finally:
        server.shutdown()
        server.server_close()


def test_a_video_by_url_has_a_limit_of_its_own_and_is_guarded(connect: Connect) -> None:
    # Two frames, and a box that readers skip, larger than any image may be.
    padding = b"\0" * (2 << 20)
    data = encode_clip([Crossing().frame(0)] * 2, 10) + (len(padding) + 8).to_bytes(4, "big") + b"free" + padding
    with website(data) as url:
        with connect(allow_private_urls=True, max_url_mb=1) as server:
            for video in (url, {"data": url, "format": "url"}):
                answer = httpx.post(f"{server.url}/tracking", json=body_of(video=video), timeout=30)
                assert (answer.status_code, answer.json().get("frame_count")) == (201, 2), answer.text
            fields = {"video": url, "model_type": "segmenter", "phrases": "a"}
            form = httpx.post(f"{server.url}/tracking", files={name: (None, text) for name, text in fields.items()})
            assert form.status_code == 201, form.text
        with connect(allow_private_urls=True, max_video_mb=1) as server:
            answer = httpx.post(f"{server.url}/tracking", json=body_of(video=url), timeout=30)
            assert (answer.status_code, "more than 1048576 bytes" in answer.text) == (400, True)
        with connect() as server:
            answer = httpx.post(f"{server.url}/tracking", json=body_of(video=url), timeout=30)
            assert (answer.status_code, "not public" in answer.text) == (400, True)


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"video": None}, 422, "A video is a base64 string"),
        ({"video": []}, 400, "no frames"),
        ({"video": ""}, 400, "empty"),
        ({"video": b64(b"This is a text, and no video. " * 40)}, 400, "damaged, or of a format"),
        ({"video": "no base64!"}, 400, "video: The string is neither base64"),
        ({"video": [VIDEO[0], "no base64!"]}, 400, "video[1]: The string is neither base64"),
        ({"video": [b64(b"no picture")]}, 400, "Frame 0:"),
        ({"video": [{"data": "lost", "format": "id"}]}, 400, "video[0]: No image 'lost'"),
        ({"video": {"data": "x", "format": "id"}}, 422, "format"),
        ({"video": VIDEO * 5}, 400, "at most 100 are accepted"),
        ({"phrases": []}, 400, "Say what to track"),
        ({"phrases": ["red", " "]}, 400, "phrases[1] is empty"),
        ({"phrases": ["red"] * 65}, 400, "65 phrases"),
        ({"model_type": "other"}, 400, "a model for depth, which cannot track"),
        ({"model_type": "nothing"}, 404, "Unknown model_type"),
        ({"threshold": 2}, 422, "threshold"),
        ({"prompts": [{"object_id": 1, "frame_index": 24, "points": [RED]}]}, 400, "the video has 24 frames"),
        ({"prompts": [{"object_id": -1, "points": [RED]}]}, 422, "object_id"),
        ({"prompts": [{"object_id": 1}]}, 400, "prompts[0]: The prompt of object 1 needs either points"),
        ({"prompts": [{"object_id": 1, "points": [[90, 5]]}]}, 400, "prompts[0].points[0] lies outside"),
        ({"prompts": [{"object_id": 1, "box": [5, 5, 5, 9]}]}, 400, "prompts[0].box has no area"),
        ({"prompts": [{"object_id": 1, "points": [RED], "point_labels": [1, 0]}]}, 400, "Give a label for each"),
        ({"prompts": [{"object_id": 1, "mask": {"size": [4, 4], "counts": "0"}}]}, 400, "prompts[0]: "),
        ({"prompts": [{"object_id": 1, "mask": b64(encode_png(np.zeros((4, 4, 3), np.uint8)))}]}, 400, "4 x 4 pixels"),
    ],
)
async def test_what_cannot_be_tracked_is_refused_in_a_sentence(
    connect: Connect, changes: dict[str, Any], status: int, words: str
) -> None:
    app = connect(max_video_frames=100).app
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client,
    ):
        refused = await client.post("/tracking", json=body_of(**changes))
        assert (refused.status_code, words in refused.text) == (status, True), refused.text
        again = await client.post("/jobs/submit/tracking", json=body_of(**changes))
        if changes != {"video": None}:
            assert (again.status_code, again.text) == (refused.status_code, refused.text)
        assert app.state.engine.tracking.bytes_held == 0


async def test_damaged_and_too_large_videos_are_refused(connect: Connect, mp4: bytes, long_mp4: bytes) -> None:
    app = connect(max_video_seconds=30, max_video_mb=1, max_video_pixels=WIDTH * HEIGHT).app
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client,
    ):

        async def refusal(data: bytes) -> tuple[int, str]:
            answer = await client.post("/tracking", json=body_of(video=b64(data)))
            return answer.status_code, answer.json()["detail"]

        assert await refusal(mp4[: len(mp4) // 2]) == (
            400,
            "The video is damaged, or of a format that is not read here. Send an mp4.",
        )
        assert await refusal(long_mp4) == (400, "The video plays for more than 30 seconds. Send a shorter one.")
        status, detail = await refusal(bytes(2**20 + 1))
        assert (status, "at most 1 MB" in detail) == (413, True)
        wide = encode_clip([np.zeros((HEIGHT, WIDTH + 2, 3), np.uint8)] * 2, 10)
        assert "82 x 60 pixels a frame" in (await refusal(wide))[1]


async def test_forms_are_refused_too(client: httpx.AsyncClient, mp4: bytes) -> None:
    plain = {"model_type": "segmenter", "phrases": "red"}
    none = await client.post("/tracking", files={"phrases": (None, "red")})
    assert (none.status_code, "There is no video" in none.text) == (400, True)
    two = await client.post("/tracking", files=[("video", ("a", mp4)), ("video", ("b", mp4))], data=plain)
    assert (two.status_code, "more than one video" in two.text) == (400, True)
    text = await client.post("/tracking", content=b"video", headers={"content-type": "text/plain"})
    assert text.status_code == 415


# Frames


async def test_frames_come_in_order_and_objects_keep_their_ids(client: httpx.AsyncClient) -> None:
    session = await begin(client)
    frames = await frames_of(client, session["session_id"])
    assert [frame["frame_index"] for frame in frames] == list(range(24))
    labels = {each["object_id"]: each["label"] for frame in frames for each in frame["objects"]}
    assert sorted(labels.values()) == ["blue", "red"]
    red = next(object_id for object_id, label in labels.items() if label == "red")
    assert box_of(frames[0], red) == [2, 20, 12, 30] and box_of(frames[22], red) == [68, 20, 78, 30]
    assert box_of(frames[11], red) is None
    assert from_coco_rle(frames[0]["objects"][0]["mask_rle"]).area > 0
    told = (await client.get(f"/tracking/{session['session_id']}")).json()
    assert told["model_id"].endswith("plain") and session["model_id"] is None


@pytest.mark.parametrize(
    ("output_format", "field"),
    [("rle", "mask_rle"), ("polygons", "mask_polygon"), ("dense", "mask"), ("png", "mask_png"), ("none", None)],
)
async def test_masks_come_as_they_are_asked_for(
    client: httpx.AsyncClient, output_format: str, field: str | None
) -> None:
    session = await begin(client, phrases=["red"])
    (frame,) = await frames_of(client, session["session_id"], stop=1, output_format=output_format)
    (found,) = frame["objects"]
    assert set(found) - {"object_id", "label", "score", "box"} == ({field} if field else set())
    if field == "mask":
        assert np.argwhere(found["mask"]).min(0).tolist() == [20, 2]
    if field == "mask_polygon":
        assert np.min(found["mask_polygon"][0], axis=0).tolist() == [2, 20]


async def test_a_stretch_goes_on_or_goes_back(client: httpx.AsyncClient) -> None:
    session = await begin(client, prompts=[{"object_id": 7, "frame_index": 4, "points": [[18, 25]]}], phrases=[])
    first = await frames_of(client, session["session_id"], stop=8)
    run = len(colorful.FORWARDS)
    second = await frames_of(client, session["session_id"], start=8, stop=10)
    assert len(colorful.FORWARDS) == run + 2
    assert [frame["frame_index"] for frame in first + second] == list(range(4, 10))
    back = await frames_of(client, session["session_id"], backward=True)
    assert [frame["frame_index"] for frame in back] == [4, 3, 2, 1, 0]
    assert box_of(back[-1], 7) == [2, 20, 12, 30]


@pytest.mark.parametrize("kind", ["points", "box", "rle", "png"])
async def test_an_object_is_meant_in_every_way_and_corrected_on_a_further_frame(
    client: httpx.AsyncClient, kind: str
) -> None:
    mask = encode_mask((Crossing().frame(0) == colorful.COLORS["green"]).all(axis=2))
    meant = {
        "points": {"points": [GREEN, RED], "point_labels": [1, 0]},
        "box": {"box": [55, 40, 70, 55]},
        "rle": {"mask": coco_rle(mask)},
        "png": {"mask": b64(encode_mask_png(mask))},
    }[kind]
    meant = json.loads(json.dumps(meant, default=lambda text: text.decode()))
    session = await begin(client, phrases=[], prompts=[{"object_id": 3, **meant}])
    before = await frames_of(client, session["session_id"])
    assert {each["object_id"] for frame in before for each in frame["objects"]} == {3}
    assert box_of(before[20], 3) == [55, 40, 70, 55]
    correction = {"prompts": [{"object_id": 3, "frame_index": 18, "points": [[58, 25]]}]}
    told = (await client.post(f"/tracking/{session['session_id']}/prompts", json=correction)).json()
    assert told["prompts"] == [{"object_id": 3, "frame_index": 0}, {"object_id": 3, "frame_index": 18}]
    after = await frames_of(client, session["session_id"], start=16)
    assert box_of(after[0], 3) == [55, 40, 70, 55] and box_of(after[2], 3) == [56, 20, 66, 30]


async def test_what_was_said_can_be_taken_back(client: httpx.AsyncClient) -> None:
    meant = [{"object_id": 1, "points": [RED]}, {"object_id": 2, "points": [GREEN]}]
    session_id = (await begin(client, phrases=[], prompts=meant))["session_id"]
    told = await client.delete(f"/tracking/{session_id}/prompts/2")
    assert (told.status_code, told.json()["prompts"]) == (200, [{"object_id": 1, "frame_index": 0}])
    unknown = await client.delete(f"/tracking/{session_id}/prompts/2")
    assert (unknown.status_code, "object 2" in unknown.text) == (404, True)
    (frame,) = await frames_of(client, session_id, stop=1)
    assert [each["object_id"] for each in frame["objects"]] == [1]


@pytest.mark.parametrize(
    ("path", "query", "status", "words"),
    [
        ("frames", {"start": 24}, 400, "No frame to track from 24"),
        ("frames", {"start": 5, "stop": 5}, 400, "No frame to track from 5"),
        ("frames", {"start": -1}, 422, "start"),
        ("frames", {"output_format": "bmp"}, 422, "output_format"),
        ("clip", {"format": "avi"}, 422, "format"),
        ("clip", {"start": 24}, 400, "No frame to track"),
    ],
)
async def test_stretches_that_make_no_sense_are_refused_by_the_status(
    client: httpx.AsyncClient, path: str, query: dict[str, Any], status: int, words: str
) -> None:
    session = await begin(client)
    refused = await client.get(f"/tracking/{session['session_id']}/{path}", params=query)
    assert (refused.status_code, words in refused.text) == (status, True), refused.text


async def test_what_goes_wrong_at_first_is_a_status_and_later_an_event(client: httpx.AsyncClient) -> None:
    nothing_there = [{"object_id": 1, "points": [[1, 1]]}]
    session = await begin(client, phrases=[], prompts=nothing_there)
    refused = await client.get(f"/tracking/{session['session_id']}/frames")
    assert (refused.status_code, "finds no object at the points" in refused.text) == (400, True)
    session = await begin(client, video=[*VIDEO[:3], b64(b"no picture")])
    events = events_of((await client.get(f"/tracking/{session['session_id']}/frames")).text)
    assert [name for name, _, _ in events] == ["frame", "frame", "frame", "error"]
    assert events[-1][2]["detail"].startswith("Frame 3:")


@pytest.mark.parametrize(
    ("method", "path"), [("GET", ""), ("DELETE", ""), ("GET", "/frames"), ("GET", "/clip"), ("POST", "/prompts")]
)
async def test_an_unknown_session_is_not_found(client: httpx.AsyncClient, method: str, path: str) -> None:
    body = {"prompts": [{"object_id": 1, "points": [RED]}]}
    answer = await client.request(method, f"/tracking/nobody{path}", json=body if method == "POST" else None)
    assert (answer.status_code, "nobody" in answer.text) == (404, True)


async def test_a_deleted_session_is_gone(client: httpx.AsyncClient) -> None:
    session_id = (await begin(client))["session_id"]
    answer = await client.delete(f"/tracking/{session_id}")
    assert answer.json() == {"message": f"Tracking session {session_id} deleted"}
    assert (await client.get(f"/tracking/{session_id}")).status_code == 404


# Work in progress


def standstill() -> int:
    """Forward passes so far, once there are no more."""
    before, now = -1, len(colorful.FORWARDS)
    deadline = time.monotonic() + 10
    while before != now:
        assert time.monotonic() < deadline, "the work goes on"
        time.sleep(0.1)
        before, now = now, len(colorful.FORWARDS)
    return now


def long_session(server: LiveServer, long_mp4: bytes) -> str:
    sent = {"model_type": "segmenter", "phrases": "red"}
    answer = httpx.post(f"{server.url}/tracking", files={"video": long_mp4}, data=sent, timeout=30)
    assert answer.status_code == 201, answer.text
    return f"{server.url}/tracking/{answer.json()['session_id']}"


def test_a_client_that_hangs_up_stops_the_work_and_frees_its_place(connect: Connect, long_mp4: bytes) -> None:
    with connect() as server:
        session = long_session(server, long_mp4)
        with httpx.stream("GET", f"{session}/frames", timeout=30) as stream:
            lines = stream.iter_lines()
            assert next(lines) == "id: 0" and server.engine.admission.inside == 1
            busy = [
                httpx.get(f"{session}/frames"),
                httpx.get(f"{session}/clip"),
                httpx.post(f"{session}/prompts", json={"prompts": [{"object_id": 1, "points": [RED]}]}),
            ]
            assert [answer.status_code for answer in busy] == [503] * 3
            assert all("Try again when that has ended; hanging up" in answer.text for answer in busy)
            assert all(answer.headers["retry-after"] == "5" for answer in busy)
            assert httpx.get(session).json()["tracking"]
        assert 0 < standstill() < 1500
        assert not httpx.get(session).json()["tracking"] and server.engine.admission.inside == 0
        assert httpx.get(f"{session}/frames", params={"stop": 3}, timeout=30).text.count("event: frame") == 3


def test_a_clip_that_nobody_waits_for_is_not_made(connect: Connect, long_mp4: bytes) -> None:
    with connect() as server:
        session = long_session(server, long_mp4)
        with pytest.raises(httpx.ReadTimeout):
            httpx.get(f"{session}/clip", timeout=httpx.Timeout(10, read=0.5))
        assert 0 < standstill() < 1500
        assert not httpx.get(session).json()["tracking"]


def test_deleting_a_session_ends_its_stream(connect: Connect, long_mp4: bytes) -> None:
    with connect() as server:
        session = long_session(server, long_mp4)
        with httpx.stream("GET", f"{session}/frames", timeout=30) as stream:
            lines = stream.iter_lines()
            next(lines)
            assert httpx.delete(session).status_code == 200
            assert [line for line in lines if line.startswith("event: ")][-1] == "event: error"
        standstill()


# Clips


def seconds_of(clip: bytes, kind: str) -> float:
    """Time of play. In a GIF, frames that are the same are one that stays longer."""
    if kind == "mp4":
        video = open_video(clip)
        return video.frame_count / video.frames_per_second
    return sum(frame.info["duration"] for frame in ImageSequence.Iterator(Image.open(BytesIO(clip)))) / 1000


@pytest.mark.parametrize(("kind", "media"), [("mp4", "video/mp4"), ("gif", "image/gif")])
async def test_a_clip_decodes_again_and_shows_what_was_tracked(
    client: httpx.AsyncClient, kind: str, media: str
) -> None:
    session = await begin(client)
    answer = await client.get(f"/tracking/{session['session_id']}/clip", params={"format": kind, "start": 2})
    assert (answer.status_code, answer.headers["content-type"]) == (200, media)
    video = open_video(answer.content)
    assert (video.width, video.height) == (WIDTH, HEIGHT)
    assert seconds_of(answer.content, kind) == pytest.approx(2.2)
    _, drawn = next(video.frames())
    changed = np.abs(drawn.astype(int) - Crossing().frame(2)).max(axis=2)
    assert changed[30:50, 32:44].mean() > 20 > changed[42:54, 57:68].mean(), "blue is painted, green is not"


async def test_a_gif_of_too_many_frames_is_refused_before_any_is_tracked(
    client: httpx.AsyncClient, long_mp4: bytes
) -> None:
    session = await begin(client, video=b64(long_mp4))
    refused = await client.get(f"/tracking/{session['session_id']}/clip", params={"format": "gif"})
    assert (refused.status_code, "at most 1000 frames" in refused.text) == (400, True)
    assert not colorful.FORWARDS


# Jobs


async def finished(client: httpx.AsyncClient, job_id: str) -> dict[str, Any]:
    await client.get(f"/jobs/{job_id}/events")
    answer = await client.get(f"/jobs/{job_id}")
    JobWithResult.model_validate_json(answer.content, extra="forbid")
    return answer.json()


@pytest.mark.parametrize("kind", ["gif", "mp4"])
async def test_a_job_tells_its_progress_and_gives_all_frames_and_a_clip(client: httpx.AsyncClient, kind: str) -> None:
    submitted = await client.post("/jobs/submit/tracking", json=body_of(stop=20, clip=kind))
    job = submitted.json()
    assert (submitted.status_code, job["model_type"], job["images_total"]) == (200, "tracking", 20)
    events = events_of((await client.get(f"/jobs/{job['job_id']}/events")).text)
    running = [data["images_done"] for _, _, data in events if data["status"] == "running"]
    assert running == list(range(20))
    result = (await finished(client, job["job_id"]))["result"]
    assert result["frames"] == await frames_of(client, result["session_id"], stop=20)
    assert result["clip"]["format"] == kind
    clip = base64.b64decode(result["clip"]["data"])
    assert seconds_of(clip, kind) == pytest.approx(2.0)


async def test_a_job_takes_a_session_that_was_corrected(client: httpx.AsyncClient) -> None:
    meant = [{"object_id": 3, "points": [GREEN]}]
    session_id = (await begin(client, phrases=[], prompts=meant))["session_id"]
    correction = {"prompts": [{"object_id": 3, "frame_index": 18, "points": [[58, 25]]}]}
    await client.post(f"/tracking/{session_id}/prompts", json=correction)
    sent = {"session_id": session_id, "output_format": "none"}
    job = (await client.post("/jobs/submit/tracking", json=sent)).json()
    result = (await finished(client, job["job_id"]))["result"]
    assert (result["session_id"], result["clip"], len(result["frames"])) == (session_id, None, 24)
    assert box_of(result["frames"][18], 3) == [56, 20, 66, 30]
    both = await client.post("/jobs/submit/tracking", json=body_of(session_id=session_id))
    assert (both.status_code, "Give one or the other" in both.text) == (400, True)
    lost = await client.post("/jobs/submit/tracking", json={"session_id": "nobody"})
    assert lost.status_code == 404


async def test_a_form_is_a_job_too(client: httpx.AsyncClient, mp4: bytes) -> None:
    sent = {"model_type": "detector", "prompts": json.dumps([{"object_id": 1, "box": [2, 20, 12, 30]}]), "stop": "3"}
    job = (await client.post("/jobs/submit/tracking", files={"video": mp4}, data=sent)).json()
    done = await finished(client, job["job_id"])
    assert [frame["frame_index"] for frame in done["result"]["frames"]] == [0, 1, 2]


def test_cancelling_a_job_stops_its_work(connect: Connect, long_mp4: bytes) -> None:
    with connect() as server:
        sent = {"model_type": "segmenter", "phrases": "red"}
        url = f"{server.url}/jobs"
        job = httpx.post(f"{url}/submit/tracking", files={"video": long_mp4}, data=sent, timeout=30).json()
        deadline = time.monotonic() + 30
        while not httpx.get(f"{url}/{job['job_id']}").json()["images_done"]:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert httpx.delete(f"{url}/{job['job_id']}").status_code == 200
        assert 0 < standstill() < 1500
        assert httpx.get(f"{url}/{job['job_id']}").status_code == 404
