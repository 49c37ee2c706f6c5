"""Bodies and answers. Bodies take namesLikeThis and names_like_this, answers are written in the former."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from vision_model_repo.api.json_bounds import AtMost

Library = Literal["open_clip", "sentence_transformers", "timm"]
Texts = Annotated[list[str], AtMost(lambda limits: limits.max_texts)]
ImageList = Annotated[list[str], AtMost(lambda limits: limits.max_images)]
State = Literal["READY", "UNAVAILABLE"]

IMAGE = "`http(s)` URL or base64 of an image, with or without a `data:` prefix, or a list of such."


class IngrainModel(BaseModel):
    """A schema that reads either spelling, the camelCase one first; unknown fields are ignored."""

    # Of names that begin with model_ pydantic would warn.
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, protected_namespaces=())


class Named(IngrainModel):
    """Which model is meant."""

    name: str = Field(description="Model name, as it was loaded.", examples=["intfloat/e5-small-v2"])


class IngrainLoad(Named):
    """Which model to load, and of what kind it is."""

    library: Library = Field(
        description="sentence_transformers for texts, open_clip for texts and images, timm for classes of images.",
        examples=["sentence_transformers"],
    )


class Vectors(Named):
    """How vectors are wanted."""

    normalize: bool | None = Field(
        True, description="Scale every vector to unit length; null means no.", examples=[True]
    )
    n_dims: int | None = Field(
        None,
        description="Components of each vector that are kept, for models trained for it; all if null.",
        examples=[256],
    )


class Downloads(IngrainModel):
    """How images are fetched."""

    image_download_headers: dict[str, Any] | None = Field(
        None,
        description="Headers for the server that an image's URL names.",
        examples=[{"Authorization": "KEY"}],
    )


class IngrainTexts(Vectors):
    """Texts to embed."""

    text: str | Texts = Field(description="A text, or a list of them.", examples=["sample text"])


class IngrainImages(Vectors, Downloads):
    """Images to embed."""

    image: str | ImageList = Field(description=IMAGE, examples=["https://example.com/image.jpg"])


class IngrainPairs(Vectors, Downloads):
    """Texts and images to embed, either or both."""

    text: str | Texts | None = Field(None, description="A text, or a list of them.", examples=["sample text"])
    image: str | ImageList | None = Field(None, description=IMAGE, examples=["https://example.com/image.jpg"])


class IngrainClassification(Named, Downloads):
    """Images to classify."""

    image: str | ImageList = Field(description=IMAGE, examples=["https://example.com/image.jpg"])


class IngrainMessage(IngrainModel):
    """What happened. Clients accept no other key beside it."""

    message: str = Field(description="What happened.", examples=["Model intfloat/e5-small-v2 loaded successfully."])


class Timed(IngrainModel):
    """An answer of a model."""

    processing_time_ms: float = Field(description="Time of preparation and inference in ms.", examples=[15.2])


class IngrainVectors(Timed):
    """A vector for each text or image."""

    embeddings: list[list[float]] = Field(description="Vectors in the order of the request.", examples=[[[0.2, -0.4]]])


class IngrainJointVectors(Timed):
    """A vector for each text and each image."""

    text_embeddings: list[list[float]] | None = Field(
        description="Of the texts; null if there are none.", examples=[[[0.2]]]
    )
    image_embeddings: list[list[float]] | None = Field(
        description="Of the images; null if there are none.", examples=[[[0.3]]]
    )


class IngrainProbabilities(Timed):
    """How probable each class is."""

    probabilities: list[list[float]] = Field(
        description="For each image those of all classes, in the order of the model's labels.", examples=[[[0.9, 0.1]]]
    )


class LoadedModel(Named):
    """A model in memory."""

    library: Library = Field(description="Its kind.", examples=["sentence_transformers"])


class LoadedModels(IngrainModel):
    """Models in memory."""

    models: list[LoadedModel] = Field(description="The models.")


class RepositoryModel(LoadedModel):
    """A model that can be asked, or loaded again."""

    state: State | None = Field(
        description="READY in memory; null for one that nobody has loaded by name.", examples=["READY"]
    )


class RepositoryModels(IngrainModel):
    """Models that the server knows by name."""

    models: list[RepositoryModel] = Field(description="The models.")


class EmbeddingSize(IngrainModel):
    """How long a model's vectors are."""

    embedding_size: int = Field(description="Components of a vector.", examples=[384])


class ClassificationLabels(IngrainModel):
    """The classes of a classifier. Clients accept no other key beside it."""

    labels: list[str] = Field(description="Their names, in the order of the probabilities.", examples=[["palace"]])


class IngrainMetrics(IngrainModel):
    """What models have done since the server started."""

    model_stats: list[dict[str, Any]] = Field(
        description="One entry for each model that was used or is in memory. Whole numbers are strings, null is none.",
        examples=[[{"name": "intfloat/e5-small-v2", "inferenceCount": "48"}]],
    )
