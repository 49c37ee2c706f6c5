"""Pictures of the tabletop: each pixel's ray is met with every solid in closed form."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from vision_model_repo.demo.scenes import Scene, Solid

Floats = NDArray[np.floating]

GROUND_EXTENT = 12.0
"""Metres from the camera beyond which a ray is background rather than ground."""
TILE = 0.3
"""Side of a ground tile in metres: the ruler that makes metric depth visible."""
AMBIENT = 0.42
SHADOW = 0.55


def trace(scene: Scene, width: int, height: int) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Colour (H, W, 3), z-depth (H, W) and index of the solid hit (H, W), -1 for the ground."""
    matrix = scene.camera.intrinsics(width, height)
    u = (np.arange(width, dtype=np.float32) + 0.5 - matrix[0, 2]) / matrix[0, 0]
    v = (np.arange(height, dtype=np.float32) + 0.5 - matrix[1, 2]) / matrix[1, 1]
    rotation = scene.camera.rotation()
    # Rays are scaled to advance one metre along the optical axis: the ray parameter is the z-depth.
    rays = np.stack(
        [(u * rotation[0, k])[None, :] + (v * rotation[1, k])[:, None] + rotation[2, k] for k in range(3)], axis=-1
    ).reshape(-1, 3)
    origin = np.broadcast_to(scene.camera.position(), rays.shape)

    with np.errstate(divide="ignore", invalid="ignore"):
        to_ground = np.where(rays[:, 2] < -1e-4, -origin[:, 2] / rays[:, 2], np.float32(GROUND_EXTENT))
    depth = np.minimum(to_ground, np.float32(GROUND_EXTENT)).astype(np.float32)
    owner = np.full(len(rays), -1)
    for index, solid in enumerate(scene.solids):
        hit = _intersect(solid, origin, rays)
        nearer = hit < depth
        depth[nearer], owner[nearer] = hit[nearer], index

    points = origin + rays * depth[:, None]
    tiles = (np.floor(points[:, 0] / TILE) + np.floor(points[:, 1] / TILE)).astype(np.int64) & 1
    albedo = np.asarray(scene.ground, np.float32)[tiles]
    normals = np.zeros_like(points)
    normals[:, 2] = 1
    gloss = np.zeros(len(points), np.float32)
    for index, solid in enumerate(scene.solids):
        mine = np.flatnonzero(owner == index)
        normals[mine] = _normals(solid, points[mine])
        albedo[mine] = solid.rgb
        # A flat face reflects the light evenly: strong gloss would bleach it whole and hide its colour.
        gloss[mine] = 0.35 if solid.shape == "sphere" else 0.1

    light = np.asarray(scene.light, np.float32)
    lit = ~_shadowed(scene, points + 1e-3 * normals, light)
    lambert = np.clip(normals @ light, 0, 1)
    view = -rays / np.linalg.norm(rays, axis=1, keepdims=True)
    half = view + light
    half /= np.linalg.norm(half, axis=1, keepdims=True)
    highlight = gloss * np.clip(np.einsum("nk,nk->n", normals, half), 0, 1) ** 40
    strength = AMBIENT + (1 - AMBIENT) * lambert * np.where(lit, 1.0, 1.0 - SHADOW)
    color = albedo * strength[:, None] + (highlight * lit)[:, None]
    shape = (height, width)
    return color.astype(np.float32).reshape(*shape, 3), depth.reshape(shape), owner.reshape(shape)


def _shadowed(scene: Scene, points: Floats, light: Floats) -> NDArray[np.bool_]:
    shadowed = np.zeros(len(points), bool)
    for solid in scene.solids:
        # Only points near the line from the solid's bounding sphere along the light can lie in its shadow.
        centre = np.array([solid.x, solid.y, solid.height / 2], np.float32)
        offset = points - centre
        across = offset - (offset @ light)[:, None] * light
        reach = np.float32(1.5 * solid.radius)
        near = np.flatnonzero(np.einsum("nk,nk->n", across, across) < reach * reach)
        shadowed[near] |= np.isfinite(_intersect(solid, points[near], np.broadcast_to(light, (len(near), 3))))
    return shadowed


def _to_local(solid: Solid, vectors: Floats, *, point: bool) -> Floats:
    """World to the solid's own frame, whose origin is the centre of its base."""
    c, s = np.float32(np.cos(solid.yaw)), np.float32(np.sin(solid.yaw))
    x, y, z = vectors[:, 0], vectors[:, 1], vectors[:, 2]
    if point:
        x, y = x - np.float32(solid.x), y - np.float32(solid.y)
    return np.stack([c * x + s * y, c * y - s * x, z], axis=1)


def _intersect(solid: Solid, origin: Floats, direction: Floats) -> Floats:
    """Smallest positive ray parameter at which each ray meets the solid, (N,); inf where it does not."""
    o, d = _to_local(solid, origin, point=True), _to_local(solid, direction, point=False)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if solid.shape == "sphere":
            o[:, 2] -= np.float32(solid.radius)
            return _first(*_roots(_dot(d, d), _dot(o, d), _dot(o, o) - np.float32(solid.radius**2)))
        if solid.shape == "cube":
            return _slabs(solid, o, d)
        return _round(solid, o, d)


def _dot(a: Floats, b: Floats) -> Floats:
    return np.einsum("nk,nk->n", a, b)


def _roots(a: Floats, half_b: Floats, c: Floats) -> tuple[Floats, Floats]:
    """Both roots of a t^2 + 2 half_b t + c, nan where there are none."""
    root = np.sqrt(half_b * half_b - a * c)
    return (-half_b - root) / a, (-half_b + root) / a


def _first(*candidates: Floats) -> Floats:
    valid = [np.where(t > 1e-4, t, np.float32(np.inf)) for t in candidates]
    return np.minimum.reduce(valid)


def _slabs(solid: Solid, o: Floats, d: Floats) -> Floats:
    half = np.float32(solid.half_width)
    low, high = np.array([-half, -half, 0], np.float32), np.array([half, half, 2 * half], np.float32)
    one, two = (low - o) / d, (high - o) / d
    near, far = np.minimum(one, two).max(1), np.maximum(one, two).min(1)
    return np.where((near <= far) & (near > 1e-4), near, np.float32(np.inf))


def _round(solid: Solid, o: Floats, d: Floats) -> Floats:
    """Cylinder or cone: the side is x^2 + y^2 = (base - slope z)^2, with slope 0 for the cylinder."""
    height, base = np.float32(solid.height), np.float32(solid.radius)
    slope = base / height if solid.shape == "cone" else np.float32(0)
    width = base - slope * o[:, 2]
    a = d[:, 0] ** 2 + d[:, 1] ** 2 - (slope * d[:, 2]) ** 2
    half_b = o[:, 0] * d[:, 0] + o[:, 1] * d[:, 1] + slope * width * d[:, 2]
    c = o[:, 0] ** 2 + o[:, 1] ** 2 - width * width
    candidates: list[Floats] = []
    for t in _roots(a, half_b, c):
        z = o[:, 2] + t * d[:, 2]
        candidates.append(np.where((z >= 0) & (z <= height), t, np.float32(np.inf)))
    if solid.shape == "cylinder":
        top = (height - o[:, 2]) / d[:, 2]
        x, y = o[:, 0] + top * d[:, 0], o[:, 1] + top * d[:, 1]
        candidates.append(np.where(x * x + y * y <= base * base, top, np.float32(np.inf)))
    return _first(*candidates)


def _normals(solid: Solid, points: Floats) -> Floats:
    """Outward unit normals at points on the solid's surface, (N, 3), in world axes."""
    p = _to_local(solid, points, point=True)
    if solid.shape == "sphere":
        local = p - np.array([0, 0, solid.radius], np.float32)
    elif solid.shape == "cube":
        q = p / np.float32(solid.half_width) - np.array([0, 0, 1], np.float32)
        axis = np.abs(q).argmax(1)
        local = np.zeros_like(p)
        local[np.arange(len(p)), axis] = np.sign(q[np.arange(len(p)), axis])
    else:
        slope = solid.radius / solid.height if solid.shape == "cone" else 0.0
        reach = np.hypot(p[:, 0], p[:, 1]) + 1e-9
        local = np.stack([p[:, 0], p[:, 1], slope * reach], axis=1)
        if solid.shape == "cylinder":
            local[p[:, 2] > solid.height - 1e-3] = (0, 0, 1)
    local /= np.linalg.norm(local, axis=1, keepdims=True) + 1e-9
    c, s = np.float32(np.cos(solid.yaw)), np.float32(np.sin(solid.yaw))
    return np.stack([c * local[:, 0] - s * local[:, 1], s * local[:, 0] + c * local[:, 1], local[:, 2]], axis=1)
