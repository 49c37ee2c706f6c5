"""`make demo`: a real server, a picture and a clip, the four models asked over HTTP, and all they say to look at.

python -m vision_model_repo.demo.tour [--output FOLDER] [--seed SEED] [--panels FILE]
"""

from __future__ import annotations

import argparse
import base64
import tempfile
import time
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich import box
from rich.console import Console
from rich.table import Table

from vision_model_repo.demo.clip import track_clip
from vision_model_repo.demo.live import live_server
from vision_model_repo.demo.panels import side_by_side
from vision_model_repo.demo.scenes import View, render, sample_scene
from vision_model_repo.formats.boxes import pairwise_iou
from vision_model_repo.formats.drawing import draw_similarity
from vision_model_repo.formats.images import encode_png
from vision_model_repo.formats.masks import from_coco_rle

WIDTH, HEIGHT = 640, 480
SEED = 25
# What the server must not depend on: the hub, and checkpoints that this machine may or may not have.
SETTINGS = {"HF_HUB_OFFLINE": "1", "LOG_LEVEL": "INFO"}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: what was asked, what came back, and what is true."""

    model: str
    asked: str
    answer: str
    truth: str
    milliseconds: float


class Tour:
    """Asks a server about one picture and keeps what it says in a folder."""

    def __init__(self, client: httpx.Client, view: View, folder: Path) -> None:
        self._client = client
        self._view = view
        self._folder = folder
        self._image = encode_png(view.image)
        self._write("picture.png", self._image)

    def masks(self) -> Row:
        names = sorted(set(self._view.names))
        answer, elapsed = self._ask("sam3", prompts=names)
        found = {entry["prompt"]: entry["result"]["masks_rle"] for entry in answer["results"][0]}
        overlaps = [self._mask_overlap(name, found[name]) for name in names]
        self._overlay("masks.png", "sam3", prompts=names)
        count = sum(map(len, found.values()))
        told = f"{count} masks, mean IoU {np.mean(overlaps):.2f}"
        return Row("sam3", ", ".join(names), told, f"{len(self._view.solids)} objects", elapsed)

    def clicks(self) -> Row:
        points = [[np.argwhere(mask)[mask.sum() // 2][::-1].tolist()] for mask in self._view.masks]
        answer, elapsed = self._ask("sam3", points=[points])
        masks = [from_coco_rle(found["masks_rle"][0]).to_dense() for found in answer["objects"][0]]
        pairs = zip(masks, self._view.masks, strict=True)
        overlaps = [(mask & truth).sum() / (mask | truth).sum() for mask, truth in pairs]
        self._overlay("clicks.png", "sam3", points=[points], multimask=False)
        told = f"{len(masks)} masks, mean IoU {np.mean(overlaps):.2f}"
        return Row("sam3", "a click on each object", told, f"{len(self._view.solids)} objects", elapsed)

    def boxes(self) -> Row:
        shapes = sorted({solid.shape for solid in self._view.solids})
        answer, elapsed = self._ask("grounding-dino", prompts=shapes)
        boxes = np.array(answer["results"][0]["xyxy"], np.float32).reshape(-1, 4)
        best = pairwise_iou(boxes, self._view.boxes).max(axis=0, initial=0)
        self._overlay("boxes.png", "grounding-dino", prompts=shapes)
        told = f"{len(boxes)} boxes, mean IoU {best.mean():.2f}"
        return Row("grounding-dino", ", ".join(shapes), told, f"{len(self._view.solids)} objects", elapsed)

    def depth(self) -> Row:
        answer, elapsed = self._ask("depth-anything", export_format="glb")
        depth = answer["results"][0]
        steps = np.asarray(Image.open(BytesIO(base64.b64decode(depth["depth"]))), np.float32)
        error = np.abs(steps * depth["scale"] + depth["offset"] - self._view.depth) / self._view.depth
        self._write("scene.glb", base64.b64decode(depth["export"]["data"]))
        self._overlay("depth.png", "depth-anything")
        told = f"{depth['min_depth']:.2f} to {depth['max_depth']:.2f} m, {100 * error.mean():.1f} % off"
        truth = f"{self._view.depth.min():.2f} to {self._view.depth.max():.2f} m"
        return Row("depth-anything", "depth of every pixel", told, truth, elapsed)

    def similarity(self) -> Row:
        answer, elapsed = self._ask("dinov3", include=["last_hidden_state"])
        rows, columns = answer["patch_grid"]
        tokens = np.array(answer["features"]["last_hidden_state"][0], np.float32)[-rows * columns :]
        patches = (tokens / np.linalg.norm(tokens, axis=1, keepdims=True)).reshape(rows, columns, -1)
        # The patch in the middle of the first object's box, against all others.
        x0, y0, x1, y1 = self._view.boxes[0]
        row, column = int((y0 + y1) / 2 * rows / HEIGHT), int((x0 + x1) / 2 * columns / WIDTH)
        similarity = patches @ patches[row, column]
        self._write("similarity.png", encode_png(draw_similarity(self._view.image, similarity)))
        inside, outside = self._inside_and_outside(similarity)
        told = f"{inside:.2f} on it, {outside:.2f} elsewhere"
        return Row("dinov3", f"patches like the {self._view.names[0]}", told, "higher on it", elapsed)

    def clip(self) -> Row:
        answer = track_clip(self._client)
        self._write("clip.mp4", answer.mp4)
        self._write("clip.gif", answer.gif)
        told = f"IDF1 {answer.figures['idf1']:.2f}, mean IoU {answer.figures['mask_iou']:.2f}"
        truth = f"{answer.objects} objects, {answer.frames} frames"
        return Row("sam3, clip", ", ".join(answer.phrases), told, truth, 1000 * answer.seconds)

    def _mask_overlap(self, name: str, masks: list[Any]) -> float:
        """Intersection over union of all masks of a name with all objects of that name."""
        found = np.zeros((HEIGHT, WIDTH), bool)
        for mask in masks:
            found |= from_coco_rle(mask).to_dense()
        truth = self._view.masks[self._view.matching(name)].any(axis=0)
        return float((found & truth).sum() / max((found | truth).sum(), 1))

    def _inside_and_outside(self, similarity: NDArray[np.floating]) -> tuple[float, float]:
        """Mean similarity of the patches that the first object covers mostly, and of the others."""
        rows, columns = similarity.shape
        cover = Image.fromarray(self._view.masks[0].astype(np.uint8) * 255).resize(
            (columns, rows), Image.Resampling.BOX
        )
        inside = np.asarray(cover) > 127
        return float(similarity[inside].mean()), float(similarity[~inside].mean())

    def _ask(self, route: str, **fields: Any) -> tuple[Any, float]:
        """The answer and its time in ms, of the second of two requests: the first one loads the model and encodes the
        image, which the second finds encoded."""
        body = self._body(route, fields)
        self._post(f"/inference/{route}", body)
        started = time.perf_counter()
        answer = self._post(f"/inference/{route}", body).json()
        return answer, 1000 * (time.perf_counter() - started)

    def _overlay(self, name: str, route: str, **fields: Any) -> None:
        self._write(name, self._post(f"/inference/{route}/overlay", self._body(route, fields)).content)

    def _body(self, route: str, fields: dict[str, Any]) -> dict[str, Any]:
        return {"images": [base64.b64encode(self._image).decode()], "model_id": f"demo/{route}", **fields}

    def _post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        response = self._client.post(path, json=body)
        if response.is_error:
            raise SystemExit(f"{path} answered {response.status_code}: {response.text}")
        return response

    def _write(self, name: str, data: bytes) -> None:
        (self._folder / name).write_bytes(data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("demo_output"))
    parser.add_argument("--seed", type=int, default=SEED, help="another one gives another tabletop")
    parser.add_argument("--panels", type=Path, help="also write all pictures side by side to this file")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    view = render(sample_scene(arguments.seed, min_objects=4), WIDTH, HEIGHT, samples=2)

    console = Console(width=120)
    console.print("Starting the server ...")
    with (
        tempfile.TemporaryDirectory() as folder,
        live_server(Path(folder), SETTINGS) as server,
        httpx.Client(base_url=server.url, timeout=120) as client,
    ):
        console.print(f"Asking it at {server.url} about {', '.join(view.names)}", highlight=False)
        tour = Tour(client, view, arguments.output)
        rows = [tour.masks(), tour.clicks(), tour.boxes(), tour.depth(), tour.similarity(), tour.clip()]
    console.print(as_table(rows))
    if arguments.panels:
        side_by_side(arguments.output).save(arguments.panels)
    console.print(f"Pictures, clip.mp4, clip.gif and scene.glb are in {arguments.output.resolve()}", highlight=False)


def as_table(rows: list[Row]) -> Table:
    table = Table("model", "asked for", "answer", "truth", box=box.SIMPLE_HEAD)
    table.add_column("ms, asked again", justify="right")
    for row in rows:
        table.add_row(row.model, row.asked, row.answer, row.truth, f"{row.milliseconds:.0f}")
    return table


if __name__ == "__main__":
    main()
