"""Bodies and answers. Fields that change no answer are read over; those that would are refused where they are set."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Discriminator, Field, Tag

from vision_model_repo.api.chat import most_parts
from vision_model_repo.api.json_bounds import AtMost

MAX_STOPS = 4


class ImageUrl(BaseModel):
    """An image."""

    url: str = Field(
        description="`http(s)` URL or `data:` URI of the image.", examples=["data:image/png;base64,iVBORw0KGgo..."]
    )


class TextPart(BaseModel):
    """A text in a message."""

    type: Literal["text"] = Field(description="What it is.", examples=["text"])
    text: str = Field(description="The text.", examples=["What is in this image?"])


class ImagePart(BaseModel):
    """An image in a message."""

    type: Literal["image_url"] = Field(description="What it is.", examples=["image_url"])
    image_url: ImageUrl = Field(description="The image.")


def _kind(value: Any) -> str | None:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return kind if kind in ("text", "image_url") else None


Part = Annotated[
    Annotated[TextPart, Tag("text")] | Annotated[ImagePart, Tag("image_url")],
    Discriminator(
        _kind,
        custom_error_type="content_part",
        custom_error_message="A part of a message is of type text or image_url.",
    ),
]


def _shape(value: Any) -> str | None:
    return "text" if isinstance(value, str) else "parts" if isinstance(value, list) else None


Content = Annotated[
    Annotated[str, Tag("text")] | Annotated[list[Part], AtMost(most_parts, together=True), Tag("parts")],
    Discriminator(
        _shape,
        custom_error_type="content",
        custom_error_message="The content of a message is a string or a list of parts.",
    ),
]


class Message(BaseModel):
    """What one side says."""

    role: Literal["system", "developer", "user", "assistant"] = Field(description="Who says it.", examples=["user"])
    content: Content = Field(description="A text, or texts and images in their order.", examples=["Hello!"])


class StreamOptions(BaseModel):
    """How to stream."""

    include_usage: bool = Field(False, description="End with a chunk that counts the tokens.", examples=[True])


class CompletionBody(BaseModel):
    """A conversation to be continued."""

    model: str = Field(
        description="A model that `GET /v1/models` lists, or the id of a checkpoint of one.", examples=["vlm"]
    )
    messages: Annotated[list[Message], AtMost(lambda limits: limits.max_messages)] = Field(
        min_length=1, description="The conversation so far.", examples=[[{"role": "user", "content": "Hello!"}]]
    )
    max_completion_tokens: int | None = Field(
        None, ge=1, description="Most tokens of the answer; 512 if left out.", examples=[128]
    )
    max_tokens: int | None = Field(None, ge=1, description="The older name of the same.", examples=[128])
    temperature: float | None = Field(
        None, ge=0, le=2, description="0, the default, for the most probable token each time.", examples=[0.7]
    )
    top_p: float | None = Field(
        None, ge=0, le=1, description="Share of the probability to choose tokens from.", examples=[0.9]
    )
    seed: int | None = Field(None, description="Equal seeds give equal answers.", examples=[1])
    stop: str | Annotated[list[str], AtMost(MAX_STOPS)] | None = Field(
        None, description=f"Up to {MAX_STOPS} texts before which the answer ends.", examples=["\n"]
    )
    stream: bool | None = Field(
        None, description="Send the answer as it grows, as server-sent events.", examples=[True]
    )
    stream_options: StreamOptions | None = Field(None, description="How to stream.")
    n: int | None = Field(None, description="Answers; one is given.", examples=[1])
    # Unknown to these models. Null, or the value that changes nothing, is as good as leaving them out.
    tools: Annotated[list[Any], AtMost(128)] | None = Field(None, description="Not supported.", examples=[[]])
    functions: Annotated[list[Any], AtMost(128)] | None = Field(None, description="Not supported.", examples=[[]])
    logprobs: bool | None = Field(None, description="Not supported.", examples=[False])
    frequency_penalty: float | None = Field(None, description="Not supported, unless 0.", examples=[0])
    presence_penalty: float | None = Field(None, description="Not supported, unless 0.", examples=[0])
    logit_bias: dict[str, Any] | None = Field(None, description="Not supported.", examples=[{}])
    response_format: dict[str, Any] | None = Field(
        None, description="Not supported, unless of type text.", examples=[{"type": "text"}]
    )


class AnswerMessage(BaseModel):
    """The answer's text."""

    role: Literal["assistant"] = Field(description="Who says it.", examples=["assistant"])
    content: str = Field(description="The text.", examples=["A red cube."])


class Choice(BaseModel):
    """One answer."""

    index: int = Field(description="0.", examples=[0])
    message: AnswerMessage = Field(description="The answer.")
    finish_reason: Literal["stop", "length"] = Field(description="Why it ends.", examples=["stop"])


class Usage(BaseModel):
    """Tokens, those that stand for images included."""

    prompt_tokens: int = Field(description="Read.", examples=[268])
    completion_tokens: int = Field(description="Written.", examples=[5])
    total_tokens: int = Field(description="Both.", examples=[273])


class Completion(BaseModel):
    """An answer."""

    id: str = Field(description="Its id.", examples=["chatcmpl-3f2a"])
    object: Literal["chat.completion"] = Field(description="What this is.", examples=["chat.completion"])
    created: int = Field(description="When, in seconds since the epoch.", examples=[1767225600])
    model: str = Field(description="The model that was asked for.", examples=["vlm"])
    system_fingerprint: str = Field(description="Checkpoint that answered.", examples=["demo/vlm"])
    choices: list[Choice] = Field(description="The one answer.")
    usage: Usage = Field(description="Tokens.")


def _texts(value: Any) -> str | None:
    if isinstance(value, str):
        return "text"
    return "texts" if isinstance(value, list) and all(isinstance(each, str) for each in value[:1]) else None


Texts = Annotated[
    Annotated[str, Tag("text")] | Annotated[list[str], AtMost(lambda limits: limits.max_texts), Tag("texts")],
    Discriminator(
        _texts,
        custom_error_type="input",
        custom_error_message="The input is a text or a list of texts. Lists of tokens are not read.",
    ),
]


class EmbeddingBody(BaseModel):
    """Texts to embed."""

    model: str = Field(
        description="A model of the task embedding that `GET /v1/models` lists, or the id of a checkpoint of one.",
        examples=["text_embedding"],
    )
    input: Texts = Field(description="A text, or a list of them.", examples=["A red cube."])
    encoding_format: Literal["float", "base64"] | None = Field(
        None, description="Numbers, or the base64 of little-endian float32; numbers if left out.", examples=["float"]
    )
    dimensions: int | None = Field(
        None,
        ge=1,
        description="Components of each vector that are kept, for models trained for it; all if left out.",
        examples=[256],
    )


class Embedding(BaseModel):
    """The vector of one text."""

    object: Literal["embedding"] = Field(description="What this is.", examples=["embedding"])
    index: int = Field(description="Place of the text in the input.", examples=[0])
    embedding: list[float] | str = Field(
        description="The vector, or its base64 as `encoding_format` has it.", examples=[[0.2, -0.4]]
    )


class EmbeddingUsage(BaseModel):
    """Tokens of all texts."""

    prompt_tokens: int = Field(description="Read.", examples=[5])
    total_tokens: int = Field(description="The same.", examples=[5])


class Embeddings(BaseModel):
    """A vector for each text."""

    object: Literal["list"] = Field(description="What this is.", examples=["list"])
    data: list[Embedding] = Field(description="The vectors, in the order of the input.")
    model: str = Field(description="The model that was asked for.", examples=["text_embedding"])
    usage: EmbeddingUsage = Field(description="Tokens.")


class ListedModel(BaseModel):
    """A model that can be asked."""

    id: str = Field(description="Its name.", examples=["vlm"])
    object: Literal["model"] = Field(default="model", description="What this is.", examples=["model"])
    created: int = Field(description="When this server started, in seconds since the epoch.", examples=[1767225600])
    owned_by: str = Field(description="Whose it is, as far as its checkpoint's id says.", examples=["HuggingFaceTB"])


class ModelList(BaseModel):
    """All models that can be asked."""

    object: Literal["list"] = Field(default="list", description="What this is.", examples=["list"])
    data: list[ListedModel] = Field(description="The models.")
