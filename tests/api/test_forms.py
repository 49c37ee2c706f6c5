"""Forms are taken whole or refused, whatever is missing at their end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from tests.api.conftest import Serve, engine_of, png
from tests.api.stand_ins import SEEN

FORM = {"content-type": "multipart/form-data; boundary=x"}


def file(name: str) -> bytes:
    return b'--x\r\nContent-Disposition: form-data; name="%s"; filename="a.png"\r\n\r\n%s\r\n' % (name.encode(), png())


def field(value: str) -> bytes:
    return b'--x\r\nContent-Disposition: form-data; name="prompts"\r\n\r\n%s\r\n' % value.encode()


WHOLE = file("images") + field("a") + field("b") + b"--x--\r\n"


@pytest.mark.parametrize("missing", [0, 2])
async def test_a_form_ends_with_its_closing_boundary(client: httpx.AsyncClient, missing: int) -> None:
    body = WHOLE[: len(WHOLE) - missing]
    answer = await client.post("/inference/seg-menter/upload", content=body, headers=FORM)
    assert answer.status_code == 200, answer.text
    assert [prompt.text for prompt in SEEN[0].prompts] == ["a", "b"]


async def test_a_form_that_ends_early_is_refused_wherever_it_does(client: httpx.AsyncClient) -> None:
    for end in range(len(WHOLE) - 150, len(WHOLE) - 2):
        answer = await client.post("/inference/seg-menter/upload", content=WHOLE[:end], headers=FORM)
        assert answer.status_code == 400 and "ends early" in answer.json()["detail"], (WHOLE[:end], answer.text)
    assert not SEEN


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("/inference/seg-menter/upload", "images"),
        ("/inference/seg-menter/overlay", "images"),
        ("/images", "image"),
        ("/tracking", "video"),
        ("/jobs/submit/tracking", "video"),
    ],
)
async def test_every_route_that_takes_forms_says_so(client: httpx.AsyncClient, url: str, name: str) -> None:
    answer = await client.post(url, content=file(name) + field("a"), headers=FORM)
    assert answer.status_code == 400 and "ends early" in answer.json()["detail"], answer.text


async def test_the_end_may_come_in_pieces_and_be_followed_by_more(client: httpx.AsyncClient) -> None:
    async def piecewise() -> AsyncIterator[bytes]:
        for at in range(len(WHOLE)):
            yield WHOLE[at : at + 1]
        yield b"epilogue"

    answer = await client.post("/inference/seg-menter/upload", content=piecewise(), headers=FORM)
    assert answer.status_code == 200, answer.text


async def test_refused_forms_leave_nothing_behind(serve: Serve) -> None:
    async with serve() as client:
        calls = (client.post("/inference/seg-menter/upload", content=WHOLE[:-7], headers=FORM) for _ in range(8))
        assert {answer.status_code for answer in await asyncio.gather(*calls)} == {400}
        assert engine_of(client).admission.inside == 0
