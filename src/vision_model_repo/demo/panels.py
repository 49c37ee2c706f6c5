"""The pictures of a tour side by side, with captions, for a page that has room for one."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

CAPTIONS = {
    "picture.png": "a picture",
    "masks.png": "SAM3: masks",
    "boxes.png": "Grounding DINO: boxes",
    "depth.png": "Depth Anything: depth",
    "similarity.png": "DINOv3: similar patches",
}
WIDTH = 320
"""Of one panel in pixels."""
GAP = 8
CAPTION = 26


def side_by_side(folder: Path) -> Image.Image:
    """One row of the pictures that a tour has written to a folder."""
    pictures = [Image.open(folder / name).convert("RGB") for name in CAPTIONS]
    height = round(WIDTH * pictures[0].height / pictures[0].width)
    canvas = Image.new("RGB", (len(pictures) * (WIDTH + GAP) - GAP, height + CAPTION), "white")
    pen = ImageDraw.Draw(canvas)
    for index, (picture, caption) in enumerate(zip(pictures, CAPTIONS.values(), strict=True)):
        left = index * (WIDTH + GAP)
        canvas.paste(picture.resize((WIDTH, height), Image.Resampling.LANCZOS), (left, CAPTION))
        pen.text((left + WIDTH / 2, CAPTION / 2), caption, fill="#333333", font=ImageFont.load_default(15), anchor="mm")
    return canvas
