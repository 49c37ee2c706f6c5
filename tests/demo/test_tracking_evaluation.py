"""The figures of tracking are 1 for the truth, and fall as they should for what is not."""

from __future__ import annotations

import pytest

from vision_model_repo.demo.tracking_evaluation import TabletopClip, TrackingTally, hides, occluded_clips
from vision_model_repo.formats.masks import encode_mask
from vision_model_repo.tasks.tracking import TrackedFrame, TrackedObject


@pytest.fixture(scope="module")
def clip() -> TabletopClip:
    (first,) = occluded_clips(1, width=96, height=96)
    return first


def truth(clip: TabletopClip, *, swap_at: int = 1000, without: int = -1) -> list[TrackedFrame]:
    """Ids are the objects' numbers, those of the first two exchanged from a frame on."""
    frames = []
    for index in range(clip.frame_count):
        view = clip.view(index)
        objects = []
        for identity, mask in zip(clip.identities(view, index), view.masks, strict=True):
            name = {0: 1, 1: 0}.get(identity, identity) if index >= swap_at else identity
            if identity != without:
                objects.append(TrackedObject(name, (0, 0, 1, 1), encode_mask(mask)))
        frames.append(TrackedFrame(index, tuple(objects)))
    return frames


def figures(clip: TabletopClip, frames: list[TrackedFrame]) -> tuple[float, float]:
    tally = TrackingTally()
    tally.add(clip, frames)
    answer = tally.figures()
    return answer["idf1"], answer["mask_iou"]


def test_objects_hide_each_other_in_the_clips_and_come_out_again(clip: TabletopClip) -> None:
    assert hides(clip.scenes)
    assert not hides([clip.scenes[0]] * 4)


def test_the_truth_is_all_right(clip: TabletopClip) -> None:
    assert figures(clip, truth(clip)) == (1.0, 1.0)


def test_an_exchange_of_ids_half_way_costs_half_of_both(clip: TabletopClip) -> None:
    idf1, overlap = figures(clip, truth(clip, swap_at=20))
    share = 2 / len(clip.scenes[0].solids)
    assert idf1 == pytest.approx(1 - share / 2, abs=0.07)
    assert overlap == pytest.approx(idf1, abs=0.02)


def test_who_is_never_found_is_missed_and_no_false_alarm(clip: TabletopClip) -> None:
    tally = TrackingTally()
    tally.add(clip, truth(clip, without=2))
    assert tally.right == tally.answered < tally.existing


def test_nothing_answered_is_nothing_right(clip: TabletopClip) -> None:
    assert figures(clip, [TrackedFrame(index, ()) for index in range(clip.frame_count)]) == (0.0, 0.0)
