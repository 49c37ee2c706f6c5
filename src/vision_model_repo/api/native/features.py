"""Features on the wire."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from vision_model_repo.api.json_bounds import AtMost
from vision_model_repo.api.native.images import Picture
from vision_model_repo.api.native.task import Answer, Arrays, Images, NativeTask, Options, check_listed
from vision_model_repo.api.wire import extend, write, write_array, write_base64, write_list, write_object
from vision_model_repo.errors import InvalidInput
from vision_model_repo.formats.drawing import draw_similarity
from vision_model_repo.settings import Settings
from vision_model_repo.tasks.features import FeatureRequest, FeatureResult

FeatureName = Literal["last_hidden_state", "pooler_output"]


class FeatureOptions(Options):
    """Which features to give, and how."""

    repeated: ClassVar[frozenset[str]] = frozenset({"include"})

    include: Annotated[list[FeatureName], AtMost(2)] = Field(
        ["last_hidden_state", "pooler_output"],
        min_length=1,
        description="Which features to give: of every token, of the whole image, or both.",
        examples=[["pooler_output"]],
    )
    encoding: Literal["list", "base64"] = Field(
        "list",
        description="Nested lists, or base64 of little-endian numbers in order of the shape, five times smaller.",
        examples=["base64"],
    )
    dtype: Literal["float32", "float16"] = Field(
        "float32", description="Number format of the base64 encoding and of an .npz file.", examples=["float16"]
    )
    normalize: bool = Field(False, description="Scale every feature vector to unit length.", examples=[True])


class FeatureBody(FeatureOptions, Images):
    """Images, and which features of them to give."""


class FeatureArrays(BaseModel):
    """Features of all images; those not asked for are left out."""

    last_hidden_state: list[list[list[float]]] | str | None = Field(
        None,
        description="Features of every token, (images, tokens, dim): class token, registers, then the patches by row.",
        examples=[[[[0.12, -0.53], [0.08, 0.91]]]],
    )
    pooler_output: list[list[float]] | str | None = Field(
        None, description="One feature vector for each image, (images, dim).", examples=[[[0.12, -0.53]]]
    )


class FeatureAnswer(Answer):
    """Features of all images."""

    features: FeatureArrays = Field(description="The features.")
    last_hidden_state_shape: list[int] = Field(description="Images, tokens, dim.", examples=[[1, 201, 768]])
    pooler_output_shape: list[int] = Field(description="Images, dim.", examples=[[1, 768]])
    patch_grid: list[int] = Field(
        description="Rows and columns of the patches, which are the last tokens of an image.", examples=[[14, 14]]
    )
    encoding: Literal["list", "base64"] = Field(description="How the features are written.", examples=["list"])
    dtype: Literal["float32", "float16"] = Field(description="Number format of the base64.", examples=["float32"])


class NativeFeatures(NativeTask[FeatureOptions, FeatureRequest, FeatureResult, FeatureResult]):
    options = FeatureOptions
    body = FeatureBody
    answer = FeatureAnswer
    summary = "Feature extraction"

    def check(self, options: FeatureOptions, images: int, limits: Settings) -> None:
        """Nothing can be wrong that the schema does not see."""

    def request(self, options: FeatureOptions, index: int, picture: Picture) -> FeatureRequest:
        return FeatureRequest(picture.pixels, normalize=options.normalize, digest=picture.digest)

    def check_results(self, options: FeatureOptions, results: Sequence[FeatureResult], limits: Settings) -> None:
        _check_tokens(options, results)
        if options.encoding == "list":
            values = sum(getattr(result, name).size for result in results for name in set(options.include))
            check_listed(values, limits, "Ask for encoding base64 instead.")

    def encode(self, options: FeatureOptions, request: FeatureRequest, result: FeatureResult) -> FeatureResult:
        return result

    def join(self, options: FeatureOptions, parts: Sequence[FeatureResult]) -> bytes:
        first = parts[0]
        features = {name: _write_features(parts, name, options) for name in dict.fromkeys(options.include)}
        head = {
            "last_hidden_state_shape": [len(parts), *first.last_hidden_state.shape],
            "pooler_output_shape": [len(parts), *first.pooler_output.shape],
            "patch_grid": first.grid,
            "encoding": options.encoding,
            "dtype": options.dtype,
        }
        return extend(write(head), features=write_object(**features))

    def arrays(
        self,
        options: FeatureOptions,
        requests: Sequence[FeatureRequest],
        results: Sequence[FeatureResult],
        limits: Settings,
    ) -> Arrays:
        """The included features as (images, ...) of the dtype that is asked for, and `patch_grid`."""
        _check_tokens(options, results)
        arrays: Arrays = {name: _stack(results, name, options) for name in dict.fromkeys(options.include)}
        return {**arrays, "patch_grid": np.array(results[0].grid)}

    def draw(self, request: FeatureRequest, result: FeatureResult) -> NDArray[np.uint8]:
        """How alike every patch is to the one in the middle of the image, by the cosine of their features."""
        rows, columns = result.grid
        patches = result.last_hidden_state[-rows * columns :]
        unit = patches / np.maximum(np.linalg.norm(patches, axis=1, keepdims=True), 1e-12)
        grid = unit.reshape(rows, columns, -1)
        return draw_similarity(request.image, grid @ grid[rows // 2, columns // 2])


def _check_tokens(options: FeatureOptions, results: Sequence[FeatureResult]) -> None:
    tokens = {len(result.last_hidden_state) for result in results}
    if "last_hidden_state" in options.include and len(tokens) > 1:
        raise InvalidInput(
            f"The images give different numbers of tokens ({', '.join(map(str, sorted(tokens)))}), which make no "
            "array. Send images of one size, one at a time, or ask for include pooler_output only."
        )


def _write_features(results: Sequence[FeatureResult], name: FeatureName, options: FeatureOptions) -> bytes:
    if options.encoding == "list":
        return write_list(write_array(getattr(result, name)) for result in results)
    return write_base64(_stack(results, name, options))


def _stack(results: Sequence[FeatureResult], name: FeatureName, options: FeatureOptions) -> NDArray[np.floating]:
    """One of the features of all images, little-endian."""
    stacked = np.stack([getattr(result, name) for result in results])
    return stacked.astype("<f4" if options.dtype == "float32" else "<f2", copy=False)
