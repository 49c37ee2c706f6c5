"""A bounded number of places, and a closing that waits for those inside."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest

from vision_model_repo.engine.admission import Admission, source_of
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


async def test_one_address_may_not_take_the_last_quarter_of_the_places() -> None:
    admission = Admission(8)
    with ExitStack() as inside:
        for _ in range(6):
            inside.enter_context(admission.enter("10.0.0.1"))
        with pytest.raises(Busy, match="6 of its 6 requests are yours") as refused, admission.enter("10.0.0.1"):
            pass
        assert 1 <= refused.value.retry_after <= 60
        inside.enter_context(admission.enter("10.0.0.2"))
        inside.enter_context(admission.enter("10.0.0.2"))
        with pytest.raises(Busy, match="busy with 8 requests"), admission.enter("10.0.0.3"):
            pass
    assert admission.inside == 0
    for _ in range(10):
        with admission.enter("10.0.0.1"):
            pass


async def test_the_share_of_an_address_is_what_was_set() -> None:
    admission = Admission(8, address_share=1.0)
    with ExitStack() as inside:
        for _ in range(8):
            inside.enter_context(admission.enter("10.0.0.1"))
        assert admission.inside == 8


@pytest.mark.parametrize("address", [None, "", "unix", "unknown"])
async def test_what_is_no_address_has_no_share(address: str | None) -> None:
    admission = Admission(4)
    with ExitStack() as inside:
        for _ in range(4):
            inside.enter_context(admission.enter(address))
        assert admission.inside == 4


async def test_addresses_are_forgotten_with_their_last_request() -> None:
    admission = Admission(4)
    for number in range(1000):
        with admission.enter(f"10.0.{number // 256}.{number % 256}"):
            pass
    assert not admission._by_source


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:1", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("client", None),
        ("1" * 100_000, None),
    ],
)
def test_an_address_counts_for_its_host(address: str, source: str | None) -> None:
    assert source_of(address) == source
