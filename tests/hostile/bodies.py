"""Hostile JSON, by itself and in forms, for every route that reads some. None of it is a valid request."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

JSON = "application/json"
MEGABYTE = 10**6
BOUNDARY = "----hostile"
MAX_FORM_TEXT = MEGABYTE
"""Most bytes of a field of a form that is not a file."""


@dataclass(frozen=True, slots=True)
class Body:
    """One request: what is wrong with it is in its name."""

    name: str
    path: str
    content_type: str
    content: bytes
    method: str = "POST"


@dataclass(frozen=True, slots=True)
class Target:
    """A route.

    Attributes:
        good: the rest of the body, in which an image or a model does not exist, so that no request is answered.
        fields: those to fill with nonsense.
        form: path of the same as a form; None where there is none.
        metadata: whether the form has all but its files as one JSON document.
    """

    path: str
    good: dict[str, Any]
    fields: tuple[str, ...]
    form: str | None = None
    metadata: bool = False
    method: str = "POST"


NOT_AN_IMAGE = "!"
NO_MODEL = {"model": "nothing"}
PROMPTED = {"images": [NOT_AN_IMAGE], "prompts": ["cat"]}
CLICKS = ("images", "prompts", "points", "point_labels", "object_boxes", "mask_input", "boxes", "box_labels")
TRACKED = {"video": NOT_AN_IMAGE, "phrases": ["cat"]}
TARGETS = (
    Target("/native/inference/sam3", PROMPTED, (*CLICKS, "resolve_overlaps"), "/native/inference/sam3/upload"),
    Target("/native/inference/sam3/overlay", PROMPTED, CLICKS, "/native/inference/sam3/overlay"),
    Target("/native/inference/grounding-dino", PROMPTED, ("images", "prompts", "box_threshold")),
    Target("/native/inference/dinov3", {"images": [NOT_AN_IMAGE]}, ("images", "include", "encoding")),
    Target("/native/inference/depth-anything", {"images": [NOT_AN_IMAGE]}, ("images", "export_format")),
    Target("/native/inference/vlm", {"images": [NOT_AN_IMAGE], "prompt": "?"}, ("images", "prompt", "stop", "seed")),
    Target("/native/jobs/submit/sam3", PROMPTED, CLICKS, "/native/jobs/submit/sam3"),
    Target("/native/tracking", TRACKED, ("video", "prompts", "phrases"), "/native/tracking"),
    Target("/native/tracking/none/prompts", {"prompts": []}, ("prompts",)),
    Target("/native/jobs/submit/tracking", TRACKED, ("video", "prompts", "phrases"), "/native/jobs/submit/tracking"),
    Target("/native/images", {"image": NOT_AN_IMAGE}, ("image",)),
    Target("/native/models/load", {"model_type": "nothing"}, ("model_type", "model_id", "device")),
    Target("/native/models/unload", {"model_type": "nothing"}, ("model_type",)),
    Target(
        "/pixano/v1/inference/segmentation",
        {**NO_MODEL, "image": NOT_AN_IMAGE},
        ("image", "points", "labels", "boxes", "maskInput"),
        "/pixano/v1/inference/segmentation/binary",
        metadata=True,
    ),
    Target("/pixano/v1/inference/detection", {**NO_MODEL, "image": NOT_AN_IMAGE}, ("image", "classes")),
    Target("/pixano/inference/detection/", {**NO_MODEL, "image": NOT_AN_IMAGE}, ("image", "classes")),
    Target(
        "/pixano/v1/inference/tracking",
        {**NO_MODEL, "video": NOT_AN_IMAGE, "classes": ["cat"]},
        ("video", "objectsIds", "frameIndexes", "keyframes", "points", "labels", "boxes", "classes"),
        "/pixano/v1/inference/tracking/binary",
        metadata=True,
    ),
    Target("/pixano/v1/inference/tracking/jobs", {**NO_MODEL, "video": NOT_AN_IMAGE}, ("video", "keyframes")),
    Target("/pixano/v1/inference/ner", {**NO_MODEL, "text": "Ada"}, ("text",)),
    Target("/pixano/v1/inference/embedding", {**NO_MODEL, "text": ["a"]}, ("text", "image")),
    Target("/pixano/v1/inference/vlm", {**NO_MODEL, "prompt": "?", "maxNewTokens": 1}, ("prompt", "images")),
    Target("/pixano/v1/models", {"modelClass": "nothing"}, ("name", "modelParams", "deployment")),
    Target("/ingrain/embed_text", {"name": "nothing", "text": ["a"]}, ("name", "text", "nDims")),
    Target("/ingrain/embed_image", {"name": "nothing", "image": ["a"]}, ("image", "imageDownloadHeaders")),
    Target("/ingrain/embed", {"name": "nothing", "text": ["a"]}, ("text", "image")),
    Target("/ingrain/classify_image", {"name": "nothing", "image": ["a"]}, ("image",)),
    Target("/ingrain/unload_model", {"name": "nothing"}, ("name",)),
    Target("/ingrain/delete_model", {"name": "nothing"}, ("name",), method="DELETE"),
    Target("/openai/v1/embeddings", {**NO_MODEL, "input": []}, ("input", "dimensions")),
    Target(
        "/openai/v1/chat/completions",
        {**NO_MODEL, "messages": [{"role": "user", "content": "?"}]},
        ("messages", "stop", "tools", "logit_bias", "response_format", "n"),
    ),
)


def _repeated(value: bytes) -> Callable[[int], bytes]:
    return lambda size: b"[" + (value + b",") * (size // (len(value) + 1)) + value + b"]"


VALUES: dict[str, Callable[[int], bytes]] = {
    **{
        f"a list of {value.decode()[:12]}": _repeated(value)
        for value in (
            *(b"0", b"[]", b"{}", b'""', b"null", b"true", b"NaN", b"-Infinity", b"1e999", b"[[]]", b"[0,0]", b'"a"'),
            *(b'{"a":0}', b'{"data":0}', b'{"type":"text","text":""}', b'{"role":"user","content":[]}', b"[[[[]]]]"),
            *(b'{"object_id":1}', b'{"frameIndex":0,"points":[]}', b'{"size":[1,1],"counts":[0,0,0,0]}', b"9" * 4000),
        )
    },
    "a list of lists of 0": lambda size: b"[" + _repeated(b"0")(size - 2) + b"]",
    "lists in lists": lambda size: b"[" * (size // 2) + b"]" * (size // 2),
    "lists that do not end": lambda size: b"[" * size,
    "objects in objects": lambda size: b'{"a":' * (size // 6) + b"0" + b"}" * (size // 6),
    "a whole number": lambda size: b"1" * size,
    "a fraction": lambda size: b"0." + b"1" * size,
    "an exponent": lambda size: b"1e" + b"1" * size,
    "escaped quotes": lambda size: b'"' + b'\\"' * (size // 2) + b'"',
    "escaped backslashes": lambda size: b'"' + b"\\\\" * (size // 2) + b'"',
    "escaped letters": lambda size: b'"' + b"\\u00e9" * (size // 6) + b'"',
    "halves of letters": lambda size: b'"' + b"\\ud83d" * (size // 6) + b'"',
    "half a letter": lambda size: b'"\\ud83d"',
    "zeros": lambda size: b'"' + b"\\u0000" * (size // 6) + b'"',
    "letters of two bytes": lambda size: b'"' + b"\xc3\xa9" * (size // 2) + b'"',
    "letters of four bytes": lambda size: b'"' + b"\xf0\x9f\x98\x80" * (size // 4) + b'"',
    "no letters": lambda size: b'"' + b"\xff" * size + b'"',
    "a string that does not end": lambda size: b'"' + b"a" * size,
    "blanks": lambda size: b" " * size + b"0",
    "lines": lambda size: b"\n" * size,
    "members": lambda size: b"{" + b",".join(b'"a%d":0' % index for index in range(size // 10)) + b"}",
    "one member many times": lambda size: b"{" + b'"a":0,' * (size // 6) + b'"a":0}',
    "half a run": lambda size: b'[{"mask":{"size":[1,1],"counts":' + _repeated(b"0")(size) + b"}}]",
    "an array": lambda size: b'{"shape":%s,"values":%s}' % (_repeated(b"1")(size // 2), _repeated(b"0")(size // 2)),
}
WHOLE: dict[str, Callable[[bytes, int], bytes]] = {
    "unknown members": lambda good, size: _with(good, b",".join(b'"x%d":0' % index for index in range(size // 10))),
    "an unknown member many times": lambda good, size: _with(good, b",".join([b'"x":0'] * (size // 6))),
    "a long unknown member": lambda good, size: _with(good, b'"' + b"x" * size + b'":0'),
    "an unknown list of lists": lambda good, size: _with(good, b'"x":' + _repeated(b"[]")(size)),
    "an unknown list of numbers": lambda good, size: _with(good, b'"x":' + _repeated(b"1.5")(size)),
    "twice": lambda good, size: good + good,
    "cut": lambda good, size: good[: len(good) // 2],
    "with blanks before": lambda good, size: b" " * size + good[:-1],
    "with brackets after": lambda good, size: good + b"]" * size,
    "in UTF-16": lambda good, size: good.decode().encode("utf-16"),
    "compressed, it says": lambda good, size: b"\x1f\x8b" + b"\0" * size,
    "a list": lambda good, size: _repeated(good)(size),
    "nothing but commas": lambda good, size: b"," * size,
    "nothing but quotes": lambda good, size: b'"' * size,
    "nothing but backslashes": lambda good, size: b"\\" * size,
    "nothing": lambda good, size: b"",
    "zeros": lambda good, size: b"\0" * size,
}


def json_bodies(seed: int, count: int, *, largest: int = 3 * MEGABYTE) -> Iterator[Body]:
    """Requests to be refused with a status of 4xx, in a moment and without much memory.

    Args:
        count: how many; in 1,000 of them every value meets every protocol.
        largest: bytes of the largest, about.
    """
    chance = random.Random(seed)
    for index in range(count):
        target = chance.choice(TARGETS)
        size = chance.choice((100, 10_000, largest // 10, largest))
        if target.form is not None and index % 4 == 0:
            yield _form(target, chance, size)
        elif index % 4 == 1:
            name = chance.choice(list(WHOLE))
            good = json.dumps(target.good).encode()
            yield Body(f"{name}, {size}", target.path, JSON, WHOLE[name](good, size), target.method)
        else:
            field, name = chance.choice(target.fields), chance.choice(list(VALUES))
            yield Body(
                f"{field}: {name}, {size}", target.path, JSON, _filled(target, field, VALUES[name](size)), target.method
            )


def _filled(target: Target, field: str, value: bytes) -> bytes:
    rest = {key: given for key, given in target.good.items() if key != field}
    return _with(json.dumps(rest).encode(), b'"%s":%s' % (field.encode(), value))


def _with(good: bytes, members: bytes) -> bytes:
    return b"{" + members + b"}" if good == b"{}" else good[:-1] + b"," + members + b"}"


def _form(target: Target, chance: random.Random, size: int) -> Body:
    """A form with nonsense in one field, in many fields, or in its metadata."""
    assert target.form is not None
    name, field = chance.choice(list(VALUES)), chance.choice(target.fields)
    kind = chance.choice(("one field", "many fields", "a file"))
    as_file = kind == "a file"
    value = VALUES[name](size if as_file else min(size, MAX_FORM_TEXT - 1000))
    if target.metadata:
        parts = [_part("metadata", _filled(target, field, value), as_file=as_file)]
    elif kind == "many fields":
        parts = [_part(field, VALUES[name](100)) for _ in range(500)] + [_part(f"x{each}", b"0") for each in range(400)]
    else:
        parts = [_part(field, value, as_file=as_file)]
    files = _part("image" if target.metadata else "images", b"no image", as_file=True)
    content = b"".join(parts) + files + f"--{BOUNDARY}--\r\n".encode()
    described = f"multipart/form-data; boundary={BOUNDARY}"
    return Body(f"{kind} {field}: {name}, {size}", target.form, described, content, target.method)


def _part(name: str, value: bytes, *, as_file: bool = False) -> bytes:
    file = f'; filename="{name}"' if as_file else ""
    return f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode() + value + b"\r\n"
