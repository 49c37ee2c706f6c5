"""Answers drawn onto their image, for people to look at."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from vision_model_repo.formats.masks import RunLengths

Rgb = NDArray[np.uint8]
Color = tuple[int, int, int]
Box = tuple[float, float, float, float]

PALETTE: tuple[Color, ...] = (
    (255, 77, 77),
    (61, 153, 255),
    (66, 212, 84),
    (255, 193, 36),
    (196, 92, 255),
    (38, 214, 212),
    (255, 128, 31),
    (255, 105, 180),
    (150, 220, 40),
    (128, 128, 255),
)
"""Colours that stay apart on a photograph; labels take them in the order of their first appearance."""

CAPTION_MARGIN = 8
"""Pixels around a text below an image."""

FILL = 75
"""Opacity of a mask's inside, of 255; its outline is opaque."""

# Turbo (Mikhailov, 2019) at every 15th of its 256 steps, from far to near: dark blue, green, yellow, dark red.
TURBO = (
    (48, 18, 59), (63, 62, 156), (70, 102, 221), (69, 140, 253), (47, 178, 244), (26, 212, 208),
    (34, 235, 170), (82, 250, 122), (139, 255, 75), (183, 247, 53), (219, 226, 54), (245, 197, 58),
    (254, 161, 48), (249, 117, 29), (232, 75, 12), (206, 45, 4), (169, 22, 1), (122, 4, 3),
)  # fmt: skip


def draw_masks(image: Rgb, masks: Sequence[RunLengths], labels: Sequence[str], scores: Sequence[float]) -> Rgb:
    """The image with every mask filled, outlined and named.

    Args:
        image: (H, W, 3) uint8 RGB; it is not changed.
        masks, labels, scores: N each, the most important first; masks of one label share a colour.
    """
    canvas = Image.fromarray(image)
    colors = _colors(labels)
    # The most important mask is painted last, on top.
    for mask, label in reversed(list(zip(masks, labels, strict=True))):
        if (box := mask.box) is not None:
            _paint(canvas, mask.crop(box), box, colors[label])
    boxes = [mask.box or (0, 0, 0, 0) for mask in masks]
    _write_tags(canvas, boxes, _texts(labels, scores), [colors[label] for label in labels], align=0.5)
    return np.array(canvas)


def draw_boxes(image: Rgb, boxes: NDArray[np.floating], labels: Sequence[str], scores: Sequence[float]) -> Rgb:
    """The image with every box outlined and named; arguments as for `draw_masks`, boxes (N, 4) xyxy pixels."""
    canvas = Image.fromarray(image)
    pen = ImageDraw.Draw(canvas)
    colors = _colors(labels)
    corners: list[Box] = [(float(x0), float(y0), float(x1), float(y1)) for x0, y0, x1, y1 in boxes]
    for (x0, y0, x1, y1), label in reversed(list(zip(corners, labels, strict=True))):
        pen.rectangle((x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), outline=colors[label], width=_line_width(canvas))
    _write_tags(canvas, corners, _texts(labels, scores), [colors[label] for label in labels])
    return np.array(canvas)


def draw_tracks(
    image: Rgb, ids: Sequence[int], boxes: Sequence[Box], masks: Sequence[RunLengths | None], labels: Sequence[str]
) -> Rgb:
    """A frame of a video with every object in the colour of its id, which is the same on all frames.

    Args:
        image: (H, W, 3) uint8 RGB; it is not changed.
        ids, boxes, masks, labels: N each, boxes xyxy pixels; an object without a mask is outlined by its box.
    """
    canvas = Image.fromarray(image)
    pen = ImageDraw.Draw(canvas)
    colors = [PALETTE[object_id % len(PALETTE)] for object_id in ids]
    for (x0, y0, x1, y1), mask, color in zip(boxes, masks, colors, strict=True):
        if mask is None:
            pen.rectangle((x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), outline=color, width=_line_width(canvas))
        elif (tight := mask.box) is not None:
            _paint(canvas, mask.crop(tight), tight, color)
    texts = [f"{object_id} {_shorten(label)}".rstrip() for object_id, label in zip(ids, labels, strict=True)]
    _write_tags(canvas, boxes, texts, colors, align=0.5)
    return np.array(canvas)


def draw_depth(distance: NDArray[np.floating]) -> Rgb:
    """A distance map in colours, near warm and far cold, (H, W) to (H, W, 3).

    The scale is linear in inverse distance, which keeps contrast where things are near, and leaves out
    half a percent at either end. What has no distance is black.
    """
    valid = np.isfinite(distance) & (distance > 0)
    inverse = np.divide(1.0, distance, out=np.zeros(distance.shape), where=valid)
    picture = _colormap(_stretch(inverse, inverse[valid], 0.5))
    picture[~valid] = 0
    return picture


def draw_similarity(image: Rgb, similarity: NDArray[np.floating]) -> Rgb:
    """The image under a heat map, warm where a grid of similarities (rows, columns) is high."""
    height, width = image.shape[:2]
    grid = Image.fromarray(_stretch(similarity, similarity.ravel(), 0).astype(np.float32))
    heat = np.clip(np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC)), 0, 1)
    gray = np.asarray(Image.fromarray(image).convert("L"), np.float32)[..., None]
    strength = 0.2 + 0.5 * heat[..., None]
    return (gray * (1 - strength) + _colormap(heat) * strength + 0.5).astype(np.uint8)


def draw_caption(image: Rgb, text: str) -> Rgb:
    """The image above a text, which is wrapped to its width and cut off where it would be longer than the image."""
    height, width = image.shape[:2]
    font = ImageFont.load_default(size=max(12, height // 24))
    columns = max(8, int((width - 2 * CAPTION_MARGIN) / font.getlength("x")))
    rows = [row for line in text.splitlines() for row in wrap(line, columns) or [""]]
    row_height = font.getbbox("Ag")[3] + CAPTION_MARGIN // 2
    rows = rows[: max(1, int(height // row_height))]
    canvas = Image.new("RGB", (width, height + int(len(rows) * row_height) + 2 * CAPTION_MARGIN), "white")
    canvas.paste(Image.fromarray(image))
    ImageDraw.Draw(canvas).multiline_text(
        (CAPTION_MARGIN, height + CAPTION_MARGIN), "\n".join(rows), "black", font, spacing=CAPTION_MARGIN // 2
    )
    return np.array(canvas)


def _colors(labels: Sequence[str]) -> dict[str, Color]:
    return {label: PALETTE[index % len(PALETTE)] for index, label in enumerate(dict.fromkeys(labels))}


def _line_width(canvas: Image.Image) -> int:
    return max(2, round(max(canvas.size) / 240))


def _paint(canvas: Image.Image, pixels: NDArray[np.bool_], box: tuple[int, int, int, int], color: Color) -> None:
    width = _line_width(canvas)
    # The margin lets the outline follow the mask where it fills its box.
    alpha = Image.fromarray(np.pad(pixels, width).astype(np.uint8) * 255)
    # Inside is where the mask covers the whole square around a pixel. A box blur finds that in constant time.
    inside = np.asarray(alpha.filter(ImageFilter.BoxBlur(width))) == 255
    shade = Image.fromarray(np.where(inside, np.uint8(FILL), np.asarray(alpha)))
    canvas.paste(color, (box[0] - width, box[1] - width), shade.filter(ImageFilter.BoxBlur(0.5)))


def _write_tags(
    canvas: Image.Image,
    boxes: Sequence[Box],
    texts: Sequence[str],
    colors: Sequence[Color],
    *,
    align: float = 0.0,
) -> None:
    """Writes a text at each box, moving a tag that would cover another one.

    Args:
        align: 0 puts a tag at the left of its box, 0.5 in the middle.
    """
    pen = ImageDraw.Draw(canvas)
    size = max(11, round(max(canvas.size) / 45))
    font = ImageFont.load_default(size)
    pad = size // 4
    taken: list[Box] = []
    for box, text, color in zip(boxes, texts, colors, strict=True):
        tag_size = (pen.textlength(text, font) + 2 * pad, size + 2 * pad)
        left = box[0] + align * (box[2] - box[0] - tag_size[0])
        tag = _place(tag_size, (left, *box[1:]), canvas.size, taken)
        taken.append(tag)
        pen.rounded_rectangle(tag, radius=pad, fill=color)
        middle = ((tag[0] + tag[2]) / 2, (tag[1] + tag[3]) / 2)
        pen.text(middle, text, fill="black" if _luma(color) > 140 else "white", font=font, anchor="mm")


def _texts(labels: Sequence[str], scores: Sequence[float]) -> list[str]:
    return [f"{_shorten(label)} {score:.2f}" for label, score in zip(labels, scores, strict=True)]


def _shorten(label: str) -> str:
    line = " ".join(label.split())
    return line if len(line) <= 40 else line[:39] + "…"


def _place(size: tuple[float, float], box: Box, canvas: tuple[int, int], taken: Sequence[Box]) -> Box:
    """Where a tag fits: above its box, in it, or below it, else further down."""
    width, height = size
    left = min(max(0.0, box[0]), max(0.0, canvas[0] - width))
    lowest = max(0.0, canvas[1] - height)
    spots = [box[1] - height, box[1], box[3], *(box[1] + step * height for step in range(1, 12))]
    tags = [(left, y, left + width, y + height) for y in (min(max(0.0, spot), lowest) for spot in spots)]
    return next((tag for tag in tags if not any(_touch(tag, other) for other in taken)), tags[0])


def _touch(first: Box, second: Box) -> bool:
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]


def _luma(color: Color) -> float:
    return 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]


def _stretch(values: NDArray[np.floating], sample: NDArray[np.floating], percent: float) -> NDArray[np.floating]:
    """Values scaled to 0..1 between the percentiles `percent` and 100 - `percent` of a sample."""
    # A hundred thousand values know the percentiles of millions.
    sample = sample[:: 1 + len(sample) // 100_000]
    low, high = np.percentile(sample, (percent, 100 - percent)) if len(sample) else (0.0, 1.0)
    return np.clip((values - low) / max(high - low, 1e-12), 0, 1)


def _colormap(values: NDArray[np.floating]) -> Rgb:
    """Turbo colours of values in 0..1, shape (..., 3)."""
    steps = np.linspace(0, 1, len(TURBO))
    table = np.stack([np.interp(np.linspace(0, 1, 256), steps, channel) for channel in zip(*TURBO, strict=True)], 1)
    return np.rint(table).astype(np.uint8)[(values * 255 + 0.5).astype(np.uint8)]
