"""Tracked videos as clips for people, every object in the colour of its id."""

from __future__ import annotations

from vision_model_repo.engine.pixels import PixelThreads
from vision_model_repo.formats.clips import ClipKind, ClipWriter, clip_writer, no_frame
from vision_model_repo.formats.drawing import draw_tracks
from vision_model_repo.formats.video import Frame
from vision_model_repo.tasks.tracking import TrackedFrame


class TrackClip:
    """A clip that grows with every frame that is tracked.

    Args:
        pixels: the threads that draw and encode.
        frames_per_second: pace of play.
    """

    def __init__(self, pixels: PixelThreads, kind: ClipKind, frames_per_second: float) -> None:
        self._pixels = pixels
        self._kind: ClipKind = kind
        self._rate = frames_per_second
        self._writer: ClipWriter | None = None

    async def add(self, image: Frame, tracked: TrackedFrame) -> None:
        """Takes the next frame, (H, W, 3) uint8 RGB, and what is on it."""
        if self._writer is None:
            self._writer = await self._pixels.run(clip_writer, self._kind, self._rate)
        await self._pixels.run(_draw, self._writer, image, tracked)

    async def finish(self) -> bytes:
        """The file. Raises InvalidInput if there was no frame."""
        if self._writer is None:
            raise no_frame()
        return await self._pixels.run(self._writer.finish)


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
