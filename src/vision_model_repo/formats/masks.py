"""Masks as run lengths, and from there to every form that a client may ask for.

A mask is kept as the lengths of its runs, a few kilobytes where the pixels would take megabytes. The order is
that of COCO: column by column from the left, each from the top, beginning with the zeros.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco

from vision_model_repo.errors import InvalidInput
from vision_model_repo.formats.rings import trace_rings

Ring = list[list[float]]


@dataclass(frozen=True, slots=True, eq=False)
class RunLengths:
    """A mask of one image.

    Attributes:
        height, width: of the image in pixels.
        counts: (R,) uint32 lengths of the runs, of zeros and ones in turn, zeros first (0 where the first pixel is
            set); they add up to height * width.
    """

    height: int
    width: int
    counts: NDArray[np.uint32]

    @property
    def area(self) -> int:
        """Pixels that are set."""
        return int(self.counts[1::2].sum(dtype=np.int64))

    @property
    def box(self) -> tuple[int, int, int, int] | None:
        """Tight xyxy box, x1 and y1 exclusive; None for an empty mask."""
        starts, ends = self._spans()
        if not len(starts):
            return None
        left, right = int(starts[0] // self.height), int((ends[-1] - 1) // self.height)
        if np.any(starts // self.height != (ends - 1) // self.height):
            # A run that goes on into the next column covers the foot of one and the head of the other.
            return left, 0, right + 1, self.height
        top, bottom = (starts % self.height).min(), ((ends - 1) % self.height).max()
        return left, int(top), right + 1, int(bottom) + 1

    def to_dense(self) -> NDArray[np.bool_]:
        """The pixels, (H, W) bool, contiguous."""
        dense = np.zeros((self.height, self.width), bool)
        if (box := self.box) is not None:
            left, top, right, bottom = box
            dense[top:bottom, left:right] = self.crop(box)
        return dense

    def crop(self, box: tuple[int, int, int, int]) -> NDArray[np.bool_]:
        """The pixels inside a box, as a view in column order."""
        left, top, right, bottom = box
        return self.columns(left, right).reshape(right - left, self.height)[:, top:bottom].T

    def columns(self, left: int, right: int) -> NDArray[np.bool_]:
        """The pixels of the columns left..right - 1 one after the other, each from the top."""
        edges = np.cumsum(self.counts, dtype=np.int64) - left * self.height
        lengths = np.diff(np.clip(edges, 0, (right - left) * self.height), prepend=0)
        return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)

    def _spans(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First pixel and one past the last pixel of every run of ones, in column order."""
        edges = np.cumsum(self.counts, dtype=np.int64)
        ends = edges[1::2]
        starts = edges[::2][: len(ends)]
        filled = ends > starts
        return starts[filled], ends[filled]


def encode_mask(mask: NDArray[np.bool_] | NDArray[np.uint8]) -> RunLengths:
    """Run lengths of an (H, W) mask, every value but 0 being set; the same runs that pycocotools finds."""
    height, width = mask.shape
    pixels = mask.astype(bool, copy=False)
    rows = np.flatnonzero(pixels.any(axis=1))
    if not len(rows):
        return RunLengths(height, width, np.array([height * width], np.uint32))
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    columns = np.flatnonzero(pixels[top:bottom].any(axis=0))
    left, right = int(columns[0]), int(columns[-1]) + 1

    # Comparing row with row reads memory in order, and the few places where they differ are quickly sorted into
    # column order: cheaper than transposing every pixel.
    padded = np.zeros((bottom - top + 2, right - left), bool)
    padded[1:-1] = pixels[top:bottom, left:right]
    y, x = np.divmod(np.flatnonzero(padded[1:] != padded[:-1]), right - left)
    edges = (x + left) * height + (y + top)
    edges.sort()
    return RunLengths(height, width, _counts(_drop_pairs(edges), height * width))


def _drop_pairs(edges: NDArray[np.int64]) -> NDArray[np.int64]:
    """Without the edges that come twice: there a run ends at a column's foot and goes on at the next one's head."""
    twice = edges[1:] == edges[:-1]
    keep = np.ones(len(edges), bool)
    keep[1:] &= ~twice
    keep[:-1] &= ~twice
    return edges[keep]


def _counts(edges: NDArray[np.int64], size: int) -> NDArray[np.uint32]:
    """Run lengths from the sorted places where a run begins or ends."""
    counts = np.diff(edges, prepend=0, append=size).astype(np.uint32)
    return counts[:-1] if len(counts) > 1 and counts[-1] == 0 else counts


def coco_rle(runs: RunLengths) -> dict[str, Any]:
    """COCO's compressed form, `{"size": [height, width], "counts": "..."}`, which pycocotools decodes."""
    size = [runs.height, runs.width]
    uncompressed: Any = {"size": size, "counts": runs.counts}
    packed = coco.frPyObjects(uncompressed, runs.height, runs.width)
    return {"size": size, "counts": packed["counts"].decode("ascii")}


def from_coco_rle(rle: Mapping[str, Any]) -> RunLengths:
    """The runs of a mask in COCO's compressed form.

    pycocotools can only unpack such a string into pixels, and trusts it to be whole.

    Raises:
        InvalidInput: the size or the counts are malformed, or the counts do not add up to the size.
    """
    try:
        height, width = (int(side) for side in rle["size"])
        text = rle["counts"]
        counts = _unpack(text if isinstance(text, bytes) else text.encode("ascii"))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise InvalidInput('A mask needs a "size" [height, width] and "counts" in COCO\'s compressed form.') from None
    if min(height, width) < 0 or counts.min(initial=0) < 0 or counts.sum() != height * width:
        raise InvalidInput("The counts of the mask do not add up to its size.")
    return RunLengths(height, width, counts.astype(np.uint32))


def _unpack(text: bytes) -> NDArray[np.int64]:
    """Numbers of five bits a character, lowest first, each the difference to the last but one from the fourth on."""
    codes = np.frombuffer(text, np.uint8).astype(np.int64) - 48
    last = codes & 0x20 == 0
    ends = np.flatnonzero(last)
    if not len(ends) or not last[-1] or codes.min() < 0 or codes.max() > 63:
        raise ValueError("not a compressed run length string")
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > 7:
        raise ValueError("a count beyond 32 bits")
    shifts = 5 * (np.arange(len(codes)) - np.repeat(starts, lengths))
    values = np.add.reduceat((codes & 0x1F) << shifts, starts)
    values -= np.where(codes[ends] & 0x10, np.int64(1) << (5 * lengths), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def encode_mask_png(runs: RunLengths) -> bytes:
    """A PNG of the mask, one bit a pixel, white where it is set."""
    packed = np.packbits(runs.to_dense(), axis=1)
    buffer = BytesIO()
    Image.frombytes("1", (runs.width, runs.height), packed.tobytes()).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def resolve_overlaps(masks: Sequence[RunLengths], priorities: Sequence[float]) -> list[RunLengths]:
    """Gives each pixel to one mask only: the one with the highest priority, the earlier one when equal.

    Args:
        masks: of the same image; one at a time is unpacked, however many there are.
        priorities: one for each mask.

    Returns:
        The masks in the same order, without the pixels that went to others; some may be empty.
    """
    if not masks:
        return []
    height, width = masks[0].height, masks[0].width
    taken = np.zeros(height * width, bool)
    resolved = list(masks)
    for index in sorted(range(len(masks)), key=lambda index: -priorities[index]):
        if (box := masks[index].box) is None:
            continue
        left, _, right, _ = box
        mine, others = masks[index].columns(left, right), taken[left * height : right * height]
        mine &= ~others
        others |= mine
        edges = np.flatnonzero(np.diff(mine, prepend=False, append=False)) + left * height
        resolved[index] = RunLengths(height, width, _counts(edges, height * width))
    return resolved


def polygons(runs: RunLengths) -> list[Ring]:
    """The rings `[[x, y], ...]` of a mask, outer rings and holes alike, along the edges of its pixels.

    A pixel covers [x, x + 1] by [y, y + 1], as in the boxes. Filled, the rings give the mask again; outer rings
    turn clockwise as seen and holes the other way, so their signed areas add up to the mask's. The first point is
    not repeated at the end, and pixels that touch at a corner only lie in separate rings.
    """
    if (box := runs.box) is None:
        return []
    left, top = box[:2]
    return [[[float(x + left), float(y + top)] for x, y in ring] for ring in trace_rings(runs.crop(box))]
