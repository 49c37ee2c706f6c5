"""One image with 1 to 16 prompts: POST /inference/sam3 against the plain loop of one full forward per prompt.

The checkpoint has random weights and a size between the embedded one and the published one, with the published one's
share of work in the image encoder. Both sides run it in float32 on all cores, decode the same PNG, and end at
full-size masks. Ours also speaks HTTP and writes JSON; every request brings an image that the server has not seen.

python -m benchmarks.prompts
"""

from __future__ import annotations

import argparse
import base64
import io
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import torch
from PIL import Image
from transformers import Sam3Model, Sam3Processor

from benchmarks.checkpoints import MID, TINY, gigaflops, write_sam3
from benchmarks.pictures import fresh_pictures
from benchmarks.report import at_most, elapsed_ms, print_table
from benchmarks.server import our_server
from vision_model_repo.demo.scenes import phrases

WIDTH, HEIGHT = 640, 480
GOAL_PERCENT = 6.0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--prompts", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--repeats", type=int, default=3, help="of ours; the loop is measured once")
    parser.add_argument("--tiny", action="store_true", help="a checkpoint for trying this out")
    options = parser.parse_args()
    pictures = fresh_pictures(WIDTH, HEIGHT)
    ours: dict[int, list[float]] = defaultdict(list)
    loop: dict[int, float] = {}
    with TemporaryDirectory() as folder:
        model_id = write_sam3(Path(folder), TINY if options.tiny else MID)
        encoder, prompt = gigaflops(model_id)
        plain = PlainLoop(model_id)
        with (
            our_server(TORCH_THREADS=str(torch.get_num_threads())) as server,
            httpx.Client(base_url=server.url, timeout=600) as client,
        ):
            post(client, model_id, next(pictures), phrases()[: max(options.prompts)])
            plain(next(pictures), phrases()[:1])
            for repeat in range(options.repeats):
                for count in options.prompts:
                    asked = phrases()[:count]
                    ours[count].append(elapsed_ms(partial(post, client, model_id, next(pictures), asked)))
                    if repeat == 0:
                        loop[count] = elapsed_ms(partial(plain, next(pictures), asked))
    best = {count: median(times) for count, times in ours.items()}
    few, many = min(best), max(best)
    further = (best[many] - best[few]) / max(1, many - few) / best[few]
    print_table(
        f"SAM3 on one image of {WIDTH} x {HEIGHT}: image encoder {encoder:.1f} GFLOP, one prompt {prompt:.2f} GFLOP "
        f"({100 * prompt / encoder:.1f} %)",
        ("prompts", "POST /inference/sam3, ms", "a full forward per prompt, ms", "ratio"),
        (
            (str(count), f"{best[count]:.0f}", f"{loop[count]:.0f}", f"{loop[count] / best[count]:.1f}")
            for count in options.prompts
        ),
        notes=[
            at_most("each prompt after the first, of a request with one", 100 * further, GOAL_PERCENT, " %"),
            f"ours: median of {options.repeats} images; the published model has 5613 GFLOP and 247 (4.4 %)",
        ],
    )


def post(client: httpx.Client, model_id: str, picture: bytes, prompts: Sequence[str]) -> None:
    body = {"images": [base64.b64encode(picture).decode()], "prompts": prompts, "model_id": model_id}
    client.post("/inference/sam3", json=body).raise_for_status()


class PlainLoop:
    """What one writes from the model card: the processor, the model and its post-processing for each prompt."""

    def __init__(self, folder: str) -> None:
        self._processor: Any = Sam3Processor.from_pretrained(folder)
        self._model: Any = Sam3Model.from_pretrained(folder).eval()

    def __call__(self, picture: bytes, prompts: Sequence[str]) -> list[Any]:
        image = Image.open(io.BytesIO(picture)).convert("RGB")
        return [self._segment(image, prompt) for prompt in prompts]

    def _segment(self, image: Image.Image, prompt: str) -> Any:
        inputs = self._processor(images=image, text=prompt, return_tensors="pt")
        with torch.inference_mode():
            outputs = self._model(**inputs)
        return self._processor.post_process_instance_segmentation(
            outputs, threshold=0.5, mask_threshold=0.5, target_sizes=[(image.height, image.width)]
        )[0]


if __name__ == "__main__":
    main()
