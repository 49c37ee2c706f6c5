"""Binary glTF 2.0: a textured triangle mesh in one file.

The format is a JSON header and a block of arrays (https://registry.khronos.org/glTF/specs/2.0/glTF-2.0.html).
Mesh libraries write it too, at the price of seconds for their first import.
"""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

FLOAT, UNSIGNED_INT = 5126, 5125
ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER = 34962, 34963
LINEAR, LINEAR_MIPMAP_LINEAR, CLAMP_TO_EDGE = 9729, 9987, 33071


def write_glb(
    positions: NDArray[np.float32],
    texture_coordinates: NDArray[np.float32],
    faces: NDArray[np.uint32],
    texture: bytes,
) -> bytes:
    """A mesh whose texture is shown as it is, without any light of the viewer's; an empty scene without faces.

    Args:
        positions: (V, 3); x right, y up, z towards the viewer.
        texture_coordinates: (V, 2) in 0..1 from the texture's top left.
        faces: (F, 3) vertices, counter-clockwise as seen from the front.
        texture: a JPEG.
    """
    header: dict[str, Any] = {"asset": {"version": "2.0", "generator": "vision-model-repo"}, "scene": 0}
    if not len(faces):
        return _container(header | {"scenes": [{}]}, b"")
    blocks = [
        positions.astype("<f4").tobytes(),
        texture_coordinates.astype("<f4").tobytes(),
        faces.astype("<u4").tobytes(),
        texture,
    ]
    views, body = [], b""
    for block, target in zip(blocks, (ARRAY_BUFFER, ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER, None), strict=True):
        view = {"buffer": 0, "byteOffset": len(body), "byteLength": len(block)}
        views.append(view if target is None else view | {"target": target})
        body += _padded(block, b"\0")
    bounds = {"min": positions.min(axis=0).tolist(), "max": positions.max(axis=0).tolist()}
    header |= {
        "extensionsUsed": ["KHR_materials_unlit"],
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0, "TEXCOORD_0": 1}, "indices": 2, "material": 0}]}],
        "accessors": [
            {"bufferView": 0, "componentType": FLOAT, "count": len(positions), "type": "VEC3", **bounds},
            {"bufferView": 1, "componentType": FLOAT, "count": len(positions), "type": "VEC2"},
            {"bufferView": 2, "componentType": UNSIGNED_INT, "count": faces.size, "type": "SCALAR"},
        ],
        "materials": [
            {
                "pbrMetallicRoughness": {"baseColorTexture": {"index": 0}, "metallicFactor": 0.0},
                "doubleSided": True,
                "extensions": {"KHR_materials_unlit": {}},
            }
        ],
        "textures": [{"source": 0, "sampler": 0}],
        "images": [{"bufferView": 3, "mimeType": "image/jpeg"}],
        "samplers": [
            {
                "magFilter": LINEAR,
                "minFilter": LINEAR_MIPMAP_LINEAR,
                "wrapS": CLAMP_TO_EDGE,
                "wrapT": CLAMP_TO_EDGE,
            }
        ],
        "bufferViews": views,
        "buffers": [{"byteLength": len(body)}],
    }
    return _container(header, body)


def _container(header: dict[str, Any], body: bytes) -> bytes:
    text = _padded(json.dumps(header, separators=(",", ":")).encode("ascii"), b" ")
    chunks = struct.pack("<I4s", len(text), b"JSON") + text
    if body:
        chunks += struct.pack("<I4s", len(body), b"BIN\0") + body
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def _padded(block: bytes, filler: bytes) -> bytes:
    """Every part of the file begins at a multiple of four bytes."""
    return block + filler * (-len(block) % 4)
