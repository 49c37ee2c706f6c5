"""One video that is being tracked: frame by frame, corrected in between, stopped at any time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from uuid import uuid4

from vision_model_repo.engine.association import Rules
from vision_model_repo.engine.manager import ModelManager
from vision_model_repo.engine.pixels import PixelThreads
from vision_model_repo.engine.trackers import DetectionTracker, MemoryTracker, Tracker
from vision_model_repo.errors import Busy, InvalidInput, NotFound
from vision_model_repo.formats.video import Frame, Video
from vision_model_repo.tasks.tracking import TrackedFrame, TrackPrompt


@dataclass(frozen=True, slots=True)
class TrackingLimits:
    """What one session may hold.

    Attributes:
        max_objects: objects tracked at once, and objects that prompts mean.
        max_prompts: prompts on all frames together.
        max_phrases: phrases to look for.
    """

    max_objects: int = 64
    max_prompts: int = 256
    max_phrases: int = 32


class TrackingSession:
    """A video, what is to be tracked in it, and where the tracking has got to. Lives on one event loop.

    Attributes:
        session_id: its name.
        video: the frames.
        model_type: what tracks.
        phrases: what to look for; empty where only prompts count.
        prompts: what has been meant so far, by frame.
        nbytes: memory held when it was last counted.
        tracking: whether it is being tracked right now.
        answered_by: the checkpoint that tracked the last frame; None before the first.
    """

    def __init__(
        self,
        manager: ModelManager,
        pixels: PixelThreads,
        video: Video,
        model_type: str,
        model_id: str | None = None,
        *,
        phrases: Sequence[str] = (),
        rules: Rules | None = None,
        limits: TrackingLimits | None = None,
    ) -> None:
        self.session_id = uuid4().hex
        self.video = video
        self.model_type = model_type
        self.model_id = model_id
        self.phrases = tuple(phrases)
        self.prompts: list[TrackPrompt] = []
        self._manager, self._pixels = manager, pixels
        self._rules, self._limits = rules or Rules(), limits or TrackingLimits()
        self._tracker: Tracker | None = None
        self._backward = False
        self._next = 0
        self._found: set[int] = set()
        self._closed = False
        self.tracking = False
        self.answered_by: str | None = None
        self._check_model()
        if len(self.phrases) > self._limits.max_phrases:
            raise InvalidInput(f"There are {len(phrases)} phrases; at most {self._limits.max_phrases} are accepted.")
        self.nbytes = self.count()

    def count(self) -> int:
        """Bytes held now: the video as it came, and what the tracker remembers of it."""
        return self.video.nbytes + (self._tracker.nbytes if self._tracker is not None else 0)

    def add_prompts(self, prompts: Sequence[TrackPrompt]) -> None:
        """Says what is meant, or corrects it on another frame. A prompt replaces an earlier one on object and frame.

        Raises:
            Busy: the session is being tracked.
            InvalidInput: a prompt cannot be about this video, or there are too many.
        """
        self._check_idle()
        for prompt in prompts:
            prompt.check(self.video.height, self.video.width, self.video.frame_count)
        places = {(prompt.frame_index, prompt.object_id): prompt for prompt in (*self.prompts, *prompts)}
        objects = {object_id for _, object_id in places}
        if len(objects) > self._limits.max_objects or len(places) > self._limits.max_prompts:
            raise InvalidInput(
                f"At most {self._limits.max_objects} objects and {self._limits.max_prompts} prompts are accepted; "
                f"these are {len(objects)} and {len(places)}."
            )
        self.prompts = sorted(places.values(), key=lambda prompt: prompt.frame_index)
        if self._tracker is not None and any(self._passed(prompt.frame_index) for prompt in prompts):
            self._tracker = None

    def forget_prompts(self, object_id: int) -> None:
        """Takes back all that was said about an object. Raises NotFound if nothing was, Busy while it is tracked."""
        self._check_idle()
        kept = [prompt for prompt in self.prompts if prompt.object_id != object_id]
        if len(kept) == len(self.prompts):
            raise NotFound(f"No prompt is about object {object_id}.")
        self.prompts, self._tracker = kept, None

    def close(self) -> None:
        """Ends a tracking that goes on, after the frame that it is at."""
        self._closed = True

    async def track(
        self, start: int | None = None, stop: int | None = None, *, backward: bool = False
    ) -> AsyncGenerator[TrackedFrame]:
        """`watch`, without the pictures."""
        async with aclosing(self.watch(start, stop, backward=backward)) as frames:
            async for _, frame in frames:
                yield frame

    async def watch(
        self, start: int | None = None, stop: int | None = None, *, backward: bool = False
    ) -> AsyncGenerator[tuple[Frame, TrackedFrame]]:
        """Tracks frames `start` to `stop` - 1 and answers each, with its picture, as soon as it is done.

        Where the last call ended just before `start`, and nothing was corrected since, the tracking goes on from
        there; else it is done again from the first frame that tells something, so that a correction counts from its
        frame on and leaves what was before it as it is. Stop the work by closing the iterator (`contextlib.aclosing`)
        or cancelling its task.

        Args:
            start: None for the first frame that a prompt is about, or the very first where there are phrases;
                the last ones backward.
            stop: None for the end of the video. Backward, too, frames from `start` to `stop` - 1 are tracked, the
                last one first.

        Raises:
            Busy: the session is being tracked already.
            NotFound: it was closed meanwhile.
            InvalidInput: there is nothing to track, or nothing in that stretch; or a frame is damaged.
            What `ModelManager.run` raises.
        """
        self._check_idle()
        first, start, stop = self._stretch(start, stop, backward)
        if self._tracker is None or backward != self._backward or self._next != (stop - 1 if backward else start):
            self._begin(backward)
        else:
            first = start
        self.tracking = True
        low, high = (start, max(stop, first + 1)) if backward else (min(first, start), stop)
        try:
            async with aclosing(self._frames(low, high, backward)) as frames:
                async for index, image in frames:
                    frame = await self._step(image, index)
                    if start <= index < stop:
                        yield image, frame
                    if self._closed:
                        raise NotFound("The tracking session was deleted while it was being tracked.")
        finally:
            self.tracking = False

    def _check_idle(self) -> None:
        if self.tracking:
            raise Busy(
                "This video is being tracked already. Try again when that has ended; hanging up on it, cancelling its "
                "job or deleting the session ends it at once.",
                retry_after=5,
            )

    def stretch(self, start: int | None = None, stop: int | None = None, *, backward: bool = False) -> tuple[int, int]:
        """The frames that `track` would answer, the first and one past the last. Raises InvalidInput if none."""
        _, start, stop = self._stretch(start, stop, backward)
        return start, stop

    async def _step(self, image: Frame, index: int) -> TrackedFrame:
        assert self._tracker is not None
        here = [prompt for prompt in self.prompts if prompt.frame_index == index]
        try:
            frame = await self._tracker.step(image, index, here)
        except BaseException:
            # It may know the frame already, and would take it for the next one.
            self._tracker = None
            raise
        self.answered_by = self._tracker.answered_by
        self._next = index + (-1 if self._backward else 1)
        meant = {prompt.object_id for prompt in self.prompts}
        self._found |= {each.object_id for each in frame.objects} - meant
        return frame

    def _check_model(self) -> None:
        spec = self._manager.catalog[self.model_type]
        if not spec.sees_frames:
            raise InvalidInput(
                f"{self.model_type} is a model for {spec.task}, which cannot track frame by frame. Choose another one."
            )

    def _begin(self, backward: bool) -> None:
        self._backward = backward
        if self._manager.catalog[self.model_type].task == "tracking":
            self._tracker = MemoryTracker(
                self._manager, self.model_type, self.model_id, phrases=self.phrases, backward=backward
            )
            return
        self._tracker = DetectionTracker(
            self._manager,
            self._pixels,
            self.model_type,
            self.model_id,
            phrases=self.phrases,
            # What was found by itself and is corrected now will be found again, under the same id.
            reserved=[prompt.object_id for prompt in self.prompts if prompt.object_id not in self._found],
            rules=self._rules,
        )

    def _stretch(self, start: int | None, stop: int | None, backward: bool) -> tuple[int, int, int]:
        """The frame from which tracking must begin, and the stretch that is to be answered."""
        if not self.phrases and not self.prompts:
            raise InvalidInput("Say what to track: give phrases, or points, a box or a mask on a frame.")
        count = self.video.frame_count
        told = [prompt.frame_index for prompt in self.prompts]
        if backward:
            stop = min(count if stop is None else stop, count)
            first = stop - 1 if self.phrases else max(told)
            stop, start = min(stop, first + 1), start or 0
        else:
            stop = min(count if stop is None else stop, count)
            first = 0 if self.phrases else min(told)
            start = max(first, first if start is None else start)
        if not 0 <= start < stop:
            raise InvalidInput(
                f"No frame to track from {start} up to {stop}, which is not included; the video has {count}, from 0."
            )
        return first, start, stop

    def _passed(self, frame_index: int) -> bool:
        return frame_index > self._next if self._backward else frame_index < self._next

    async def _frames(self, start: int, stop: int, backward: bool) -> AsyncGenerator[tuple[int, Frame]]:
        """Frames, each decoded while the one before it is being tracked."""
        frames = self.video.frames(start, stop, backward=backward)
        ahead = asyncio.ensure_future(self._pixels.run(next, frames, None))
        try:
            while (frame := await asyncio.shield(ahead)) is not None:
                ahead = asyncio.ensure_future(self._pixels.run(next, frames, None))
                yield frame
        finally:
            # A generator cannot be closed while a thread is in it.
            await asyncio.wait([ahead])
            if not ahead.cancelled():
                ahead.exception()
            await self._pixels.run(frames.close)
