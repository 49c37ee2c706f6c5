"""Held-out tabletop scenes, sent over HTTP to a real server, come back right.

The bounds are the figures of the model cards, less what chance may take away on 40 scenes.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.conftest import Server
from tests.support.scenes import held_out
from vision_model_repo.demo.evaluation import (
    LEAST_SCORE,
    DepthTally,
    DetectionTally,
    FeatureTally,
    SegmentationTally,
    object_crops,
    questions,
)
from vision_model_repo.demo.scenes import View
from vision_model_repo.formats.images import encode_jpeg, encode_png
from vision_model_repo.formats.masks import from_coco_rle
from vision_model_repo.tasks.detection import DetectionResult

SCENES = 40


@pytest.fixture(scope="module")
def views() -> list[View]:
    """Half of them square, half of them 4:3."""
    return [held_out(index, 320 if index % 2 else 224, 240 if index % 2 else 224) for index in range(SCENES)]


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=120) as client:
        yield client


def b64(image: np.ndarray) -> str:
    return base64.b64encode(encode_png(image)).decode()


def ask(client: httpx.Client, route: str, **body: object) -> dict:
    response = client.post(f"/inference/{route}", json=body)
    assert response.status_code == 200, response.text
    return response.json()


def test_masks_cover_what_the_words_name(client: httpx.Client, views: list[View]) -> None:
    tally = SegmentationTally()
    for index, view in enumerate(views):
        asked = questions(view, index)
        answer = ask(client, "sam3", images=[b64(view.image)], prompts=asked)
        assert answer["model_id"] == "demo/sam3"
        for phrase, found in zip(asked, answer["results"][0], strict=True):
            tally.add(view, phrase, [from_coco_rle(rle) for rle in found["result"]["masks_rle"]])
    figures = tally.figures()
    assert figures["mean_iou"] >= 0.88
    assert figures["precision"] >= 0.85
    assert figures["recall"] >= 0.85
    assert figures["absent_answered"] <= 0.05


def test_boxes_enclose_what_the_phrases_name(client: httpx.Client, views: list[View]) -> None:
    tally = DetectionTally()
    for index, view in enumerate(views):
        asked = questions(view, index)
        body = {"prompts": asked, "box_threshold": LEAST_SCORE, "text_threshold": LEAST_SCORE}
        found = ask(client, "grounding-dino", images=[b64(view.image)], **body)["results"][0]
        boxes = np.array(found["xyxy"], np.float32).reshape(-1, 4)
        tally.add(view, asked, DetectionResult(boxes, np.array(found["scores"], np.float32), tuple(found["labels"])))
    assert tally.figures()["ap50"] >= 0.85


def test_depth_is_in_metres(client: httpx.Client, views: list[View]) -> None:
    tally = DepthTally()
    for view in views:
        answer = ask(client, "depth-anything", images=[b64(view.image)], export_format="npz")
        assert answer["metadata"]["unit"] == "metre"
        archive = np.load(io.BytesIO(base64.b64decode(answer["results"][0]["export"]["data"])))
        tally.add(view, archive["depth"])
    assert tally.figures()["abs_rel"] <= 0.08


def test_features_of_like_objects_are_alike(client: httpx.Client, views: list[View]) -> None:
    tally = FeatureTally()
    for view in views:
        crops = [b64(crop) for crop in object_crops(view)]
        answer = ask(client, "dinov3", images=crops, include=["pooler_output"])
        tally.add(view, np.array(answer["features"]["pooler_output"]))
    assert tally.figures()["nearest_same"] >= 0.80


def test_a_rotated_photo_is_answered_as_it_is_seen(client: httpx.Client, views: list[View]) -> None:
    """A camera held sideways stores its picture sideways and says so in EXIF; boxes refer to the upright picture."""
    view = views[1]
    sideways = Image.fromarray(view.image).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    sideways.save(buffer, "PNG", exif=exif)
    name = view.names[0]
    upright = ask(client, "grounding-dino", images=[b64(view.image)], prompts=[name])
    turned = ask(client, "grounding-dino", images=[base64.b64encode(buffer.getvalue()).decode()], prompts=[name])
    assert turned["results"] == upright["results"]


def test_an_exemplar_box_finds_its_like(client: httpx.Client, views: list[View]) -> None:
    """A box around one object stands for every object of its colour and shape."""
    tally = SegmentationTally()
    for view in views[:20]:
        box = view.boxes[0].tolist()
        answer = ask(client, "sam3", images=[b64(view.image)], boxes=[[box]], box_labels=[[1]])
        found = answer["results"][0][0]
        assert found["prompt"] == "visual"
        tally.add(view, view.names[0], [from_coco_rle(rle) for rle in found["result"]["masks_rle"]])
    assert tally.figures()["recall"] >= 0.65


def test_jpeg_uploads_are_answered_alike(client: httpx.Client, views: list[View]) -> None:
    view = views[1]
    files = {"images": ("scene.jpg", encode_jpeg(view.image, quality=95), "image/jpeg")}
    response = client.post("/inference/grounding-dino/upload", files=files, data={"prompts": view.names})
    assert response.status_code == 200, response.text
    assert set(response.json()["results"][0]["labels"]) <= set(view.names)
    assert len(response.json()["results"][0]["boxes"]) >= 1


def test_a_click_outlines_the_object_under_it_and_a_second_one_corrects_it(
    client: httpx.Client, views: list[View]
) -> None:
    overlaps: dict[str, list[float]] = {"click": [], "corrected": [], "box": []}
    for view in views[:20]:
        rng = np.random.default_rng(len(view.solids))
        points = [[_somewhere(mask, rng)] for mask in view.masks]
        image = b64(view.image)
        first = ask(client, "sam3", images=[image], points=[points])["objects"][0]
        best = [from_coco_rle(found["masks_rle"][0]).to_dense() for found in first]
        wrong = [_somewhere(mask != truth, rng) for mask, truth in zip(best, view.masks, strict=True)]
        labels = [[1, int(truth[y, x])] for (x, y), truth in zip(wrong, view.masks, strict=True)]
        second = ask(
            client,
            "sam3",
            images=[image],
            points=[[[*before, after] for before, after in zip(points, wrong, strict=True)]],
            point_labels=[labels],
            mask_input=[[found["mask_ids"][0] for found in first]],
        )
        assert second["cache_hits"] == [True]
        boxed = ask(client, "sam3", images=[image], object_boxes=[view.boxes.tolist()])["objects"][0]
        for name, found in (("click", first), ("corrected", second["objects"][0]), ("box", boxed)):
            for answer, truth in zip(found, view.masks, strict=True):
                mask = from_coco_rle(answer["masks_rle"][0]).to_dense()
                overlaps[name].append((mask & truth).sum() / (mask | truth).sum())
    means = {name: float(np.mean(values)) for name, values in overlaps.items()}
    assert means["click"] >= 0.75
    assert means["corrected"] >= means["click"]
    assert means["box"] >= 0.8


def _somewhere(mask: NDArray[np.bool_], rng: np.random.Generator) -> list[int]:
    """One of the mask's pixels, [x, y]; one of all pixels where there is none."""
    pixels = np.argwhere(mask if mask.any() else ~mask)
    y, x = pixels[rng.integers(len(pixels))].tolist()
    return [x, y]
