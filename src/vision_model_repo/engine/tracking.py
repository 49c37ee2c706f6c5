"""Videos that are being tracked, kept for a while within bounds."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

from vision_model_repo.engine.association import Rules
from vision_model_repo.engine.manager import ModelManager
from vision_model_repo.engine.pixels import PixelThreads
from vision_model_repo.engine.shelf import Shelf
from vision_model_repo.engine.tracking_session import TrackingLimits, TrackingSession
from vision_model_repo.errors import InsufficientMemory, NotFound, TooLarge
from vision_model_repo.formats.video import Frame, Video
from vision_model_repo.tasks.tracking import TrackedFrame, TrackPrompt

MEGABYTE = 2**20


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

    @property
    def expires_at(self) -> float:
        """When a session that is kept or used now will be forgotten, in seconds since the epoch."""
        return self._shelf.expires_at

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
        """A session under the store's rules and limits, which is not kept yet.

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

    def keep(self, session: TrackingSession) -> TrackingSession:
        """Keeps a session from `open`; the model is loaded when it is tracked.

        Raises:
            TooLarge: the video does not fit the store, even alone.
        """
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
        """Forgets a session, and ends a tracking of it that goes on. Raises NotFound."""
        self.get(session_id).close()
        self._shelf.remove(session_id)

    async def watch(
        self, session: TrackingSession, start: int | None = None, stop: int | None = None, *, backward: bool = False
    ) -> AsyncGenerator[tuple[Frame, TrackedFrame]]:
        """`TrackingSession.watch`, with the session's time renewed and its memory counted at every frame.

        Raises:
            InsufficientMemory: what is remembered of the video does not fit the store, even alone.
            What `TrackingSession.watch` raises.
        """
        async with aclosing(session.watch(start, stop, backward=backward)) as frames:
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
