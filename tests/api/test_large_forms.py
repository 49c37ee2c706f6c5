"""Forms with a video may be larger than other bodies, and take no more memory than those."""

from __future__ import annotations

import errno
import tempfile
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.api.conftest import settings_of
from tests.engine import colorful, weighty
from tests.engine.test_tracking import Crossing
from vision_model_repo.api.forms import SPOOL_BYTES
from vision_model_repo.api.server import create_app
from vision_model_repo.formats.clips import encode_clip

FORM = {"content-type": "multipart/form-data; boundary=x"}
FIELDS = b"".join(
    b'--x\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % field
    for field in ((b"model_type", b"segmenter"), (b"phrases", b"red"))
)
MEGABYTE = 2**20


def video_of(megabytes: int) -> tuple[bytes, int]:
    """Twelve frames as mp4 with the beginning of a box that readers skip, and how many zeros it has."""
    size = megabytes * MEGABYTE
    return encode_clip((Crossing().frame(index) for index in range(12)), 10) + size.to_bytes(4, "big") + b"free", size


async def form_of(name: str, beginning: bytes, zeros: int, files: int = 1) -> AsyncIterator[bytes]:
    yield FIELDS
    for _ in range(files):
        yield b'--x\r\nContent-Disposition: form-data; name="%s"; filename="a"\r\n\r\n' % name.encode() + beginning
        for _ in range(0, zeros, MEGABYTE):
            yield bytes(MEGABYTE)
        yield b"\r\n"
    yield b"--x--\r\n"


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    models = {"segmenter": weighty.write_checkpoint(tmp_path / "plain")}
    settings = settings_of(default_model_ids=models, max_body_mb=4, max_video_mb=64)
    app = create_app(settings, catalog=colorful.catalog())
    transport = httpx.ASGITransport(app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://x") as it:
        yield it


def told(answer: httpx.Response) -> tuple[int, Any]:
    return answer.status_code, answer.json()["detail"]


async def test_a_large_video_is_tracked_from_disk(client: httpx.AsyncClient) -> None:
    video = video_of(2 * SPOOL_BYTES // MEGABYTE)
    tracemalloc.start()
    begun = await client.post("/tracking", content=form_of("video", *video), headers=FORM)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert begun.status_code == 201, begun.text
    assert peak < SPOOL_BYTES + 8 * MEGABYTE
    frames = (await client.get(f"/tracking/{begun.json()['session_id']}/frames")).text
    assert frames.count("event: frame") == 12 and "event: end" in frames


async def test_a_job_takes_a_large_video_too(client: httpx.AsyncClient) -> None:
    answer = await client.post("/jobs/submit/tracking", content=form_of("video", *video_of(8)), headers=FORM)
    assert answer.status_code == 200, answer.text


async def test_a_video_over_its_own_limit_is_refused(client: httpx.AsyncClient) -> None:
    status, why = told(await client.post("/tracking", content=form_of("video", *video_of(65)), headers=FORM))
    assert (status, why) == (413, "The body is larger than 64 MB. Send a shorter or smaller video.")


async def test_a_large_video_in_json_is_told_to_come_as_a_form(client: httpx.AsyncClient) -> None:
    status, why = told(await client.post("/tracking", json={"video": "A" * 5 * MEGABYTE}))
    assert status == 413 and "larger than 4 MB" in why and "in a form, which may have 64 MB" in why


async def test_small_files_together_take_no_more_memory_than_a_body(client: httpx.AsyncClient) -> None:
    answer = await client.post("/tracking", content=form_of("frames", b"", MEGABYTE, files=5), headers=FORM)
    status, why = told(answer)
    assert status == 413 and "4 MB of small files" in why and "one video file" in why


async def test_a_form_of_images_stays_under_the_limit_of_bodies(client: httpx.AsyncClient) -> None:
    upload = "/inference/segmenter/upload"
    status, why = told(await client.post(upload, content=form_of("images", b"", 5 * MEGABYTE), headers=FORM))
    assert (status, why) == (413, "The body is larger than 4 MB. Send fewer or smaller images.")


@pytest.mark.parametrize("folder", ["missing", "file", "/proc"])
async def test_no_temporary_folder_is_told_by_the_name_of_its_setting(
    client: httpx.AsyncClient, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / folder))
    status, why = told(await client.post("/tracking", content=form_of("video", *video_of(8)), headers=FORM))
    assert status == 507 and "TMPDIR" in why


@pytest.mark.parametrize(
    ("number", "status", "word"),
    [
        (errno.EROFS, 507, "TMPDIR"),
        (errno.EACCES, 507, "TMPDIR"),
        (errno.EPERM, 507, "TMPDIR"),
        (errno.ENOSPC, 507, "disk is full"),
        (errno.EDQUOT, 507, "disk is full"),
        (errno.ENOMEM, 507, "memory"),
        (errno.EMFILE, 503, "too many files open"),
        (errno.ENFILE, 503, "too many files open"),
    ],
)
async def test_a_file_that_cannot_be_kept_is_told_why(
    client: httpx.AsyncClient, number: int, status: int, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **options: Any) -> Any:
        raise OSError(number, "no")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    answer = await client.post("/tracking", content=form_of("video", *video_of(8)), headers=FORM)
    assert answer.status_code == status and word in answer.json()["detail"]
    assert ("Retry-After" in answer.headers) == (status == 503)


async def test_without_a_temporary_folder_small_files_are_still_taken(
    client: httpx.AsyncClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    assert (await client.post("/tracking", content=form_of("video", *video_of(1)), headers=FORM)).status_code == 201
