"""Ways to track: by what a segmenter or a detector finds on each frame, or by a model that remembers the video itself.

Both are shown one frame after the other, each of which is a request like any other to the model manager: so the
frames of a video take turns with whatever else the device has to do.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vision_model_repo.engine.association import Association, Eye, Rules, Sighting, Track
from vision_model_repo.engine.manager import ModelManager
from vision_model_repo.engine.pixels import PixelThreads
from vision_model_repo.errors import InvalidInput
from vision_model_repo.formats.masks import RunLengths
from vision_model_repo.tasks.detection import DetectionRequest, DetectionResult
from vision_model_repo.tasks.segmentation import (
    ObjectPrompt,
    SegmentationPrompt,
    SegmentationRequest,
    SegmentationResult,
)
from vision_model_repo.tasks.tracking import (
    Box,
    TrackedFrame,
    TrackedObject,
    TrackMemory,
    TrackPrompt,
    TrackRequest,
)

Image = NDArray[np.uint8]

ANYTHING = "object"
"""What is looked for around an object that is meant by a prompt, where no phrase says what it is."""
FAINT = 0.3
"""Score from which a detection may go on with a track, as a share of what it takes to begin one."""


class Tracker(ABC):
    """Tracks one video, whose frames it is shown in order.

    Attributes:
        answered_by: the checkpoint that answered last.
    """

    answered_by: str | None = None

    @property
    def nbytes(self) -> int:
        """What it remembers of the video, in bytes."""
        return 0

    @abstractmethod
    async def step(self, image: Image, frame_index: int, prompts: Sequence[TrackPrompt]) -> TrackedFrame:
        """The objects on the next frame.

        Args:
            image: (H, W, 3) uint8 RGB.
            prompts: those about this very frame.

        Raises:
            InvalidInput: the model cannot answer such prompts or phrases.
        """


class MemoryTracker(Tracker):
    """A model of the task "tracking", with a memory of its own.

    Args:
        phrases: what to look for.
        backward: whether the last frame comes first.
    """

    def __init__(
        self,
        manager: ModelManager,
        model_type: str,
        model_id: str | None = None,
        *,
        phrases: Sequence[str] = (),
        backward: bool = False,
    ) -> None:
        self._manager, self._model_type, self._model_id = manager, model_type, model_id
        self._phrases, self._backward = tuple(phrases), backward
        self._memory = TrackMemory()

    @property
    def nbytes(self) -> int:
        return self._memory.nbytes

    async def step(self, image: Image, frame_index: int, prompts: Sequence[TrackPrompt]) -> TrackedFrame:
        request = TrackRequest(
            image, frame_index, self._memory, tuple(prompts), phrases=self._phrases, backward=self._backward
        )
        answer = await self._manager.run(self._model_type, [request], model_id=self._model_id)
        self.answered_by = answer.model_id
        return answer.results[0]


class DetectionTracker(Tracker):
    """Any segmenter or detector, and the association of what it finds from frame to frame.

    With phrases, all that they name is tracked. An object that a prompt means is followed by whatever is found where
    it should be; without phrases nothing else is answered, though everything else is watched, lest two objects change
    places unnoticed.

    Args:
        phrases: what to look for.
        reserved: ids that prompts use, now or later.
        rules: when objects begin and end.
    """

    def __init__(
        self,
        manager: ModelManager,
        pixels: PixelThreads,
        model_type: str,
        model_id: str | None = None,
        *,
        phrases: Sequence[str] = (),
        reserved: Sequence[int] = (),
        rules: Rules | None = None,
    ) -> None:
        self._manager, self._pixels = manager, pixels
        self._model_type, self._model_id = model_type, model_id
        self._segments = manager.catalog[model_type].task == "segmentation"
        self._all_wanted = bool(phrases)
        self._phrases = tuple(phrases) or (ANYTHING,)
        self._rules = rules or Rules()
        self._association = Association(self._rules, reserved)

    async def step(self, image: Image, frame_index: int, prompts: Sequence[TrackPrompt]) -> TrackedFrame:
        result = await self._ask(self._question(image))
        eye, sightings = await self._pixels.run(_look, image, result, self._phrases)
        await self._pixels.run(self._association.advance, sightings)
        for prompt in prompts:
            self._association.pin(prompt.object_id, await self._find(image, eye, prompt, sightings))
        return TrackedFrame(frame_index, tuple(map(self._tracked, self._wanted())))

    def _question(self, image: Image) -> SegmentationRequest | DetectionRequest:
        score = FAINT * self._rules.birth_score
        if self._segments:
            return SegmentationRequest(image, tuple(map(SegmentationPrompt, self._phrases)), threshold=score)
        return DetectionRequest(image, self._phrases, box_threshold=score)

    async def _ask(self, request: SegmentationRequest | DetectionRequest) -> SegmentationResult | DetectionResult:
        answer = await self._manager.run(self._model_type, [request], model_id=self._model_id)
        self.answered_by = answer.model_id
        return answer.results[0]

    def _wanted(self) -> list[Track]:
        return [track for track in self._association.visible if self._all_wanted or track.pinned]

    def _tracked(self, track: Track) -> TrackedObject:
        x0, y0, x1, y1 = track.last.box.tolist()
        label = track.label if self._all_wanted else None
        return TrackedObject(track.object_id, (x0, y0, x1, y1), track.last.mask, track.last.score, label)

    async def _find(self, image: Image, eye: Eye, prompt: TrackPrompt, sightings: Sequence[Sighting]) -> Sighting:
        """The object that a prompt means: drawn by the prompt itself or by the model, or the detection that fits."""
        if prompt.mask is not None:
            mask = prompt.mask
            return eye.see(mask.box or (0, 0, 0, 0), 1.0, mask=mask if self._segments else None)
        if self._segments and (clicked := await self._click(image, prompt.prompt)) is not None:
            mask, score = clicked
            return eye.see(mask.box or (0, 0, 0, 0), score, mask=mask)
        if (fitting := _fitting(prompt.prompt, sightings)) is not None:
            return fitting
        if prompt.prompt.box is not None:
            return eye.see(prompt.prompt.box, 1.0)
        raise InvalidInput(
            f"{self._model_type} finds no object at the points of object {prompt.object_id} on frame "
            f"{prompt.frame_index}. Give a box around it, or a mask."
        )

    async def _click(self, image: Image, prompt: ObjectPrompt) -> tuple[RunLengths, float] | None:
        """The model's own answer to clicks; None from one that knows none, or sees nothing there."""
        try:
            result = await self._ask(SegmentationRequest(image, (), objects=(prompt,), multimask=False))
        except InvalidInput:
            return None
        if not isinstance(result, SegmentationResult) or not result.objects or not result.objects[0].masks:
            return None
        (found,) = result.objects
        return (found.masks[0], float(found.scores[0])) if found.masks[0].area else None


def _look(
    image: Image, result: SegmentationResult | DetectionResult, phrases: Sequence[str]
) -> tuple[Eye, list[Sighting]]:
    """What a model has found on a frame, seen for the association."""
    eye = Eye(image)
    if isinstance(result, DetectionResult):
        boxes = [_box(box) for box in result.boxes.tolist()]
        found = zip(boxes, result.scores.tolist(), result.labels, strict=True)
        return eye, [eye.see(box, score, label) for box, score, label in found]
    return eye, [
        eye.see(_box(box), score, phrase, mask)
        for phrase, instances in zip(phrases, result.prompts, strict=True)
        for box, score, mask in zip(instances.boxes.tolist(), instances.scores.tolist(), instances.masks, strict=True)
    ]


def _box(values: Sequence[float]) -> Box:
    x0, y0, x1, y1 = values
    return x0, y0, x1, y1


def _fitting(prompt: ObjectPrompt, sightings: Sequence[Sighting]) -> Sighting | None:
    """The detection that agrees best with a box, or the smallest that has the points on it and the others beside it."""
    if prompt.box is not None:
        wanted = np.array(prompt.box, np.float32)
        overlaps = [(_box_overlap(wanted, sighting.box), sighting) for sighting in sightings]
        best = max(overlaps, key=lambda pair: pair[0], default=(0.0, None))
        return best[1] if best[0] >= 0.5 else None
    labels = list(zip(prompt.points, prompt.point_labels, strict=True))
    fitting = [each for each in sightings if all(_holds(each, *point) == (label == 1) for point, label in labels)]
    return min(fitting, key=lambda sighting: sighting.size, default=None)


def _box_overlap(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    sides = np.maximum(0, np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]))
    common = float(sides.prod())
    areas = [float((box[2:] - box[:2]).prod()) for box in (one, other)]
    return common / max(sum(areas) - common, 1e-9)


def _holds(sighting: Sighting, x: float, y: float) -> bool:
    left, top, right, bottom = sighting.box
    if not (left <= x < right and top <= y < bottom):
        return False
    if sighting.mask is None:
        return True
    column, row = int(x), int(y)
    return bool(sighting.mask.columns(column, column + 1)[row])
