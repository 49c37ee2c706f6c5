"""Where the time of a request went."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Timings:
    """Seconds that one image's request spent in each stage.

    Attributes:
        prepare: turning pixels and prompts into inputs of the network.
        queue: waiting for the device.
        encode: in the part of the network that sees the image alone; 0 where its encoding was at hand.
        prompt: in the rest of the network.
        post: turning its output into the answer.
        cached: whether the image's encoding was at hand; None for a model that keeps none.
    """

    prepare: float = 0.0
    queue: float = 0.0
    encode: float = 0.0
    prompt: float = 0.0
    post: float = 0.0
    cached: bool | None = None
