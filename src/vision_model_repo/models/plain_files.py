"""The files of a checkpoint, read as data within bounds: regular files alone, JSON, and the headers of safetensors.

Whoever wrote a checkpoint may have meant harm. A named pipe blocks whoever opens it, a device never ends, and a length
of gigabytes fills the memory. So every read of ours goes through here. Imports neither torch nor numpy.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from vision_model_repo.errors import NotFound

MAX_JSON_BYTES = 16 * 2**20
"""Of one JSON file; the list of a checkpoint's 90,000 tensors takes 9 MB."""
MAX_JSON_DEPTH = 32
MAX_HEADER_BYTES = 8 * 2**20
"""Of one safetensors file's list of tensors; that of 30,000 tensors takes 4 MB."""
MAX_TENSORS = 250_000
MAX_DIMENSIONS = 16
MOST_IN_DIMENSION = 2**48


class Unreadable(NotFound):
    """A file is not there, is no regular file, or breaks a bound. The message is a clause that says what is wrong."""


def open_regular(path: Path) -> BinaryIO:
    """Opens a regular file for reading, and nothing else: a pipe or a device is neither waited for nor read.

    Raises:
        Unreadable: there is no such regular file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        raise Unreadable(f"{path.name} is missing or cannot be opened") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Unreadable(f"{path.name} is no regular file")
    return os.fdopen(descriptor, "rb")


def read_bytes(path: Path, limit: int) -> bytes:
    """The content of a regular file. Raises Unreadable where it has more bytes than the limit, too."""
    with open_regular(path) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise Unreadable(f"{path.name} has more than {limit:,} bytes")
    return content


def read_json(path: Path, limit: int = MAX_JSON_BYTES) -> Any:
    """What a JSON file says.

    Raises:
        Unreadable: it is missing, too large, nested too deeply, or no JSON.
    """
    return parse_json(read_bytes(path, limit), path.name)


def parse_json(content: bytes, name: str) -> Any:
    try:
        value = json.loads(content)
        deep = _depth(value) > MAX_JSON_DEPTH
    except RecursionError:
        deep, value = True, None
    except ValueError:
        raise Unreadable(f"{name} is damaged: it is no valid JSON") from None
    if deep:
        raise Unreadable(f"{name} is nested more than {MAX_JSON_DEPTH} levels deep")
    return value


def _depth(value: Any) -> int:
    """Levels of lists and objects, as far as one more than is allowed."""
    level, depth = [value], 0
    while depth <= MAX_JSON_DEPTH:
        level = [child for each in level for child in _children(each)]
        if not level:
            break
        depth += 1
    return depth


def _children(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def tensor_shapes(path: Path) -> Mapping[str, tuple[int, ...]]:
    """The tensors of a safetensors file and their shapes, from its header alone.

    The format is https://huggingface.co/docs/safetensors: eight bytes with the header's length, the header as JSON,
    and the numbers.

    Raises:
        Unreadable: the file is no whole safetensors file, or its header breaks a bound.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if length > min(MAX_HEADER_BYTES, size - 8):
            raise Unreadable(f"{path.name} is damaged or only a part of the file")
        header = parse_json(file.read(length), f"The header of {path.name}")
    if not isinstance(header, dict) or len(header) > MAX_TENSORS:
        raise Unreadable(f"The header of {path.name} is damaged")
    numbers = size - 8 - length
    return {name: _shape(path, entry, numbers) for name, entry in header.items() if name != "__metadata__"}


def _shape(path: Path, entry: Any, numbers: int) -> tuple[int, ...]:
    match entry:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [int(start), int(stop)]}:
            # Names of dtypes begin with a number of bits, as F8_E4M3 and BF16 do, but for BOOL.
            bits = 8 if dtype == "BOOL" else int("0" + "".join(filter(str.isdigit, dtype[:8].partition("_")[0])))
            sides = all(type(side) is int and 0 <= side < MOST_IN_DIMENSION for side in shape)
            whole = bits and sides and len(shape) <= MAX_DIMENSIONS and 0 <= start <= stop <= numbers
            if whole and math.prod(shape) * bits == (stop - start) * 8:
                return tuple(shape)
    raise Unreadable(f"The header of {path.name} is damaged")
