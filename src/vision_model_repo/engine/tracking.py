"""Videos that are being tracked: kept for a while within bounds, tracked frame by frame, corrected in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from uuid import uuid4

from vision_model_repo.engine.association import Rules
from vision_model_repo.engine.manager import ModelManager
from vision_model_repo.engine.pixels import PixelThreads
from vision_model_repo.engine.shelf import Shelf
from vision_model_repo.engine.trackers import DetectionTracker, MemoryTracker, Tracker
from vision_model_repo.errors import Busy, InsufficientMemory, InvalidInput, NotFound, TooLarge
from vision_model_repo.formats.drawing import draw_tracks
from vision_model_repo.formats.video import ClipKind, ClipWriter, Frame, Video
from vision_model_repo.tasks.tracking import TrackedFrame, TrackPrompt

MEGABYTE = 2**20


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
        self._tracking = False
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
            InvalidInput: a prompt cannot be about this video, or there are too many.
        """
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

    async def track(
        self, start: int | None = None, stop: int | None = None, *, backward: bool = False
    ) -> AsyncGenerator[TrackedFrame]:
        """Tracks frames `start` to `stop` - 1 and answers each as soon as it is done.

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
            InvalidInput: there is nothing to track, or nothing in that stretch; or a frame is damaged.
            What `ModelManager.run` raises.
        """
        if self._tracking:
            raise Busy("This video is being tracked already. Wait for the end, or cancel it.")
        first, start, stop = self._stretch(start, stop, backward)
        if self._tracker is None or backward != self._backward or self._next != (stop - 1 if backward else start):
            self._begin(backward)
        else:
            first = start
        self._tracking = True
        low, high = (start, max(stop, first + 1)) if backward else (min(first, start), stop)
        try:
            async with aclosing(self._frames(low, high, backward)) as frames:
                async for index, image in frames:
                    frame = await self._step(image, index)
                    if start <= index < stop:
                        yield frame
        finally:
            self._tracking = False

    async def clip(self, kind: ClipKind = "mp4", start: int | None = None, stop: int | None = None) -> bytes:
        """The video with its objects drawn, tracked anew, as an mp4 or a GIF. Raises what `track` raises."""
        writer = ClipWriter(kind, self.video.frames_per_second)
        _, start, stop = self._stretch(start, stop, backward=False)
        async with (
            aclosing(self._frames(start, stop, backward=False)) as frames,
            aclosing(self.track(start, stop)) as answers,
        ):
            async for tracked in answers:
                _, image = await anext(frames)
                await self._pixels.run(_draw, writer, image, tracked)
        return await self._pixels.run(writer.finish)

    async def _step(self, image: Frame, index: int) -> TrackedFrame:
        assert self._tracker is not None
        here = [prompt for prompt in self.prompts if prompt.frame_index == index]
        try:
            frame = await self._tracker.step(image, index, here)
        except BaseException:
            # It may know the frame already, and would take it for the next one.
            self._tracker = None
            raise
        self._next = index + (-1 if self._backward else 1)
        return frame

    def _check_model(self) -> None:
        task = self._manager.catalog[self.model_type].task
        if task not in ("segmentation", "detection", "tracking"):
            raise InvalidInput(f"{self.model_type} is a model for {task}, which cannot track. Choose another one.")

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
            reserved=[prompt.object_id for prompt in self.prompts],
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
            raise InvalidInput(f"No frame to track from {start} to {stop - 1}; the video has {count}, from 0.")
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


def _draw(writer: ClipWriter, image: Frame, tracked: TrackedFrame) -> None:
    objects = tracked.objects
    writer.add(
        draw_tracks(
            image,
            [each.object_id for each in objects],
            [each.box for each in objects],
            [each.mask for each in objects],
            [each.label or "" for each in objects],
        )
    )


class TrackingStore:
    """Sessions by id; least recently used out first.

    Args:
        manager, pixels: what sessions work with.
        max_bytes: most bytes of all sessions: their videos and what is remembered of them.
        max_sessions: most sessions.
        ttl_seconds: how long a session is kept after it was last used.
        rules: when objects begin and end, for models without a memory of their own.
        limits: of one session.
    """

    def __init__(
        self,
        manager: ModelManager,
        pixels: PixelThreads,
        *,
        max_bytes: int = 1024 * MEGABYTE,
        max_sessions: int = 32,
        ttl_seconds: float = 900.0,
        rules: Rules | None = None,
        limits: TrackingLimits | None = None,
    ) -> None:
        self._manager, self._pixels = manager, pixels
        self._rules, self._limits = rules or Rules(), limits
        self._shelf: Shelf[str, TrackingSession] = Shelf(max_bytes, max_count=max_sessions, ttl_seconds=ttl_seconds)

    def __len__(self) -> int:
        return len(self._shelf)

    @property
    def bytes_held(self) -> int:
        return self._shelf.held

    def open(
        self,
        video: Video,
        model_type: str,
        model_id: str | None = None,
        *,
        phrases: Sequence[str] = (),
        prompts: Sequence[TrackPrompt] = (),
        birth_score: float | None = None,
    ) -> TrackingSession:
        """A session that is not kept, under the same rules and limits as those that are.

        Args:
            birth_score: least score of a detection that begins a track, in place of the store's.

        Raises:
            NotFound: no such model.
            InvalidInput: the model cannot track, or a prompt or phrase makes no sense.
        """
        rules = self._rules if birth_score is None else replace(self._rules, birth_score=birth_score)
        session = TrackingSession(
            self._manager, self._pixels, video, model_type, model_id, phrases=phrases, rules=rules, limits=self._limits
        )
        session.add_prompts(prompts)
        return session

    def create(
        self,
        video: Video,
        model_type: str,
        model_id: str | None = None,
        *,
        phrases: Sequence[str] = (),
        prompts: Sequence[TrackPrompt] = (),
    ) -> TrackingSession:
        """Begins a session and keeps it; its model is loaded when it is tracked.

        Raises:
            TooLarge: the video does not fit the store, even alone.
            What `open` raises.
        """
        session = self.open(video, model_type, model_id, phrases=phrases, prompts=prompts)
        if session.nbytes > self._shelf.max_bytes:
            raise TooLarge(
                f"The video takes {-(-session.nbytes // MEGABYTE)} MB; the store holds "
                f"{self._shelf.max_bytes // MEGABYTE} MB. Send a shorter or smaller one."
            )
        self._shelf.put(session.session_id, session)
        return session

    def get(self, session_id: str) -> TrackingSession:
        """The session, whose time is renewed. Raises NotFound."""
        if (session := self._shelf.get(session_id)) is None:
            raise NotFound(f"No tracking session {session_id[:64]!r}, or no longer. Begin a new one.")
        return session

    def delete(self, session_id: str) -> None:
        """Forgets a session; a tracking of it that goes on is not stopped. Raises NotFound."""
        if not self._shelf.remove(session_id):
            raise NotFound(f"No tracking session {session_id[:64]!r}, or no longer.")

    async def track(
        self, session_id: str, start: int | None = None, stop: int | None = None, *, backward: bool = False
    ) -> AsyncGenerator[TrackedFrame]:
        """`TrackingSession.track`, with the session's time renewed and its memory counted at every frame.

        Raises:
            NotFound: no such session.
            InsufficientMemory: what is remembered of the video does not fit the store, even alone.
        """
        session = self.get(session_id)
        async with aclosing(session.track(start, stop, backward=backward)) as frames:
            async for frame in frames:
                self._renew(session)
                yield frame

    def _renew(self, session: TrackingSession) -> None:
        """Counts a session again. One that was forgotten meanwhile stays so."""
        if not self._shelf.remove(session.session_id):
            return
        session.nbytes = session.count()
        fallen = self._shelf.put(session.session_id, session)
        if any(other is session for _, other in fallen):
            raise InsufficientMemory(
                f"What is remembered of the video takes {session.nbytes // MEGABYTE} MB; the store holds "
                f"{self._shelf.max_bytes // MEGABYTE} MB. Track fewer objects."
            )
