"""One image with 1 and with 8 prompts: POST /inference/sam3 against the plain loop of one full forward per prompt.

Both sides run the embedded checkpoint in float32 on the CPU with one thread, decode the same PNG, and end at
full-size masks. Ours also speaks HTTP and writes JSON; every request brings an image that the server has not seen.

python -m benchmarks.sam3_prompts
"""

from __future__ import annotations

import base64
import io
import os
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from benchmarks.report import median_ms, print_table
from vision_model_repo.demo.live import live_server
from vision_model_repo.demo.scenes import phrases, render, sample_scene
from vision_model_repo.formats.images import encode_png
from vision_model_repo.models.hub import Hub

REPEATS = 15
THREADS = 1
WIDTH, HEIGHT = 640, 480
MODEL_ID = "demo/sam3"


def main() -> None:
    pictures = [encode_png(render(sample_scene(seed), WIDTH, HEIGHT).image) for seed in range(2 * REPEATS + 1)]
    warm, *pictures = pictures
    counts = (1, 8)
    plain = PlainLoop()
    plain(warm, phrases()[:1])
    rows = []
    settings = {"HF_HUB_OFFLINE": "1", "DEVICE": "cpu", "TORCH_THREADS": str(THREADS)}
    with (
        tempfile.TemporaryDirectory() as folder,
        live_server(Path(folder), settings) as server,
        httpx.Client(base_url=server.url, timeout=300) as client,
    ):
        post(client, warm, phrases()[:1])
        for index, count in enumerate(counts):
            mine = pictures[index * REPEATS : (index + 1) * REPEATS]
            prompts = phrases()[:count]
            ours = median_ms(partial(post, client, picture, prompts) for picture in mine)
            loop = median_ms(partial(plain, picture, prompts) for picture in mine)
            rows.append((str(count), f"{ours:.0f}", f"{loop:.0f}", f"{loop / ours:.1f}"))
    print_table(
        f"SAM3 on one image of {WIDTH} x {HEIGHT}, median of {REPEATS}, {THREADS} torch thread, {MODEL_ID}",
        ("prompts", "POST /inference/sam3, ms", "a full forward per prompt, ms", "ratio"),
        rows,
    )


def post(client: httpx.Client, picture: bytes, prompts: list[str]) -> None:
    body = {"images": [base64.b64encode(picture).decode()], "prompts": prompts, "model_id": MODEL_ID}
    client.post("/inference/sam3", json=body).raise_for_status()


class PlainLoop:
    """What one writes from the model card: the processor, the model and its post-processing for each prompt."""

    def __init__(self) -> None:
        os.environ["OMP_NUM_THREADS"] = str(THREADS)
        import torch
        from transformers import Sam3Model, Sam3Processor

        torch.set_num_threads(THREADS)
        folder = Hub().resolve(MODEL_ID).folder
        self._torch: Any = torch
        self._processor: Any = Sam3Processor.from_pretrained(folder)
        self._model: Any = Sam3Model.from_pretrained(folder, dtype=torch.float32).eval()

    def __call__(self, picture: bytes, prompts: list[str]) -> list[Any]:
        from PIL import Image

        image = Image.open(io.BytesIO(picture)).convert("RGB")
        return [self._segment(image, prompt) for prompt in prompts]

    def _segment(self, image: Any, prompt: str) -> Any:
        inputs = self._processor(images=image, text=prompt, return_tensors="pt")
        with self._torch.inference_mode():
            outputs = self._model(**inputs)
        return self._processor.post_process_instance_segmentation(
            outputs, threshold=0.5, mask_threshold=0.5, target_sizes=[(image.height, image.width)]
        )[0]


if __name__ == "__main__":
    main()
