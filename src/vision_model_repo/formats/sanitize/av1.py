"""AV1: how many pictures some coded data hold, and of what size.

Syntax by sections 5.3 to 5.5 of the AV1 Bitstream & Decoding Process Specification.
"""

from __future__ import annotations

from collections.abc import Iterator

from vision_model_repo.errors import InvalidInput

MAX_UNITS = 1000
"""Most units of data in one picture, or one packet of a video. Usual ones have fewer than ten."""

_SEQUENCE_HEADER, _FRAME_HEADER, _FRAME = 1, 3, 6


def coded_pixels(data: bytes) -> int:
    """Pixels of all pictures that the data code, shown or not, each as large as the sequence allows.

    Raises:
        InvalidInput: there are too many units to count.
    """
    sizes = (_largest_size(data[start : start + 64]) for kind, start in _units(data) if kind == _SEQUENCE_HEADER)
    return max(sizes, default=0) * count_frames(data)


def count_frames(data: bytes) -> int:
    """Pictures that the data code, shown or not. Raises InvalidInput if there are too many units to count."""
    return sum(kind in (_FRAME_HEADER, _FRAME) for kind, _ in _units(data))


def _units(data: bytes) -> Iterator[tuple[int, int]]:
    """Type and place of every open bitstream unit."""
    place = 0
    for _ in range(MAX_UNITS):
        if place >= len(data):
            return
        header = data[place]
        place += 2 if header & 4 else 1
        length = len(data) - place
        if header & 2:
            length = 0
            for index in range(8):
                byte = data[place] if place < len(data) else 0
                place += 1
                length |= (byte & 0x7F) << (7 * index)
                if byte < 0x80:
                    break
        yield header >> 3 & 15, place
        place += length
    raise InvalidInput(f"The AV1 data have more than {MAX_UNITS} units. Encode it anew.")


class _Bits:
    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def take(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            return 0
        return self._value >> self._left & (1 << count) - 1

    def variable(self) -> int:
        zeros = 0
        while zeros < 32 and self._left > 0 and not self.take(1):
            zeros += 1
        return self.take(zeros)


def _largest_size(header: bytes) -> int:
    """Pixels of the largest picture that a sequence header allows."""
    bits = _Bits(header)
    bits.take(4)
    if bits.take(1):
        bits.take(5)
    else:
        delay_bits = 0
        with_model = False
        if bits.take(1):
            bits.take(64)
            if bits.take(1):
                bits.variable()
            if with_model := bool(bits.take(1)):
                delay_bits = bits.take(5) + 1
                bits.take(32 + 10)
        with_delay = bits.take(1)
        for _ in range(bits.take(5) + 1):
            bits.take(12)
            if bits.take(5) > 7:
                bits.take(1)
            if with_model and bits.take(1):
                bits.take(2 * delay_bits + 1)
            if with_delay and bits.take(1):
                bits.take(4)
    width_bits, height_bits = bits.take(4) + 1, bits.take(4) + 1
    return (bits.take(width_bits) + 1) * (bits.take(height_bits) + 1)
