"""Batches form greedily, of one key, without those who left, and a failure stays with its own entry."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest

from vision_model_repo.engine.batching import Entry, Lane
from vision_model_repo.errors import RequestTimeout

LATER = time.monotonic() + 3600


def lane_with(*entries: Entry, max_batch: int = 4, wait_seconds: float = 0.0) -> Lane:
    lane = Lane(lambda items: list(items), max_batch=max_batch, wait_seconds=wait_seconds)
    for entry in entries:
        lane.put(entry)
    return lane


def taken(lane: Lane) -> list[object]:
    return [entry.item for entry in lane.take()]


def test_everything_that_waits_goes_in_one_batch_up_to_the_limit() -> None:
    lane = lane_with(*(Entry(number, None, LATER) for number in range(6)))
    assert taken(lane) == [0, 1, 2, 3]
    assert taken(lane) == [4, 5]
    assert taken(lane) == []


def test_a_batch_holds_one_key_and_the_others_keep_their_order() -> None:
    lane = lane_with(*(Entry(item, item[0], LATER) for item in ("a1", "b1", "a2", "b2", "a3")))
    assert taken(lane) == ["a1", "a2", "a3"]
    assert taken(lane) == ["b1", "b2"]


def test_a_heavy_entry_leaves_room_for_fewer_or_goes_alone() -> None:
    lane = lane_with(*(Entry(weight, None, LATER, weight) for weight in (3, 2, 1, 9, 4)))
    assert taken(lane) == [3, 1]
    assert taken(lane) == [2]
    assert taken(lane) == [9]
    assert taken(lane) == [4]


def test_who_hung_up_never_reaches_the_device() -> None:
    gone, here = Entry("gone", None, LATER), Entry("here", None, LATER)
    gone.future.cancel()
    assert taken(lane_with(gone, here)) == ["here"]


def test_who_waited_past_the_deadline_is_told_so() -> None:
    late = Entry("late", None, time.monotonic() - 1)
    assert taken(lane_with(late)) == []
    with pytest.raises(RequestTimeout):
        late.future.result(0)


def test_nobody_waits_for_company_unless_a_wait_is_set() -> None:
    entry = Entry("alone", None, LATER)
    assert lane_with(entry).due() <= time.monotonic()
    assert lane_with(entry, wait_seconds=5).due() == entry.since + 5
    assert lane_with(entry, entry, wait_seconds=5, max_batch=2).due() == 0.0


def test_a_failing_entry_fails_alone() -> None:
    def forward(items: Sequence[int]) -> list[float]:
        return [1 / item for item in items]

    lane = Lane(forward, max_batch=4)
    entries = [Entry(item, None, LATER) for item in (1, 0, 2)]
    for entry in entries:
        lane.put(entry)
    lane.run(lane.take())
    assert entries[0].future.result(0) == 1.0
    assert entries[2].future.result(0) == 0.5
    with pytest.raises(ZeroDivisionError):
        entries[1].future.result(0)


def test_a_batch_too_large_for_the_memory_is_run_one_by_one() -> None:
    def forward(items: Sequence[int]) -> list[int]:
        if len(items) > 1:
            raise MemoryError
        return list(items)

    lane = Lane(forward, max_batch=4)
    entries = [Entry(item, None, LATER) for item in range(3)]
    for entry in entries:
        lane.put(entry)
    lane.run(lane.take())
    assert [entry.future.result(0) for entry in entries] == [0, 1, 2]


def test_a_forward_that_loses_an_item_is_an_error_not_a_wrong_answer() -> None:
    lane = Lane(lambda items: [], max_batch=4)
    entry = Entry("x", None, LATER)
    lane.put(entry)
    lane.run(lane.take())
    with pytest.raises(RuntimeError, match="0 outputs for 1 items"):
        entry.future.result(0)
