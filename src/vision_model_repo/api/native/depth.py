"""Depth estimation on the wire."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from vision_model_repo.api.native.images import Picture
from vision_model_repo.api.native.task import Answer, Arrays, Images, NativeTask, Options
from vision_model_repo.api.wire import extend, write, write_base64, write_list, write_object
from vision_model_repo.errors import InvalidInput
from vision_model_repo.formats.depth import (
    DepthPng,
    encode_depth_png,
    export_glb,
    export_npz,
    export_ply,
    intrinsics_from_fov,
    relative_to_distance,
)
from vision_model_repo.formats.drawing import draw_depth
from vision_model_repo.settings import Settings
from vision_model_repo.tasks.depth import DepthRequest, DepthResult

ASSUMED_FIELD_OF_VIEW = 60.0
"""Degrees across the longer side, of a camera that the model says nothing about."""

ExportFormat = Literal["glb", "npz", "ply", "png", "gs_ply", "gs_video"]
Matrix = list[list[float]]
IDENTITY = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]


class DepthOptions(Options):
    """What to make of the depth."""

    export_format: ExportFormat = Field(
        "glb",
        description="File made of every image: glb (textured mesh), ply (coloured points), npz (float32 arrays) or png "
        "(16 bit). gs_ply and gs_video need a model that gives Gaussians.",
        examples=["glb"],
    )


class DepthBody(DepthOptions, Images):
    """Images, and what to make of their depth."""


class Export(BaseModel):
    """A file."""

    format: str = Field(description="Its format.", examples=["glb"])
    data: str = Field(description="Base64 of the file.", examples=["Z2xURgIAAAA..."])


class ImageDepth(BaseModel):
    """The depth of one image."""

    depth: str = Field(
        description="Base64 of a 16-bit gray PNG; depth = value * scale + offset.", examples=["iVBORw0KGgo..."]
    )
    scale: float = Field(description="Depth of one step of the PNG, in the unit.", examples=[0.0002])
    offset: float = Field(description="Depth of the PNG's value 0, in the unit.", examples=[0.8])
    shape: list[int] = Field(description="Height and width in pixels.", examples=[[480, 640]])
    min_depth: float = Field(description="Least depth, in the unit.", examples=[0.8])
    max_depth: float = Field(description="Greatest depth, in the unit.", examples=[13.9])
    unit: Literal["metre", "relative"] = Field(
        description="metre: distance along the optical axis. relative: the model's inverse depth, larger is nearer.",
        examples=["metre"],
    )
    export: Export = Field(description="The file that export_format asks for.")


class DepthMetadata(BaseModel):
    """What the numbers mean; lists have one entry for each image."""

    shape: list[int] = Field(
        description="Images, height, width; of the first image where sizes differ.", examples=[[1, 480, 640]]
    )
    unit: Literal["metre", "relative"] = Field(description="Unit of all depths.", examples=["metre"])
    min_depth: list[float] = Field(description="Least depth, in the unit.", examples=[[0.8]])
    max_depth: list[float] = Field(description="Greatest depth, in the unit.", examples=[[13.9]])
    intrinsics: list[Matrix] = Field(description="Pinhole matrices in pixels, (N, 3, 3).", examples=[[IDENTITY]])
    intrinsics_source: Literal["model", "assumed"] = Field(
        description="Whether the model estimated the intrinsics, or a field of view was assumed.", examples=["assumed"]
    )
    field_of_view: float | None = Field(
        description="Assumed field of view across the longer side, in degrees; null if the model gave intrinsics.",
        examples=[ASSUMED_FIELD_OF_VIEW],
    )
    extrinsics: list[Matrix] | None = Field(
        description="World to camera, (N, 4, 4); null if the model gives none.", examples=[None]
    )


class DepthAnswer(Answer):
    """Depth by image."""

    depth_data: str = Field(
        description="Base64 of a 16-bit gray PNG of the first image's depth.", examples=["iVBORw0KGgo..."]
    )
    format: str = Field(description="The request's export_format.", examples=["glb"])
    metadata: DepthMetadata = Field(description="Shapes, units and cameras.")
    results: list[ImageDepth] = Field(description="For each image, its depth and the file made of it.")


@dataclass(frozen=True, slots=True)
class DepthPart:
    """What is written of one image."""

    png: DepthPng
    export: bytes
    result: DepthResult
    intrinsics: NDArray[np.float32]
    range: tuple[float, float]


class NativeDepth(NativeTask[DepthOptions, DepthRequest, DepthResult, DepthPart]):
    options = DepthOptions
    body = DepthBody
    answer = DepthAnswer
    summary = "Depth estimation"

    def check(self, options: DepthOptions, images: int, limits: Settings) -> None:
        if options.export_format.startswith("gs_"):
            raise InvalidInput(
                f"export_format {options.export_format} needs a model that gives Gaussians, which none here does. "
                "Use glb, ply, npz or png."
            )

    def request(self, options: DepthOptions, index: int, picture: Picture) -> DepthRequest:
        return DepthRequest(picture.pixels, digest=picture.digest)

    def encode(self, options: DepthOptions, request: DepthRequest, result: DepthResult) -> DepthPart:
        intrinsics = _intrinsics(result)
        png = encode_depth_png(result.depth)
        finite = result.depth[np.isfinite(result.depth)]
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
        export = _export(options.export_format, request, result, intrinsics, png)
        return DepthPart(png, export, result, intrinsics, (low, high))

    def join(self, options: DepthOptions, parts: Sequence[DepthPart]) -> bytes:
        first = parts[0].result
        estimated = first.intrinsics is not None
        extrinsics = [part.result.extrinsics.tolist() for part in parts if part.result.extrinsics is not None]
        metadata = DepthMetadata(
            shape=[len(parts), *first.depth.shape],
            unit=first.unit,
            min_depth=[part.range[0] for part in parts],
            max_depth=[part.range[1] for part in parts],
            intrinsics=[part.intrinsics.tolist() for part in parts],
            intrinsics_source="model" if estimated else "assumed",
            field_of_view=None if estimated else ASSUMED_FIELD_OF_VIEW,
            extrinsics=extrinsics or None,
        )
        return write_object(
            depth_data=write_base64(parts[0].png.data),
            format=write(options.export_format),
            metadata=write(metadata),
            results=write_list(_write_image(options.export_format, part) for part in parts),
        )

    def arrays(
        self,
        options: DepthOptions,
        requests: Sequence[DepthRequest],
        results: Sequence[DepthResult],
        limits: Settings,
    ) -> Arrays:
        """`depth_0` is of image 0; `intrinsics` (N, 3, 3) and, where the model gives them, `extrinsics` of all."""
        arrays: Arrays = {f"depth_{index}": result.depth for index, result in enumerate(results)}
        arrays["intrinsics"] = np.stack([_intrinsics(result) for result in results])
        extrinsics = [result.extrinsics for result in results if result.extrinsics is not None]
        if extrinsics:
            arrays["extrinsics"] = np.stack(extrinsics)
        return {**arrays, "unit": np.array(results[0].unit)}

    def draw(self, request: DepthRequest, result: DepthResult) -> NDArray[np.uint8]:
        return draw_depth(_distance(result))


def _intrinsics(result: DepthResult) -> NDArray[np.float32]:
    if result.intrinsics is not None:
        return result.intrinsics
    height, width = result.depth.shape
    return intrinsics_from_fov(width, height, ASSUMED_FIELD_OF_VIEW)


def _distance(result: DepthResult) -> NDArray[np.float32]:
    return result.depth if result.unit == "metre" else relative_to_distance(result.depth)


def _export(
    export_format: ExportFormat,
    request: DepthRequest,
    result: DepthResult,
    intrinsics: NDArray[np.float32],
    png: DepthPng,
) -> bytes:
    if export_format == "glb":
        return export_glb(request.image, _distance(result), intrinsics)
    if export_format == "ply":
        return export_ply(request.image, _distance(result), intrinsics)
    if export_format == "npz":
        return export_npz(result.depth, intrinsics, extrinsics=result.extrinsics)
    return png.data


def _write_image(export_format: ExportFormat, part: DepthPart) -> bytes:
    head = {
        "scale": part.png.scale,
        "offset": part.png.offset,
        "shape": part.result.depth.shape,
        "min_depth": part.range[0],
        "max_depth": part.range[1],
        "unit": part.result.unit,
    }
    export = write_object(format=write(export_format), data=write_base64(part.export))
    return extend(write(head), depth=write_base64(part.png.data), export=export)
