"""Vision-language models on the wire: a prompt or chat messages, and images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vision_model_repo.api.chat import most_parts
from vision_model_repo.api.json_bounds import AtMost
from vision_model_repo.api.pixano.media import Media, read_picture
from vision_model_repo.api.pixano.task import Capability, CapabilityRequest
from vision_model_repo.api.pixano.wire import WireModel
from vision_model_repo.engine.concurrency import gather_or_cancel
from vision_model_repo.engine.engine import Engine
from vision_model_repo.errors import InvalidInput, TooLarge
from vision_model_repo.models.catalog import ModelSpec
from vision_model_repo.settings import Settings
from vision_model_repo.tasks.chat import ChatMessage, ChatRequest, ChatResult, Part

Image = NDArray[np.uint8]
IMAGE_TYPES = ("image", "image_url")
SECONDS = 300.0
"""Time for an answer, where the deployment says nothing."""


class ChatPart(WireModel):
    """A text, or an image: by itself, or the next one of `images`."""

    type: Literal["text", "image", "image_url"] = Field(description="What it is.", examples=["text"])
    text: str | None = Field(None, description="The text.", examples=["What is this?"])
    image: str | None = Field(
        None, description="URL or data URI of the image.", examples=["data:image/png;base64,iVBORw0KGgo..."]
    )
    url: str | None = Field(
        None, description="The same, under another name.", examples=["https://example.com/image.jpg"]
    )
    image_url: str | dict[str, Any] | None = Field(
        None,
        alias="image_url",
        description="The same, as OpenAI's clients write it.",
        examples=[{"url": "https://example.com/image.jpg"}],
    )

    @property
    def media(self) -> str | None:
        """The image, where the part has one itself."""
        given = self.image_url.get("url") if isinstance(self.image_url, dict) else self.image_url
        return self.image or self.url or (given if isinstance(given, str) else None)


class PixanoMessage(WireModel):
    """What one side of a conversation says."""

    role: Literal["system", "user", "assistant"] = Field(description="Which side.", examples=["user"])
    content: str | Annotated[list[ChatPart], AtMost(most_parts, together=True)] = Field(
        description="What it says.", examples=["What is this?"]
    )

    @property
    def parts(self) -> list[ChatPart]:
        if isinstance(self.content, str):
            return [ChatPart.model_validate({"type": "text", "text": self.content})]
        return self.content


class PixanoVlmRequest(CapabilityRequest):
    """A prompt about images, or a conversation to be continued."""

    prompt: str | Annotated[list[PixanoMessage], AtMost(lambda limits: limits.max_messages)] = Field(
        description="A prompt, or chat messages, which may hold images.", examples=["How many red objects are there?"]
    )
    images: Annotated[list[str], AtMost(lambda limits: limits.max_images)] | None = Field(
        None, description="Images, each a URL or a data URI.", examples=[["https://example.com/cat.jpg"]]
    )
    max_new_tokens: int = Field(ge=1, le=100_000, description="Most tokens of the answer.", examples=[32])
    temperature: float = Field(
        1.0, ge=0, le=100, description="0 for the most probable token each time.", examples=[0.0]
    )

    @property
    def messages(self) -> list[PixanoMessage]:
        return [PixanoMessage(role="user", content=self.prompt)] if isinstance(self.prompt, str) else self.prompt


class PixanoVlm(Capability[PixanoVlmRequest]):
    name: ClassVar[str] = "vlm"
    light: ClassVar[bool] = True
    media: ClassVar[str | None] = "images"
    seconds: ClassVar[float | None] = SECONDS
    body = PixanoVlmRequest

    def most_files(self, limits: Settings) -> int:
        return limits.max_images

    async def answer(self, engine: Engine, spec: ModelSpec, body: PixanoVlmRequest, files: Sequence[Media]) -> Any:
        places = [part for message in body.messages for part in message.parts if part.type in IMAGE_TYPES]
        given = list(files) or list(body.images or [])
        media = _in_order(places, given)
        if len(media) > engine.settings.max_images:
            raise TooLarge(f"There are {len(media)} images; at most {engine.settings.max_images} are accepted.")
        calls = [partial(read_picture, image, engine, f"images[{index}]") for index, image in enumerate(media)]
        images = await gather_or_cancel(calls)
        messages = _messages(
            body.messages, images[: len(media) - len(places)], iter(images[len(media) - len(places) :])
        )
        request = ChatRequest(messages, body.max_new_tokens, body.temperature)
        answer = await engine.manager.run(spec.model_type, [request])
        result: ChatResult = answer.results[0]
        return {
            "generated_text": result.text,
            "usage": {
                "prompt_tokens": result.usage.prompt,
                "completion_tokens": result.usage.completion,
                "total_tokens": result.usage.prompt + result.usage.completion,
            },
            "generation_config": {"max_new_tokens": body.max_new_tokens, "temperature": body.temperature},
        }


def _in_order(places: Sequence[ChatPart], given: list[Media]) -> list[Media]:
    """First the images that no part has a place for, then those of the parts. Raises InvalidInput for one too few."""
    empty = sum(part.media is None for part in places)
    if empty > len(given):
        raise InvalidInput(f"The messages have places for {empty} images without one; images has {len(given)}.")
    free, left = given[: len(given) - empty], iter(given[len(given) - empty :])
    return [*free, *(part.media or next(left) for part in places)]


def _messages(
    messages: Sequence[PixanoMessage], free: Sequence[Image], placed: Iterator[Image]
) -> tuple[ChatMessage, ...]:
    """The conversation; images without a place come first in what the user says first."""
    told: list[ChatMessage] = []
    for message in messages:
        parts: list[Part] = [part.text or "" if part.type == "text" else next(placed) for part in message.parts]
        if free and message.role == "user":
            parts, free = [*free, *parts], ()
        told.append(ChatMessage(message.role, tuple(parts)))
    if free:
        raise InvalidInput("There are images, but no message of the user that they could belong to.")
    return tuple(told)
