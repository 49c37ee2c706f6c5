"""Depth maps in and out: PNG, points, and the files that 3D viewers open.

Camera axes are OpenCV's: x right, y down, z forward. A pixel's centre lies half a pixel from its corner, so a
principal point in the middle of the image is (width / 2, height / 2).
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vision_model_repo.formats.images import encode_jpeg

Floats = NDArray[np.float32]
Rgb = NDArray[np.uint8]

GRAZING_DEGREES = 5.0
"""A surface seen at a smaller angle than this is taken for a gap between a near and a far one."""
TEXTURE_SIDE = 2048
"""Longest side of a mesh's texture in pixels; what every viewer can load."""
TO_GLTF = np.array([1, -1, -1], np.float32)
"""Camera axes to those of glTF and OpenGL: x right, y up, z backward."""


@dataclass(frozen=True, slots=True)
class DepthPng:
    """A 16-bit gray PNG; `depth = value * scale + offset`."""

    data: bytes
    scale: float
    offset: float


def encode_depth_png(depth: Floats) -> DepthPng:
    """A depth map, (H, W), as a PNG whose 16 bits span its least to its greatest value.

    What is not finite is written as the greatest value (minus infinity as the least).
    """
    filled, low, high = _finite(depth)
    scale = (high - low) / 65535 or 1.0
    values = ((filled - np.float32(low)) / np.float32(scale) + 0.5).astype(np.uint16)
    buffer = BytesIO()
    Image.fromarray(values).save(buffer, "PNG", compress_level=1)
    return DepthPng(buffer.getvalue(), scale, low)


def relative_to_distance(disparity: Floats) -> Floats:
    """A distance to draw and build meshes with, for a model that only gives relative inverse depth.

    Such a model leaves scale and offset of the inverse depth open. Here its greatest value is put at distance 1
    and its least at 10, with the inverse distance linear in between: arbitrary units, plausible shapes.

    Args:
        disparity: (H, W), larger is nearer.
    """
    filled, low, high = _finite(disparity)
    nearness = (filled - np.float32(low)) / np.float32((high - low) or 1.0)
    return np.reciprocal(np.float32(0.1) + np.float32(0.9) * nearness)


def intrinsics_from_fov(width: int, height: int, fov_degrees: float) -> Floats:
    """Pinhole matrix in pixels, (3, 3), of a camera with a field of view across its longer side."""
    focal = 0.5 * max(width, height) / np.tan(np.radians(fov_degrees) / 2)
    return np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], np.float32)


def to_points(depth: Floats, intrinsics: Floats, *, step: int = 1) -> Floats:
    """Points in camera axes of every `step`-th pixel of every `step`-th row, (rows, columns, 3)."""
    z = depth[::step, ::step].astype(np.float32, copy=False)
    x = (np.arange(0, depth.shape[1], step, dtype=np.float32) + 0.5 - intrinsics[0, 2]) / intrinsics[0, 0]
    y = (np.arange(0, depth.shape[0], step, dtype=np.float32) + 0.5 - intrinsics[1, 2]) / intrinsics[1, 1]
    return np.stack([z * x[None, :], z * y[:, None], z], axis=-1)


def export_glb(image: Rgb, depth: Floats, intrinsics: Floats, *, max_points: int = 100_000) -> bytes:
    """The visible surface as a textured triangle mesh in a binary glTF file, in metres where the depth is.

    glTF's axes: x right, y up, looking along -z from the origin. Triangles across a depth discontinuity are left
    out, as are pixels whose depth is not a positive number. The material is unlit: the picture's light is in it.

    Args:
        image: (H, W, 3) uint8 RGB.
        depth: (H, W) distance along the optical axis.
        intrinsics: (3, 3) pinhole matrix in pixels.
        max_points: bound on the vertices; rows and columns are left out evenly to keep it.
    """
    # Half a second to import, and needed by few requests.
    import trimesh
    from trimesh.exchange.gltf import export_glb as write_glb
    from trimesh.visual.material import PBRMaterial
    from trimesh.visual.texture import TextureVisuals

    step = _step(depth, max_points)
    points = to_points(depth, intrinsics, step=step)
    faces, used = _compact(_surface(points[..., 2], step / float(intrinsics[0, 0])), points[..., 2].size)
    if not len(faces):
        return bytes(write_glb(trimesh.Scene()))
    row, column = np.divmod(used, points.shape[1])
    texture_at = np.stack([(column * step + 0.5) / depth.shape[1], 1 - (row * step + 0.5) / depth.shape[0]], axis=1)
    material = PBRMaterial(baseColorTexture=_texture(image), metallicFactor=0.0, roughnessFactor=1.0)
    mesh = trimesh.Trimesh(
        vertices=points.reshape(-1, 3)[used] * TO_GLTF,
        faces=faces,
        visual=TextureVisuals(uv=texture_at, material=material),
        process=False,
    )
    return bytes(write_glb(trimesh.Scene(mesh), tree_postprocessor=_make_unlit))


def export_ply(image: Rgb, depth: Floats, intrinsics: Floats, *, max_points: int = 500_000) -> bytes:
    """The visible surface as a coloured point cloud in a binary PLY file; arguments and axes as for `export_glb`."""
    step = _step(depth, max_points)
    points = to_points(depth, intrinsics, step=step)
    valid = _is_distance(points[..., 2])
    vertices = np.empty(int(valid.sum()), [("position", "<f4", 3), ("color", "u1", 3)])
    vertices["position"] = points[valid] * TO_GLTF
    vertices["color"] = image[::step, ::step][valid]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(vertices)}"]
    header += [f"property float {axis}" for axis in "xyz"]
    header += [f"property uchar {channel}" for channel in ("red", "green", "blue")]
    return "\n".join([*header, "end_header", ""]).encode("ascii") + vertices.tobytes()


def export_npz(
    depth: Floats, intrinsics: Floats, *, extrinsics: Floats | None = None, image: Rgb | None = None
) -> bytes:
    """The arrays as they are, under their names, in a numpy archive; those left out are not in it."""
    arrays = {"depth": depth, "intrinsics": intrinsics, "extrinsics": extrinsics, "image": image}
    buffer = BytesIO()
    # Compression would save a tenth of photographs and depth maps, for a hundred times the time.
    np.savez(buffer, **{name: array for name, array in arrays.items() if array is not None})
    return buffer.getvalue()


def _finite(values: Floats) -> tuple[Floats, float, float]:
    """The map without what is not finite, its least and its greatest value (0 and 0 when nothing is finite)."""
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)
    return np.nan_to_num(values, nan=high, posinf=high, neginf=low), low, high


def _is_distance(z: Floats) -> NDArray[np.bool_]:
    return np.isfinite(z) & (z > 0)


def _step(depth: Floats, max_points: int) -> int:
    """Least stride along both axes that leaves at most `max_points` pixels."""
    step = max(1, int(np.sqrt(depth.size / max_points)))
    while -(-depth.shape[0] // step) * -(-depth.shape[1] // step) > max_points:
        step += 1
    return step


def _surface(z: Floats, pixel: float) -> NDArray[np.int64]:
    """Triangles between neighbouring pixels that lie on one surface, (F, 3), counter-clockwise towards the camera.

    Args:
        z: (rows, columns) distance along the optical axis.
        pixel: distance between neighbours one unit away from the camera.
    """
    corner = np.arange(z.size).reshape(z.shape)
    a, b, c, d = corner[:-1, :-1], corner[:-1, 1:], corner[1:, :-1], corner[1:, 1:]
    triangles = np.stack([np.stack([a, c, b], axis=-1), np.stack([b, c, d], axis=-1)], axis=2).reshape(-1, 3)
    depths = z.ravel()[triangles]
    near, far = depths.min(axis=1), depths.max(axis=1)
    steepest = pixel / np.tan(np.radians(GRAZING_DEGREES))
    with np.errstate(invalid="ignore"):
        return triangles[_is_distance(near) & _is_distance(far) & (far - near < steepest * near)]


def _compact(faces: NDArray[np.int64], count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Faces renumbered over the vertices that they use, and those vertices."""
    used = np.zeros(count, bool)
    used[faces] = True
    return (np.cumsum(used) - 1)[faces], np.flatnonzero(used)


def _texture(image: Rgb) -> Image.Image:
    picture = Image.fromarray(image)
    picture.thumbnail((TEXTURE_SIDE, TEXTURE_SIDE))
    # trimesh writes a texture in the format that it was read from.
    return Image.open(BytesIO(encode_jpeg(np.asarray(picture))))


def _make_unlit(tree: dict) -> None:
    tree["extensionsUsed"] = [*tree.get("extensionsUsed", []), "KHR_materials_unlit"]
    for material in tree["materials"]:
        material["extensions"] = {"KHR_materials_unlit": {}}
