"""How right tracking is: identities and masks over tabletop clips in which objects hide each other.

IDF1 (Ristani et al., 2016) asks for how long each object had the one id that fits it best in all of the clip: it is 1
where every object is found on every frame and keeps its id, and a half of it is lost to an id that changes half way.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from vision_model_repo.demo.evaluation import MATCH
from vision_model_repo.demo.scenes import Scene, View, render, sample_clip
from vision_model_repo.engine.association import assign
from vision_model_repo.engine.tracking import TrackingStore
from vision_model_repo.formats.video import Frame, Video
from vision_model_repo.tasks.segmentation import ObjectPrompt
from vision_model_repo.tasks.tracking import TrackedFrame, TrackPrompt

FIRST_SEED = 20_000_000
"""Of the clips' scenes, which no training has seen."""
OCCLUDED = (4, 20, 24, 54, 62, 68, 76, 79, 82, 83, 92, 94, 108, 111, 114, 116, 129, 151, 156, 173)
"""The first clips, counted from there, of which `hides` is true: looking for them takes longer than tracking them."""
HIDDEN, CLEAR = 0.3, 0.8
"""Share of an object's own outline: below the one it counts as hidden, above the other as in the clear."""
LOOK = 96
"""Side in pixels at which a clip is looked through for occlusion."""


class TabletopClip(Video):
    """A clip of the tabletop world, rendered as it is watched; what is rendered is kept.

    Args:
        scenes: one a frame, with the objects in the same order.
    """

    def __init__(self, scenes: Sequence[Scene], width: int = 224, height: int = 224) -> None:
        self.scenes = scenes
        self.frame_count = len(scenes)
        self.height, self.width = height, width
        self.frames_per_second = 10.0
        self.nbytes = 0
        self._views: dict[int, View] = {}

    def view(self, index: int) -> View:
        """A frame and its truth."""
        if index not in self._views:
            self._views[index] = render(self.scenes[index], self.width, self.height)
        return self._views[index]

    def identities(self, view: View, index: int) -> list[int]:
        """Which objects of the clip a view of its frame shows, in the view's order."""
        return [self.scenes[index].solids.index(solid) for solid in view.solids]

    def _forward(self, start: int, stop: int) -> Generator[tuple[int, Frame]]:
        for index in range(start, stop):
            yield index, self.view(index).image


def occluded_clips(count: int, *, width: int = 224, height: int = 224) -> Iterator[TabletopClip]:
    """Clips of 40 frames, at most 20, in which an object goes behind another and comes out again."""
    for offset in OCCLUDED[:count]:
        yield TabletopClip(list(sample_clip(FIRST_SEED + offset)), width, height)


def hides(scenes: Sequence[Scene]) -> bool:
    """Whether an object is in the clear, then hidden by another, and then in the clear again."""
    shares = np.stack([_visible_shares(scene) for scene in scenes[::2]])
    for share in shares.T:
        hidden = np.flatnonzero(share < HIDDEN)
        if len(hidden) and (share[: hidden[0]] > CLEAR).any() and (share[hidden[-1] :] > CLEAR).any():
            return True
    return False


def _visible_shares(scene: Scene) -> NDArray[np.floating]:
    """Of each object, the share of its outline that no other one covers; 1 for one that is out of the picture."""
    view = render(scene, LOOK)
    shares = np.ones(len(scene.solids))
    for index, solid in enumerate(scene.solids):
        own = (render(replace(scene, solids=(solid,)), LOOK).instances >= 0).sum()
        seen = (view.instances == view.solids.index(solid)).sum() if solid in view.solids else 0
        shares[index] = seen / own if own else 1.0
    return shares


@dataclass
class TrackingTally:
    """Answers about clips. An object counts on every frame on which it can be seen."""

    overlaps: list[float] = field(default_factory=list)
    right: int = 0
    existing: int = 0
    answered: int = 0

    def add(self, clip: TabletopClip, frames: Iterable[TrackedFrame], wanted: Sequence[int] | None = None) -> None:
        """One clip.

        Args:
            frames: the answers, one for each frame.
            wanted: the objects that were asked for; None for all.
        """
        seen: dict[int, int] = {}
        overlaps: dict[tuple[int, int], list[float]] = {}
        for frame in frames:
            view = clip.view(frame.frame_index)
            self.answered += len(frame.objects)
            truths = zip(clip.identities(view, frame.frame_index), view.masks, strict=True)
            for identity, truth in truths:
                if wanted is not None and identity not in wanted:
                    continue
                seen[identity] = seen.get(identity, 0) + 1
                for found in frame.objects:
                    mask = found.mask.to_dense() if found.mask is not None else _filled(found.box, truth.shape)
                    overlap = float((mask & truth).sum() / (mask | truth).sum())
                    overlaps.setdefault((identity, found.object_id), []).append(overlap)
        self.existing += sum(seen.values())
        fitting = _one_id_each(list(seen), overlaps)
        for identity, frames_seen in seen.items():
            values = overlaps[identity, fitting[identity]] if identity in fitting else []
            self.right += sum(value >= MATCH for value in values)
            self.overlaps += [*values, *[0.0] * (frames_seen - len(values))]

    def figures(self) -> dict[str, float]:
        """IDF1, and the mean overlap of masks with their objects, where one that is missed has none."""
        return {
            "idf1": 2 * self.right / max(self.existing + self.answered, 1),
            "mask_iou": float(np.mean(self.overlaps)) if self.overlaps else 0.0,
        }


def _one_id_each(identities: Sequence[int], overlaps: dict[tuple[int, int], list[float]]) -> dict[int, int]:
    """For every object the id that covers it on most frames, no id for two."""
    ids = sorted({object_id for _, object_id in overlaps})
    hits = np.array(
        [[sum(value >= MATCH for value in overlaps.get((one, each), ())) for each in ids] for one in identities],
        np.float32,
    ).reshape(len(identities), len(ids))
    return {identities[row]: ids[column] for row, column in assign(hits)}


def _filled(box: tuple[float, float, float, float], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    x0, y0, x1, y1 = (round(side) for side in box)
    mask = np.zeros(shape, bool)
    mask[y0:y1, x0:x1] = True
    return mask


def _middle(mask: NDArray[np.bool_]) -> tuple[float, float]:
    """The pixel of a mask that is nearest to its centre of gravity, xy."""
    pixels = np.argwhere(mask)
    row, column = pixels[np.abs(pixels - pixels.mean(0)).sum(1).argmin()].tolist()
    return column + 0.5, row + 0.5


async def evaluate_tracking(
    store: TrackingStore,
    clips: Iterable[TabletopClip],
    model_type: str,
    model_id: str | None = None,
    *,
    phrases: Sequence[str] = ("object",),
) -> dict[str, float]:
    """Figures of a model that looks for phrases which name every object of the clips."""
    tally = TrackingTally()
    for clip in clips:
        session = store.keep(store.open(clip, model_type, model_id, phrases=phrases))
        async with aclosing(session.track()) as frames:
            tally.add(clip, [frame async for frame in frames])
    return tally.figures()


async def evaluate_clicks(
    store: TrackingStore, clips: Iterable[TabletopClip], model_type: str, model_id: str | None = None
) -> dict[str, float]:
    """Figures of a model that is shown every object of a clip's first frame, by a click on it."""
    tally = TrackingTally()
    for clip in clips:
        view = clip.view(0)
        shown = clip.identities(view, 0)
        prompts = [
            TrackPrompt(0, identity, ObjectPrompt((_middle(mask),), (1,)))
            for identity, mask in zip(shown, view.masks, strict=True)
        ]
        session = store.keep(store.open(clip, model_type, model_id, prompts=prompts))
        async with aclosing(session.track()) as frames:
            tally.add(clip, [frame async for frame in frames], wanted=shown)
    return tally.figures()
