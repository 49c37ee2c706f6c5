"""A short clip of the tabletop, in which objects hide each other, tracked by a server over HTTP."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import httpx

from vision_model_repo.demo.tracking_evaluation import TabletopClip, TrackingTally, occluded_clips
from vision_model_repo.formats.clips import encode_clip
from vision_model_repo.formats.masks import from_coco_rle
from vision_model_repo.tasks.tracking import TrackedFrame, TrackedObject

WIDTH, HEIGHT = 320, 240
CLIP = 7
"""Which of the held-out clips with occlusion."""


@dataclass(frozen=True, slots=True)
class ClipAnswer:
    """What a server made of the clip.

    Attributes:
        phrases: what it was asked for.
        objects, frames: how many the clip has.
        figures: of identities and masks, from `TrackingTally`.
        seconds: that the tracking took, with the drawing of the mp4.
        mp4, gif: the clip with what was found drawn on it.
    """

    phrases: list[str]
    objects: int
    frames: int
    figures: dict[str, float]
    seconds: float
    mp4: bytes
    gif: bytes


def track_clip(client: httpx.Client) -> ClipAnswer:
    """Has a clip tracked as a job, and drawn once more as a GIF. Raises httpx.HTTPStatusError if it is refused."""
    *_, clip = occluded_clips(CLIP + 1, width=WIDTH, height=HEIGHT)
    video = encode_clip((frame for _, frame in clip.frames()), clip.frames_per_second)
    solids = clip.scenes[0].solids
    phrases = sorted({f"{solid.color} object" for solid in solids})
    result = _job(client, video, {"phrases": phrases, "model_id": "demo/sam3", "clip": "mp4"})
    path = f"/tracking/{result['session_id']}/clip"
    gif = client.get(path, params={"format": "gif"}).raise_for_status().content
    mp4 = base64.b64decode(result["clip"]["data"])
    figures = figures_of(clip, result["frames"])
    return ClipAnswer(phrases, len(solids), clip.frame_count, figures, result["processing_time"], mp4, gif)


def figures_of(clip: TabletopClip, told: Iterable[dict[str, Any]]) -> dict[str, float]:
    """How right frames are, as they come over the wire with masks as run lengths."""
    tally = TrackingTally()
    tally.add(clip, [frame_of(frame) for frame in told])
    return tally.figures()


def frame_of(told: dict[str, Any]) -> TrackedFrame:
    """A frame of an answer with masks as run lengths."""
    objects = [
        TrackedObject(
            each["object_id"], tuple(each["box"]), from_coco_rle(each["mask_rle"]), each["score"], each["label"]
        )
        for each in told["objects"]
    ]
    return TrackedFrame(told["frame_index"], tuple(objects))


def _job(client: httpx.Client, video: bytes, fields: dict[str, Any]) -> dict[str, Any]:
    """The result of a tracking job, for which it waits."""
    job = client.post("/jobs/submit/tracking", files={"video": video}, data=fields).raise_for_status().json()
    client.get(f"/jobs/{job['job_id']}/events").raise_for_status()
    job = client.get(f"/jobs/{job['job_id']}").raise_for_status().json()
    if job["status"] != "completed":
        raise SystemExit(f"The tracking job {job['status']}: {job['error']}")
    return job["result"]
