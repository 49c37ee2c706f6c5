"""What every answer says besides its results: who gave it, and where the time went."""

from __future__ import annotations

import time
from collections.abc import Sequence
from urllib.parse import quote

from pydantic import BaseModel, Field

from vision_model_repo.engine import manager

HIT_NAMES = {True: "hit", False: "miss", None: "none"}


class StageTimes(BaseModel):
    """Milliseconds in each stage, summed over the images of the request, which go through them side by side."""

    decode: float = Field(
        description="Fetching and decoding the images, and preparing them for the model.", examples=[9.1]
    )
    queue: float = Field(description="Waiting for the device.", examples=[0.2])
    encode: float = Field(
        description="In the part of the network that sees the image alone; 0 where the cache had its outcome.",
        examples=[151.0],
    )
    prompt: float = Field(description="In the rest of the network.", examples=[14.3])
    post: float = Field(description="Turning the network's output into the answer, and writing it.", examples=[3.4])
    total: float = Field(
        description="From the request's arrival to the answer, or of a job's run, by the clock.", examples=[183.0]
    )


class Answer(BaseModel):
    """What every answer has."""

    model_id: str = Field(description="Checkpoint that answered.", examples=["facebook/sam3"])
    processing_time: float = Field(
        description="Time from the request's arrival to the answer, or of a job's run, in s.", examples=[0.183]
    )
    timings: StageTimes = Field(description="Where the time went.")
    cache_hits: list[bool | None] = Field(
        description="For each image, whether what the network makes of the image alone was at hand; null for a model "
        "that keeps none of it.",
        examples=[[True]],
    )


def summarize(answer: manager.Answer, *, decoding: float, writing: float, started: float) -> Answer:
    """What there is to say about an answer of the engine.

    Args:
        decoding, writing: seconds spent before and after the engine, summed over the images.
        started: when the request arrived, by `time.perf_counter`.
    """
    seconds = time.perf_counter() - started
    timings = answer.timings
    stages = StageTimes(
        decode=_milliseconds(decoding, [each.prepare for each in timings]),
        queue=_milliseconds(0.0, [each.queue for each in timings]),
        encode=_milliseconds(0.0, [each.encode for each in timings]),
        prompt=_milliseconds(0.0, [each.prompt for each in timings]),
        post=_milliseconds(writing, [each.post for each in timings]),
        total=_milliseconds(seconds, ()),
    )
    return Answer(
        model_id=answer.model_id,
        processing_time=round(seconds, 6),
        timings=stages,
        cache_hits=[each.cached for each in timings],
    )


def headers_of(answer: Answer) -> dict[str, str]:
    """The same as headers, for answers that are no JSON."""
    stages = [f"{name};dur={milliseconds}" for name, milliseconds in answer.timings.model_dump().items()]
    hits = " ".join(HIT_NAMES[hit] for hit in answer.cache_hits)
    return {
        "X-Model-ID": quote(answer.model_id),
        "Server-Timing": ", ".join([*stages, f'cache;desc="{hits}"']),
    }


def _milliseconds(outside: float, inside: Sequence[float]) -> float:
    return round((outside + sum(inside)) * 1000, 3)
