"""Bad input of every kind on the protocol's routes: a sentence, never a 500, and nothing of the image in it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.api.conftest import LiveServer, b64, encoded, png
from tests.api.native.test_hostile_input import png_that_unpacks_to
from tests.api.pixano.conftest import frame

SECRET = b64(png(color=(1, 2, 3)))
URI = f"data:image/png;base64,{SECRET}"
GOOD: dict[str, dict[str, Any]] = {
    "segmentation": {"model": "segmenter", "image": URI, "points": [[[5, 4]]], "labels": [[1]]},
    "detection": {"model": "detector", "image": URI, "classes": ["red"]},
    "tracking": {"model": "detector", "video": [URI], "classes": ["red"]},
    "ner": {"model": "capitals", "text": "Ada"},
    "embedding": {"model": "lengths", "text": "a"},
    "vlm": {"model": "parrot", "prompt": "Who?", "images": [URI], "maxNewTokens": 5},
}
MEDIA = {"segmentation": "image", "detection": "image", "embedding": "image", "tracking": "video"}
HUGE = 10**40


@pytest.fixture(scope="module")
def client(colors: LiveServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=colors.url, timeout=30) as client:
        yield client
        for name, body in GOOD.items():
            answer = client.post(f"/v1/inference/{name}", json=body)
            assert answer.status_code == 200, answer.text
        assert client.get("/health").json()["status"] == "healthy"


def refused(client: httpx.Client, path: str, content: bytes | dict[str, Any], **options: Any) -> httpx.Response:
    """The answer to a bad request, in both contracts."""
    given = {"content": content} if isinstance(content, bytes) else {"content": dumped(content)}
    headers = {"Content-Type": "application/json"}
    answer = client.post(path, headers=headers, **given, **options)
    assert 400 <= answer.status_code < 500, (answer.status_code, answer.text[:500])
    check(answer)
    return answer


def check(answer: httpx.Response) -> None:
    assert SECRET[20:60] not in answer.text and "Traceback" not in answer.text
    assert len(answer.text) < 5000
    document = answer.json()
    message = document["detail"] if "detail" in document else document["error"]["message"]
    assert message


def dumped(body: dict[str, Any]) -> bytes:
    """JSON, with what JSON has no words for."""
    return re.sub(rb'"(NaN|Infinity|1e999)"', rb"\1", json.dumps(body).encode())


VALUES: list[Any] = [None, True, 7, -1, HUGE, "NaN", "Infinity", "1e999", "", "x" * 600, [], {}, [[]], [None], [[[]]]]
FIELDS = {
    "segmentation": ["model", "image", "points", "labels", "boxes", "maskInput", "numMultimaskOutputs"],
    "detection": ["model", "image", "classes", "boxThreshold", "textThreshold"],
    "tracking": [
        *("model", "video", "objectsIds", "frameIndexes", "keyframes", "points", "labels", "boxes"),
        *("propagate", "interval", "classes", "boxThreshold"),
    ],
    "ner": ["model", "text"],
    "embedding": ["model", "image", "text", "normalize"],
    "vlm": ["model", "prompt", "images", "maxNewTokens", "temperature"],
}


@pytest.mark.parametrize(("name", "field"), [(name, field) for name, fields in FIELDS.items() for field in fields])
def test_no_value_of_any_field_is_too_much(client: httpx.Client, name: str, field: str) -> None:
    for value in VALUES:
        paths = [f"/v1/inference/{name}"]
        paths += [f"/inference/{name}/"] if name not in ("ner", "embedding") else []
        paths += [f"/v1/inference/{name}/jobs"] if name == "tracking" else []
        for path in paths:
            answer = client.post(
                path, content=dumped({**GOOD[name], field: value}), headers={"Content-Type": "application/json"}
            )
            assert answer.status_code < 500, (value, answer.text[:500])
            if answer.status_code >= 400:
                check(answer)


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"7", b'"x"', b"\xff\xfe", b"[" * 100_000, b"{}"])
def test_a_body_that_is_no_request_is_refused(client: httpx.Client, name: str, content: bytes) -> None:
    refused(client, f"/v1/inference/{name}", content)


@pytest.mark.parametrize(
    "image",
    [
        *("", "x", "data:", "data:image/png;base64,", "data:image/png,abc", f"data:image/png;base64,{SECRET[:50]}"),
        *("file:///etc/passwd", "/etc/passwd", "../../etc/passwd", "ftp://example.com/a.png", "http://", "http://["),
        *("http://169.254.169.254/latest/meta-data/", "http://localhost:1/a.png", "http://[::1]/a.png"),
        f"data:image/png;base64,{b64(png_that_unpacks_to(60_000, 60_000))}",
        f"data:text/html;base64,{b64(b'<html>')}",
        "\0" * 50,
        "é" * 5000,
    ],
)
@pytest.mark.parametrize("name", MEDIA)
def test_media_that_are_none_are_refused(client: httpx.Client, name: str, image: str) -> None:
    bodies = [{**GOOD[name], MEDIA[name]: image}]
    if name == "tracking":
        bodies += [{**GOOD[name], "video": [image]}, {**GOOD[name], "video": [image] * 3}]
    for body in bodies:
        refused(client, f"/v1/inference/{name}", {key: value for key, value in body.items() if key != "text"})


MASKS: list[Any] = [
    {"size": [24, 40], "counts": ""},
    {"size": [24, 40], "counts": "\u00e9"},
    {"size": [24, 40], "counts": "zzzzzzzzzzzz"},
    {"size": [24, 40], "counts": [960]},
    {"size": [24, 40], "counts": [1, 2]},
    {"size": [-24, -40], "counts": [960]},
    {"size": [HUGE, HUGE], "counts": [HUGE**2]},
    {"size": [65536, 65536], "counts": [2**32]},
    {"size": [1, 2, 3], "counts": "04"},
    {"size": [24, 40], "counts": [HUGE, -HUGE]},
    {"size": [30, 40], "counts": [0, 1200]},
]
PROMPTS: list[Any] = [
    *({"mask": mask} for mask in MASKS),
    {"box": {"x": 0, "y": 0, "width": 0, "height": 5}},
    {"box": {"x": 1e308, "y": 1e308, "width": 1e308, "height": 1e308}},
    {"box": {"x": -1e18, "y": 0, "width": 5, "height": 5}},
    {"box": {"x": 1e18, "y": 0, "width": 5, "height": 5}},
    {"box": {"x": "NaN", "y": 0, "width": 5, "height": 5}},
    {"points": [{"x": 1e308, "y": -1e308, "label": 1}]},
    {"points": [{"x": HUGE, "y": HUGE, "label": 1}]},
    {"points": [{"x": 5, "y": 5, "label": 2}]},
    {"points": [{"x": 5, "y": 5, "label": 0}]},
    {"points": [], "box": None},
    {"points": [{"x": 1, "y": 1, "label": 1}] * 10_000},
]


@pytest.mark.parametrize("prompt", PROMPTS, ids=lambda prompt: str(prompt)[:60])
@pytest.mark.parametrize("model", ["segmenter", "detector"])
def test_no_prompt_of_a_track_is_too_much(client: httpx.Client, model: str, prompt: dict[str, Any]) -> None:
    video = [f"data:image/png;base64,{b64(frame(index))}" for index in range(2)]
    for keyframe in ({"frameIndex": 0, "prompts": prompt}, {"frame_index": 0, **prompt}):
        body = {"model": model, "video": video, "objectsIds": [HUGE], "keyframes": [keyframe]}
        answer = client.post(
            "/v1/inference/tracking", content=dumped(body), headers={"Content-Type": "application/json"}
        )
        assert answer.status_code < 500, answer.text[:500]


@pytest.mark.parametrize(
    "changes",
    [
        {"objectsIds": list(range(2000)), "frameIndexes": [0] * 2000, "boxes": [[1, 1, 5, 5]] * 2000},
        {"interval": {"startFrame": HUGE, "endFrame": HUGE}},
        {"interval": {"startFrame": -1, "endFrame": 0}},
        {"video": []},
        {"video": [URI] * 2, "objectsIds": [1], "frameIndexes": [HUGE], "boxes": [[1, 1, 5, 5]]},
        {"video": [URI, f"data:image/png;base64,{b64(frame(0))}"]},
    ],
)
def test_tracks_that_cannot_be_are_refused(client: httpx.Client, changes: dict[str, Any]) -> None:
    refused(client, "/v1/inference/tracking", {**GOOD["tracking"], **changes})


def test_a_thousand_and_one_frames_are_a_form_like_any_other(client: httpx.Client) -> None:
    files = [("frames", (f"{index}.png", png())) for index in range(1001)]
    metadata = {"model": "detector", "classes": "red", "interval": {"start_frame": 0, "end_frame": 2}}
    answer = client.post("/v1/inference/tracking/binary", files=files, data={"metadata": json.dumps(metadata)})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("name", MEDIA)
def test_forms_that_cannot_be_read_are_refused(client: httpx.Client, name: str) -> None:
    field = "frames" if name == "tracking" else "image"
    metadata = json.dumps({key: value for key, value in GOOD[name].items() if key not in ("image", "video", "text")})
    good: dict[str, Any] = {"files": {field: png()}, "data": {"metadata": metadata}}
    path = f"/v1/inference/{name}/binary"
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    forms: list[dict[str, Any]] = [
        {**good, "data": {}},
        {**good, "data": {"metadata": "{"}},
        {**good, "data": {"metadata": "[1]"}},
        {**good, "data": {"metadata": "\x00"}},
        {**good, "data": {"metadata": "[" * 100_000}},
        {**good, "data": {"metadata": "{}"}},
        {**good, "files": {"other": png()}},
        {**good, "files": {field: b""}},
        {**good, "files": {field: b"no image"}},
        {"data": {"metadata": metadata, field: "text"}},
        {"content": b"", "headers": headers},
        {"content": b"--x\r\nbroken", "headers": headers},
        {"content": b"{}", "headers": {"Content-Type": "application/json"}},
    ]
    for form in forms:
        answer = client.post(path, **form)
        assert 400 <= answer.status_code < 500, (form, answer.status_code, answer.text[:500])
        check(answer)


@pytest.mark.parametrize(
    "body",
    [
        {"modelClass": "detector", "name": "a/b"},
        {"modelClass": "detector", "name": ""},
        {"modelClass": "detector", "name": "x" * 1000},
        {"modelClass": "x" * 100_000},
        {"modelClass": "detector", "modelParams": {"path": "../../etc"}},
        {"modelClass": "detector", "modelParams": {"path": 7}},
        {"modelClass": "detector", "deployment": {"timeout_s": "NaN"}},
        {"modelClass": "detector", "deployment": {"timeout_s": -1}},
        {"modelClass": "detector", "deployment": {"max_batch_size": HUGE}},
        {"modelClass": "OpenClipEmbeddingModel", "modelParams": {"nothing": 1}},
        {"modelClass": "Reds", "modelParams": {}, "name": "broken"},
        {},
    ],
)
def test_deployments_that_cannot_be_are_refused(client: httpx.Client, body: dict[str, Any]) -> None:
    refused(client, "/v1/models", body)


@pytest.mark.parametrize("path", ["/v1/jobs/%00", "/v1/jobs/job-..%2f..", "/v1/models/%ff/stats", "/v1/models/x/stats"])
def test_names_that_nothing_has(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    check(answer)


def test_nothing_of_exif_or_of_alpha_breaks_a_frame(client: httpx.Client) -> None:
    from PIL import Image

    turned = Image.new("RGB", (24, 40), (128, 128, 128))
    exif = Image.Exif()
    exif[0x0112] = 6
    video = [f"data:image/jpeg;base64,{b64(encoded(turned, 'JPEG', exif=exif))}", URI.replace("png", "webp")]
    answer = client.post("/v1/inference/tracking", json={**GOOD["tracking"], "video": video})
    # Upright, the first is 40 x 24.
    assert answer.status_code == 400 and "frame 0 has 40 x 24" in answer.text
