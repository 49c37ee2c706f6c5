"""A bounded number of places, and a closing that waits for those inside."""

from __future__ import annotations

import asyncio

import pytest

from vision_model_repo.engine.admission import Admission
from vision_model_repo.errors import Busy


async def test_one_more_than_the_places_is_refused_with_a_time_to_retry() -> None:
    admission = Admission(2)
    with admission.enter(), admission.enter(), pytest.raises(Busy) as refused, admission.enter():
        pass
    assert 1 <= refused.value.retry_after <= 60
    with admission.enter():
        assert admission.inside == 1


async def test_a_place_is_given_back_when_the_request_fails() -> None:
    admission = Admission(1)
    with pytest.raises(ValueError), admission.enter():
        raise ValueError
    assert admission.inside == 0


async def test_closing_refuses_newcomers_and_waits_for_those_inside() -> None:
    admission = Admission(1)

    async def stay() -> None:
        with admission.enter():
            await asyncio.sleep(0.05)

    guest = asyncio.create_task(stay())
    await asyncio.sleep(0)
    assert await admission.close(grace_seconds=5) == 0
    assert guest.done()
    with pytest.raises(Busy, match="shutting down"), admission.enter():
        pass


async def test_closing_gives_up_after_the_grace() -> None:
    admission = Admission(1)
    with admission.enter():
        assert await admission.close(grace_seconds=0.01) == 1
