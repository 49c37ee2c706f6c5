"""The tabletop world: coloured solids on a checkered ground, ray-traced in closed form.

A scene is plain data drawn from a seed; rendering it gives an RGB image of any size and the exact truth beside
it: which pixel belongs to which object, the boxes of the visible parts, names, metric depth and the camera. The
idea follows CLEVR (Johnson et al., 2017), small enough to need numpy alone.

World axes: x right, y away from the viewer, z up, metres; the ground is z = 0. Camera axes: x right, y down,
z forward (OpenCV).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vision_model_repo.demo.ray_tracer import trace

Floats = NDArray[np.floating]

COLORS: dict[str, tuple[float, float, float]] = {
    "red": (0.80, 0.10, 0.10),
    "green": (0.12, 0.58, 0.16),
    "blue": (0.12, 0.22, 0.80),
    "yellow": (0.88, 0.78, 0.10),
    "purple": (0.52, 0.14, 0.66),
    "cyan": (0.12, 0.72, 0.78),
}
SHAPES = ("sphere", "cube", "cylinder", "cone")

MIN_VISIBLE = 0.0015
"""Share of the image below which an object counts as hidden and is left out of the truth."""


@dataclass(frozen=True)
class Solid:
    """One object standing on the ground."""

    shape: str
    color: str
    x: float
    y: float
    radius: float
    """Half of the object's width in metres; heights follow from it."""
    yaw: float = 0.0
    tint: float = 0.0
    """Brightness offset of this object's colour, -0.1 .. 0.1."""

    @property
    def name(self) -> str:
        return f"{self.color} {self.shape}"

    @property
    def rgb(self) -> NDArray[np.float32]:
        """The colour as it is lit, (3,) 0..1."""
        return np.clip(np.asarray(COLORS[self.color], np.float32) + np.float32(self.tint), 0, 1)

    @property
    def height(self) -> float:
        return self.radius * (2.4 if self.shape == "cone" else 2.0)

    @property
    def half_width(self) -> float:
        """Half of a cube's edge is 0.85 radius, so that its diagonal does not dwarf the other shapes."""
        return self.radius * 0.85 if self.shape == "cube" else self.radius


@dataclass(frozen=True)
class Camera:
    """A pinhole camera that looks at a point on the table."""

    distance: float
    """Metres from the point looked at."""
    pitch: float
    """Radians below the horizon."""
    azimuth: float
    """Radians around the vertical axis; 0 looks along +y."""
    fov: float
    """Field of view in radians across the longer image side."""
    target: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def rotation(self) -> Floats:
        """World to camera rotation, (3, 3)."""
        cp, sp, ca, sa = np.cos(self.pitch), np.sin(self.pitch), np.cos(self.azimuth), np.sin(self.azimuth)
        forward = np.array([sa * cp, ca * cp, -sp])
        right = np.array([ca, -sa, 0.0])
        return np.stack([right, np.cross(forward, right), forward]).astype(np.float32)

    def position(self) -> Floats:
        """Camera centre in world metres, (3,)."""
        return np.asarray(self.target, np.float32) - self.distance * self.rotation()[2]

    def intrinsics(self, width: int, height: int) -> Floats:
        """Pinhole matrix in pixels, (3, 3); the principal point is the image centre."""
        focal = 0.5 * max(width, height) / np.tan(self.fov / 2)
        return np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], np.float32)

    def extrinsics(self) -> Floats:
        """World to camera, (4, 4)."""
        pose = np.eye(4, dtype=np.float32)
        pose[:3, :3] = self.rotation()
        pose[:3, 3] = -self.rotation() @ self.position()
        return pose


@dataclass(frozen=True)
class Scene:
    solids: tuple[Solid, ...]
    camera: Camera
    light: tuple[float, float, float]
    """Unit vector towards the light."""
    ground: tuple[tuple[float, float, float], tuple[float, float, float]]
    """Linear RGB of the two kinds of tile."""


@dataclass(frozen=True)
class View:
    """A rendered scene and its truth; every array holds visible objects only, in the scene's order.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        depth: (H, W) float32, metres along the optical axis.
        instances: (H, W) int16, index into `solids`, -1 for the ground.
        solids: the objects with at least `MIN_VISIBLE` of the image's pixels.
    """

    image: NDArray[np.uint8]
    depth: Floats
    instances: NDArray[np.int16]
    solids: tuple[Solid, ...]
    intrinsics: Floats
    extrinsics: Floats

    @property
    def names(self) -> list[str]:
        return [solid.name for solid in self.solids]

    @cached_property
    def masks(self) -> NDArray[np.bool_]:
        """Visible pixels of each object, (N, H, W)."""
        return self.instances[None] == np.arange(len(self.solids), dtype=np.int16)[:, None, None]

    @cached_property
    def boxes(self) -> Floats:
        """Tight xyxy boxes of the visible pixels, (N, 4), in pixels; x1 and y1 are exclusive."""
        boxes = np.zeros((len(self.solids), 4), np.float32)
        for box, mask in zip(boxes, self.masks, strict=True):
            columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
            box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
        return boxes

    def matching(self, phrase: str) -> list[int]:
        """Indices of the visible objects that a phrase such as "red cube", "sphere" or "green object" names."""
        return [index for index, solid in enumerate(self.solids) if describes(phrase, solid)]


def describes(phrase: str, solid: Solid) -> bool:
    """Whether every word of the phrase is true of the solid ("object" is true of all)."""
    return all(word in (solid.color, solid.shape, "object") for word in phrase.split())


def phrases() -> list[str]:
    """Everything the world has a name for: colours with and without shape, shapes, and "object"."""
    kinds = [*SHAPES, "object"]
    return kinds + [f"{color} {kind}" for color in COLORS for kind in kinds]


def sample_scene(seed: int, *, min_objects: int = 1, max_objects: int = 5) -> Scene:
    """Draws a scene; the same seed gives the same scene on every machine.

    Objects never touch on the ground, and their centres keep apart in the picture, so that they may overlap but
    none hides another altogether. They lie within the middle 4:3 band of a square view.
    """
    rng = np.random.default_rng(seed)
    camera = _sample_camera(rng)
    count = int(rng.integers(min_objects, max_objects + 1))
    solids: list[Solid] = []
    for _ in range(60 * count):
        if len(solids) == count:
            break
        solid = _sample_solid(rng)
        if _fits(solid, solids, camera):
            solids.append(solid)
    azimuth, elevation = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(45, 75))
    light = (np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation))
    base = rng.uniform(0.45, 0.75) + rng.uniform(-0.04, 0.04, 3)
    contrast = rng.uniform(0.10, 0.22)
    return Scene(
        solids=tuple(solids),
        camera=camera,
        light=(float(light[0]), float(light[1]), float(light[2])),
        ground=(_rgb(base), _rgb(base - contrast)),
    )


def sample_clip(seed: int, frames: int = 40, *, moving: Literal["camera", "object"] = "object") -> Iterator[Scene]:
    """A short clip as one scene a frame: the camera circles the table, or the first object crosses it and back.

    Object order is the same in every frame, so `scene.solids[i]` is one identity throughout.
    """
    scene = sample_scene(seed, min_objects=3)
    heading = np.random.default_rng([seed, 1]).uniform(0, 2 * np.pi)
    first, *others = scene.solids
    for frame in range(frames):
        phase = frame / max(frames - 1, 1)
        if moving == "camera":
            swing = 0.5 * np.sin(2 * np.pi * phase)
            yield replace(scene, camera=replace(scene.camera, azimuth=scene.camera.azimuth + float(swing)))
        else:
            reach = 0.6 * np.sin(2 * np.pi * phase)
            moved = replace(
                first, x=first.x + float(reach * np.cos(heading)), y=first.y + float(reach * np.sin(heading))
            )
            yield replace(scene, solids=(moved, *others))


def render(scene: Scene, width: int = 224, height: int | None = None, *, samples: int = 1) -> View:
    """Ray-traces a scene.

    Args:
        width, height: of the picture in pixels; a square when only the width is given.
        samples: rays across a pixel for the colours (2 gives smooth edges in pictures for people). The truth
            always comes from the ray through the pixel's centre.
    """
    height = height or width
    image, depth, owner = trace(scene, width, height)
    if samples > 1:
        fine, _, _ = trace(scene, width * samples, height * samples)
        image = fine.reshape(height, samples, width, samples, 3).mean((1, 3))
    counts = np.bincount(owner.ravel() + 1, minlength=len(scene.solids) + 1)[1:]
    kept = np.flatnonzero(counts >= MIN_VISIBLE * width * height)
    renumber = np.full(len(scene.solids) + 1, -1, np.int16)
    renumber[kept + 1] = np.arange(len(kept), dtype=np.int16)
    return View(
        image=(np.clip(image, 0, 1) ** (1 / 1.4) * 255 + 0.5).astype(np.uint8),
        depth=depth,
        instances=renumber[owner + 1],
        solids=tuple(scene.solids[index] for index in kept),
        intrinsics=scene.camera.intrinsics(width, height),
        extrinsics=scene.camera.extrinsics(),
    )


def _rgb(values: NDArray[np.float64]) -> tuple[float, float, float]:
    return float(values[0]), float(values[1]), float(values[2])


def _sample_camera(rng: np.random.Generator) -> Camera:
    fov = np.radians(rng.uniform(42, 52))
    # Ten degrees below the horizon at the top edge: every ray meets the ground within GROUND_EXTENT.
    pitch = rng.uniform(fov / 2 + np.radians(10), np.radians(60))
    return Camera(
        distance=float(rng.uniform(1.9, 2.6)),
        pitch=float(pitch),
        azimuth=float(rng.uniform(-np.pi, np.pi)),
        fov=float(fov),
    )


def _sample_solid(rng: np.random.Generator) -> Solid:
    angle, reach = rng.uniform(0, 2 * np.pi), 1.1 * np.sqrt(rng.uniform())
    return Solid(
        shape=SHAPES[rng.integers(len(SHAPES))],
        color=list(COLORS)[rng.integers(len(COLORS))],
        x=float(reach * np.cos(angle)),
        y=float(reach * np.sin(angle)),
        radius=float(rng.uniform(0.16, 0.27)),
        yaw=float(rng.uniform(0, np.pi / 2)),
        tint=float(rng.uniform(-0.08, 0.08)),
    )


def _fits(solid: Solid, others: list[Solid], camera: Camera) -> bool:
    pixel, size = _on_screen(solid, camera)
    if abs(pixel[0]) + size > 0.98 or abs(pixel[1]) + size > 0.74:
        return False
    for other in others:
        if np.hypot(solid.x - other.x, solid.y - other.y) < 1.3 * (solid.radius + other.radius):
            return False
        theirs, their_size = _on_screen(other, camera)
        if np.hypot(*(pixel - theirs)) < 0.75 * (size + their_size):
            return False
    return True


def _on_screen(solid: Solid, camera: Camera) -> tuple[Floats, float]:
    """Centre and half width of a solid in a square view, where the view's edges are at -1 and 1."""
    centre = np.array([solid.x, solid.y, solid.height / 2], np.float32)
    local = camera.rotation() @ (centre - camera.position())
    focal = 1 / np.tan(camera.fov / 2)
    return focal * local[:2] / local[2], float(focal * solid.radius / local[2])
