"""Which detection on this frame is which object of the frames before.

Tracking by detection, in the manner of SORT (Bewley et al., 2016) and ByteTrack (Zhang et al., 2022), for masks as well
as for boxes: every object is expected where its last motion brings it, and the pairs of objects and detections are
those whose overlap, nearness and colours agree best in sum. Detections too weak to begin a track may go on with one. An
object that is not seen waits for a while, and is the same when it comes out again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count

import numpy as np
from numpy.typing import NDArray

from vision_model_repo.formats.boxes import pairwise_iou
from vision_model_repo.formats.masks import RunLengths
from vision_model_repo.tasks.tracking import Box

Floats = NDArray[np.float32]

GRID = 160
"""Cells along the longer side of a frame, on which masks and colours are compared."""
SHADES = 4
"""Steps of each colour channel in a histogram."""
OVERLAP, NEARNESS, COLORS = 0.5, 0.2, 0.3
"""Weights of what speaks for a pair; each is 0..1."""
LEAST_OVERLAP = 0.1
"""From here on a pair is possible for its overlap alone."""
LEAST_NEARNESS, LEAST_LIKENESS = 0.1, 0.6
"""Together they make a pair possible without overlap."""
WHOLE = 0.9
"""Share of its size from which an object is seen as a whole."""
SHRINKING, GROWING = 0.98, 1.05
"""Most that an object's size changes by in a frame; beyond, it is another part of it that is seen."""
PART_GAIN = 0.15
"""How far the place of a part is believed to be that of the object."""
SAME = 0.7
"""Overlap from which two detections on a frame are one object, and share of a detection that lies in another."""


@dataclass(frozen=True, slots=True)
class Rules:
    """When objects begin and end.

    Attributes:
        birth_score: least score of a detection that begins a track; one below may only go on with one.
        confirmations: frames in a row on which a new object must be seen before it counts. On the first frame of a
            video one is enough.
        patience: frames for which an object may be hidden before it is given up.
        max_objects: most objects at once, hidden ones included.
    """

    birth_score: float = 0.5
    confirmations: int = 2
    patience: int = 30
    max_objects: int = 64


@dataclass(frozen=True, eq=False)
class Sighting:
    """One detection on one frame.

    Attributes:
        box: (4,) xyxy pixels.
        mask: at the frame's full size, where the model gives one.
        cells: (h, w) which cells of the frame's grid it covers.
        cell: side of a cell in pixels.
        colors: histogram of its pixels' colours, of unit sum.
    """

    box: Floats
    score: float
    label: str | None
    mask: RunLengths | None
    cells: NDArray[np.bool_]
    cell: int
    colors: Floats

    @cached_property
    def centre(self) -> Floats:
        """Of gravity, in pixels, (2,) xy: a stray pixel of a mask moves its box, and hardly that."""
        if self.mask is None:
            return (self.box[:2] + self.box[2:]) / np.float32(2)
        rows, columns = np.nonzero(self.cells)
        return (np.array([columns.mean(), rows.mean()], np.float32) + np.float32(0.5)) * np.float32(self.cell)

    @cached_property
    def size(self) -> float:
        """Side of a square as large, in pixels."""
        if self.mask is None:
            return float(np.sqrt(max(1.0, np.prod(self.box[2:] - self.box[:2]))))
        return self.cell * float(np.sqrt(max(1, self.cells.sum())))


class Eye:
    """Makes sightings of what a model detects on one frame.

    Args:
        image: (H, W, 3) uint8 RGB.
    """

    def __init__(self, image: NDArray[np.uint8]) -> None:
        self._stride = max(1, -(-max(image.shape[:2]) // GRID))
        small = image[:: self._stride, :: self._stride].astype(np.int64) * SHADES // 256
        self._shades: NDArray[np.int64] = small @ np.array([SHADES * SHADES, SHADES, 1])

    def see(self, box: Box, score: float, label: str | None = None, mask: RunLengths | None = None) -> Sighting:
        """A detection; the middle of the box stands for the object where there is no mask."""
        if mask is not None and mask.box is not None:
            box = mask.box
        cells = self._inside(box) if mask is None else self._covered(mask)
        seen = self._shades[cells] if mask is not None else self._shades[self._inside(_middle(box))]
        counts = np.bincount(seen, minlength=SHADES**3).astype(np.float32)
        colors = counts / max(1.0, counts.sum())
        return Sighting(np.array(box, np.float32), score, label, mask, cells, self._stride, colors)

    def _covered(self, mask: RunLengths) -> NDArray[np.bool_]:
        cells = np.zeros(self._shades.shape, bool)
        if (box := mask.box) is None:
            return cells
        left, top, right, bottom = box
        first_row, first_column = -(-top // self._stride), -(-left // self._stride)
        pixels = mask.crop(box)[first_row * self._stride - top :: self._stride]
        pixels = pixels[:, first_column * self._stride - left :: self._stride]
        cells[first_row : first_row + pixels.shape[0], first_column : first_column + pixels.shape[1]] = pixels
        # What is too thin to be met by the grid lies at least in its middle.
        cells[(top + bottom) // 2 // self._stride, (left + right) // 2 // self._stride] |= not cells.any()
        return cells

    def _inside(self, box: Box) -> NDArray[np.bool_]:
        cells = np.zeros(self._shades.shape, bool)
        left, top, right, bottom = (int(side) // self._stride for side in box)
        cells[max(0, top) : max(top + 1, bottom), max(0, left) : max(left + 1, right)] = True
        return cells


def _middle(box: Box) -> Box:
    x0, y0, x1, y1 = box
    return x0 + (x1 - x0) / 4, y0 + (y1 - y0) / 4, x1 - (x1 - x0) / 4, y1 - (y1 - y0) / 4


@dataclass(eq=False)
class Track:
    """One object.

    Attributes:
        last: its last sighting.
        velocity: pixels a frame, (2,) xy.
        centre: where all of it is, which is not where its visible part is; pixels, (2,) xy.
        size: side of a square as large as all of it, in pixels.
        colors: histogram over its sightings, the recent ones counting most.
        seen: frames on which it was seen.
        hidden: frames since it was seen last; 0 where it is on this frame.
        confirmed: whether it counts.
        pinned: whether a prompt means it. Then it is never given up.
    """

    object_id: int
    last: Sighting
    colors: Floats
    velocity: Floats = field(default_factory=lambda: np.zeros(2, np.float32))
    seen: int = 1
    hidden: int = 0
    confirmed: bool = False
    pinned: bool = False
    _labels: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.centre, self.size = self.last.centre, self.last.size
        self._vote(self.last)

    @property
    def label(self) -> str | None:
        """What it was called most, each time as loud as the score."""
        return max(self._labels, key=lambda label: self._labels[label], default=None)

    @property
    def shift(self) -> Floats:
        """Pixels by which it should have moved since it was seen last."""
        return self.velocity * (self.hidden + 1)

    def follow(self, sighting: Sighting) -> None:
        """Takes a sighting for its own."""
        frames = self.hidden + 1
        expected = self.centre + self.shift
        # The visible part of an object that goes into hiding moves otherwise than the object, and so does one mask
        # drawn over two.
        whole = WHOLE < sighting.size / self.size < 1 / WHOLE
        centre = sighting.centre if whole else expected + PART_GAIN * (sighting.centre - expected)
        gain = PART_GAIN if not whole else 0.5 if self.seen > 1 else 1.0
        self.velocity = ((1 - gain) * self.velocity + gain * (centre - self.centre) / frames).astype(np.float32)
        self.centre = centre.astype(np.float32)
        self.size *= float(np.clip(sighting.size / self.size, SHRINKING, GROWING))
        self.colors = (0.8 * self.colors + 0.2 * sighting.colors).astype(np.float32)
        self.last = sighting
        self.seen += 1
        self.hidden = 0
        self._vote(sighting)

    def _vote(self, sighting: Sighting) -> None:
        if sighting.label is not None:
            self._labels[sighting.label] = self._labels.get(sighting.label, 0.0) + sighting.score


class Association:
    """The objects of one video, frame after frame.

    Args:
        rules: when objects begin and end.
        reserved: ids that prompts use, none of which an object found by itself gets.
    """

    def __init__(self, rules: Rules, reserved: Sequence[int] = ()) -> None:
        self._rules = rules
        self._tracks: list[Track] = []
        self._taken = set(reserved)
        self._begun = False

    @property
    def visible(self) -> list[Track]:
        """What counts and is seen on this frame, by id."""
        seen = [track for track in self._tracks if track.confirmed and not track.hidden]
        return sorted(seen, key=lambda track: track.object_id)

    def advance(self, sightings: Sequence[Sighting]) -> None:
        """Goes on to the next frame, on which there is this to see."""
        fresh = _without_doubles(sightings)
        pairs = assign(affinities(self._tracks, fresh))
        for row, column in pairs:
            self._tracks[row].follow(fresh[column])
        matched = {row for row, _ in pairs}
        for row, track in enumerate(self._tracks):
            if row not in matched:
                track.hidden += 1
            track.confirmed |= track.seen >= self._rules.confirmations
        self._tracks = [track for track in self._tracks if self._lives(track)]
        taken = {column for _, column in pairs}
        self._bear([sighting for column, sighting in enumerate(fresh) if column not in taken])
        self._begun = True

    def pin(self, object_id: int, sighting: Sighting) -> None:
        """Says that an object is just here on this frame. What was found there by itself is the same object."""
        track = next((track for track in self._tracks if track.object_id == object_id), None)
        self._tracks = [
            other
            for other in self._tracks
            if other is not track and (other.pinned or other.hidden or _overlap(other.last, sighting) < 0.5)
        ]
        velocity = track.velocity if track is not None else np.zeros(2, np.float32)
        pinned = Track(object_id, sighting, sighting.colors, velocity, confirmed=True, pinned=True)
        self._tracks.append(pinned)
        self._taken.add(object_id)

    def _lives(self, track: Track) -> bool:
        return track.pinned or not track.hidden or (track.confirmed and track.hidden <= self._rules.patience)

    def _bear(self, sightings: Sequence[Sighting]) -> None:
        """Begins a track with each sighting that is strong enough and no part of an object that is seen already."""
        for sighting in sorted(sightings, key=lambda sighting: -sighting.score):
            full = len(self._tracks) >= self._rules.max_objects
            if full or sighting.score < self._rules.birth_score:
                return
            known = [track.last for track in self._tracks if not track.hidden]
            if any(_share(sighting, other) >= SAME for other in known):
                continue
            at_once = not self._begun or self._rules.confirmations <= 1
            self._tracks.append(Track(self._fresh_id(), sighting, sighting.colors, confirmed=at_once))

    def _fresh_id(self) -> int:
        """The least id that nobody has or had."""
        object_id = next(number for number in count(1) if number not in self._taken)
        self._taken.add(object_id)
        return object_id


def affinities(tracks: Sequence[Track], sightings: Sequence[Sighting]) -> Floats:
    """How well each track (N) and each sighting (M) go together, (N, M) 0..1; 0 where they cannot."""
    if not tracks or not sightings:
        return np.zeros((len(tracks), len(sightings)), np.float32)
    overlap = _overlaps(tracks, sightings)
    expected = np.stack([track.centre + track.shift for track in tracks])
    distance = np.linalg.norm(expected[:, None] - np.stack([each.centre for each in sightings])[None], axis=2)
    # The longer an object is hidden, the less is known of where it is.
    reach = np.array([track.size * (0.5 + 0.15 * min(track.hidden, 10)) for track in tracks])
    nearness = np.exp(-0.5 * (distance / reach[:, None]) ** 2)
    likeness = np.sqrt(np.stack([track.colors for track in tracks])) @ np.sqrt(
        np.stack([each.colors for each in sightings]).T
    )
    possible = (overlap >= LEAST_OVERLAP) | ((nearness >= LEAST_NEARNESS) & (likeness >= LEAST_LIKENESS))
    return np.where(possible, OVERLAP * overlap + NEARNESS * nearness + COLORS * likeness, 0).astype(np.float32)


def assign(affinity: Floats) -> list[tuple[int, int]]:
    """The pairs of rows and columns, each used once, with the greatest sum of affinities; those of 0 are left out."""
    # SciPy takes a quarter of a second to import, which a server that tracks nothing need not wait for.
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(affinity, maximize=True)
    return [(int(row), int(column)) for row, column in zip(rows, columns, strict=True) if affinity[row, column] > 0]


def _overlaps(tracks: Sequence[Track], sightings: Sequence[Sighting]) -> Floats:
    """Intersection over union of the tracks, moved to where they should be, with the sightings, (N, M)."""
    if any(each.mask is None for each in (*sightings, *(track.last for track in tracks))):
        moved = np.stack([track.last.box + np.tile(track.shift, 2) for track in tracks])
        return pairwise_iou(moved.astype(np.float32), np.stack([each.box for each in sightings]))
    ours = np.stack([_moved(track).ravel() for track in tracks]).astype(np.float32)
    theirs = np.stack([each.cells.ravel() for each in sightings]).astype(np.float32)
    common = ours @ theirs.T
    union = ours.sum(1)[:, None] + theirs.sum(1)[None] - common
    return common / np.maximum(union, 1)


def _moved(track: Track) -> NDArray[np.bool_]:
    """The cells of a track where it should be by now; what leaves the frame is lost."""
    cells = track.last.cells
    right, down = (round(float(step) / track.last.cell) for step in track.shift)
    height, width = cells.shape
    moved = np.zeros_like(cells)
    if abs(down) < height and abs(right) < width:
        moved[max(0, down) : height + min(0, down), max(0, right) : width + min(0, right)] = cells[
            max(0, -down) : height + min(0, -down), max(0, -right) : width + min(0, -right)
        ]
    return moved


def _overlap(one: Sighting, other: Sighting) -> float:
    return float((one.cells & other.cells).sum() / max(1, (one.cells | other.cells).sum()))


def _share(part: Sighting, whole: Sighting) -> float:
    """How much of the one lies in the other."""
    return float((part.cells & whole.cells).sum() / max(1, part.cells.sum()))


def _without_doubles(sightings: Sequence[Sighting]) -> list[Sighting]:
    """Of sightings that overlap nearly whole, by two queries of a model or by two phrases, the one with most score."""
    kept: list[Sighting] = []
    for sighting in sorted(sightings, key=lambda sighting: -sighting.score):
        if all(_overlap(sighting, other) < SAME for other in kept):
            kept.append(sighting)
    return kept
