"""Objects keep their ids: through motion, through hiding, through each other's way."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from vision_model_repo.engine.association import Association, Eye, Rules, Sighting, affinities, assign
from vision_model_repo.formats.masks import encode_mask

HEIGHT, WIDTH = 120, 160
RED, BLUE, GREEN = (220, 20, 20), (20, 20, 220), (20, 200, 20)


def scene(*discs: tuple[float, float, tuple[int, int, int]], masks: bool = True, score: float = 0.9) -> list[Sighting]:
    """Discs of radius 12 on grey, the later in front of the earlier, as a model would find their visible parts."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    image = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    owner = np.full((HEIGHT, WIDTH), -1)
    for index, (x, y, color) in enumerate(discs):
        inside = np.hypot(columns - x, rows - y) < 12
        image[inside], owner[inside] = color, index
    eye = Eye(image)
    found = []
    for index in range(len(discs)):
        mask = encode_mask(owner == index)
        if mask.area > 40 and mask.box is not None:
            found.append(eye.see(mask.box, score, "disc", mask if masks else None))
    return found


def ids(association: Association) -> list[int]:
    return [track.object_id for track in association.visible]


def where(association: Association, object_id: int) -> float:
    (track,) = (track for track in association.visible if track.object_id == object_id)
    return float(track.last.centre[0])


@pytest.mark.parametrize("masks", [True, False])
def test_an_object_hidden_for_ten_frames_is_the_same_when_it_comes_out(masks: bool) -> None:
    association = Association(Rules())
    for frame in range(30):
        red, *others = scene((20 + 4 * frame, 60, RED), (80, 20, BLUE), (80, 100, RED), masks=masks)
        hidden = 10 <= frame < 20
        association.advance(others if hidden else [red, *others])
        assert ids(association) == ([2, 3] if hidden else [1, 2, 3])
    assert where(association, 1) == pytest.approx(136, abs=2)


def test_two_that_cross_do_not_change_places() -> None:
    association = Association(Rules())
    for frame in range(40):
        association.advance(scene((20 + 3 * frame, 60, RED), (140 - 3 * frame, 62, GREEN)))
    assert ids(association) == [1, 2]
    assert where(association, 1) == pytest.approx(137, abs=2) and where(association, 2) == pytest.approx(23, abs=2)


def test_two_alike_that_cross_go_on_as_they_went() -> None:
    association = Association(Rules())
    for frame in range(40):
        association.advance(scene((20 + 3 * frame, 52, RED), (140 - 3 * frame, 68, RED)))
    assert where(association, 1) == pytest.approx(137, abs=2) and where(association, 2) == pytest.approx(23, abs=2)


def test_what_flickers_once_is_no_object() -> None:
    association = Association(Rules(confirmations=2))
    association.advance(scene((30, 60, RED)))
    association.advance(scene((30, 60, RED), (120, 60, GREEN)))
    assert ids(association) == [1]
    association.advance(scene((30, 60, RED)))
    association.advance(scene((30, 60, RED), (120, 60, GREEN)))
    association.advance(scene((30, 60, RED), (120, 60, GREEN)))
    assert len(ids(association)) == 2


def test_who_is_hidden_longer_than_patience_is_somebody_new() -> None:
    association = Association(Rules(patience=5))
    association.advance(scene((30, 60, RED)))
    for _ in range(6):
        association.advance([])
    association.advance(scene((30, 60, RED)))
    association.advance(scene((30, 60, RED)))
    assert ids(association) == [2]


def test_a_faint_detection_goes_on_with_a_track_but_begins_none() -> None:
    association = Association(Rules(birth_score=0.5))
    association.advance(scene((30, 60, RED)))
    for _ in range(3):
        association.advance(scene((30, 60, RED), (120, 60, GREEN), score=0.3))
    assert ids(association) == [1]


def test_doubles_and_parts_are_not_objects() -> None:
    association = Association(Rules())
    (whole,) = scene((30, 60, RED))
    half = np.zeros((HEIGHT, WIDTH), bool)
    half[50:60, 20:40] = True
    part = Eye(np.full((HEIGHT, WIDTH, 3), 128, np.uint8)).see((20, 50, 40, 60), 0.8, "disc", encode_mask(half))
    association.advance([whole, *scene((30.5, 60, RED), score=0.7), part])
    assert ids(association) == [1]


def test_no_more_objects_than_allowed() -> None:
    association = Association(Rules(max_objects=2))
    for _ in range(3):
        association.advance(scene((20, 20, RED), (70, 60, GREEN), (130, 90, BLUE)))
    assert ids(association) == [1, 2]


def test_a_pinned_object_has_its_own_id_and_is_never_given_up() -> None:
    association = Association(Rules(patience=3), reserved=[7])
    association.advance(scene((30, 60, RED), (120, 60, GREEN)))
    association.pin(7, scene((30, 60, RED))[0])
    assert ids(association) == [2, 7]
    for _ in range(20):
        association.advance([])
    association.advance(scene((30, 60, RED)))
    assert ids(association) == [7]


def test_the_best_sum_wins_over_the_best_pair() -> None:
    assert assign(np.array([[0.9, 0.8], [0.85, 0.0]], np.float32)) == [(0, 1), (1, 0)]
    assert assign(np.zeros((0, 3), np.float32)) == []


def test_things_far_apart_in_place_and_colour_cannot_be_the_same() -> None:
    association = Association(Rules())
    association.advance(scene((20, 20, RED)))
    assert not affinities(association.visible, scene((140, 100, BLUE))).any()


def test_a_label_is_what_was_said_loudest() -> None:
    association = Association(Rules())
    eye = Eye(np.full((HEIGHT, WIDTH, 3), 128, np.uint8))

    def see(label: str, score: float) -> Sequence[Sighting]:
        return [eye.see((10, 10, 40, 40), score, label)]

    for label, score in (("cube", 0.6), ("cylinder", 0.9), ("cube", 0.6)):
        association.advance(see(label, score))
    assert [track.label for track in association.visible] == ["cube"]
