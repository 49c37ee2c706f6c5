"""Answers of vision-language models on the wire: one prompt, asked of every image by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from vision_model_repo.api.chat import check_texts, new_tokens
from vision_model_repo.api.json_bounds import AtMost
from vision_model_repo.api.native.images import Picture
from vision_model_repo.api.native.task import Answer, Arrays, Images, NativeTask, Options, Unit
from vision_model_repo.api.wire import write, write_list, write_object
from vision_model_repo.formats.drawing import draw_caption
from vision_model_repo.settings import Settings
from vision_model_repo.tasks.chat import ChatRequest, ChatResult


class ChatOptions(Options):
    """What to ask, and how to answer."""

    repeated: ClassVar[frozenset[str]] = frozenset({"stop"})

    prompt: str = Field(
        min_length=1, description="What to ask of every image.", examples=["How many red objects are there?"]
    )
    max_new_tokens: int | None = Field(
        None, ge=1, description="Most tokens of an answer; 512 if left out.", examples=[64]
    )
    temperature: float = Field(
        0.0, ge=0, le=2, description="0 for the most probable token each time; more for more variety.", examples=[0.7]
    )
    top_p: Unit = Field(1.0, description="Share of the probability to choose tokens from.", examples=[0.9])
    seed: int | None = Field(None, description="Equal seeds give equal answers.", examples=[1])
    stop: Annotated[list[str], AtMost(4)] = Field(
        [], max_length=4, description="Texts before which an answer ends.", examples=[["\n"]]
    )


class ChatBody(ChatOptions, Images):
    """Images, and what to ask of each."""


class ImageAnswer(BaseModel):
    """The answer about one image."""

    text: str = Field(description="The answer.", examples=["three"])
    finish_reason: Literal["stop", "length"] = Field(
        description="`length` where it was cut off at the most tokens.", examples=["stop"]
    )
    prompt_tokens: int = Field(description="Tokens read, those that stand for the image included.", examples=[268])
    completion_tokens: int = Field(description="Tokens written.", examples=[2])


class ChatAnswer(Answer):
    """Answers about all images."""

    results: list[ImageAnswer] = Field(description="For each image, its answer.")


class NativeChat(NativeTask[ChatOptions, ChatRequest, ChatResult, bytes]):
    light = True
    options = ChatOptions
    body = ChatBody
    answer = ChatAnswer
    summary = "Questions about images"

    def check(self, options: ChatOptions, images: int, limits: Settings) -> None:
        check_texts([options.prompt], limits)
        new_tokens(options.max_new_tokens, limits)

    def request(self, options: ChatOptions, index: int, picture: Picture) -> ChatRequest:
        return ChatRequest.ask(
            options.prompt,
            [picture.pixels],
            max_new_tokens=options.max_new_tokens,
            temperature=options.temperature,
            top_p=options.top_p,
            seed=options.seed,
            stop=tuple(options.stop),
        )

    def encode(self, options: ChatOptions, request: ChatRequest, result: ChatResult) -> bytes:
        usage = {"prompt_tokens": result.usage.prompt, "completion_tokens": result.usage.completion}
        return write({"text": result.text, "finish_reason": result.finish_reason, **usage})

    def join(self, options: ChatOptions, parts: Sequence[bytes]) -> bytes:
        return write_object(results=write_list(parts))

    def arrays(
        self, options: ChatOptions, requests: Sequence[ChatRequest], results: Sequence[ChatResult], limits: Settings
    ) -> Arrays:
        """`texts` (images,)."""
        return {"texts": np.array([result.text for result in results], np.str_)}

    def draw(self, request: ChatRequest, result: ChatResult) -> NDArray[np.uint8]:
        [message] = request.messages
        [image], [prompt] = message.images, message.texts
        return draw_caption(image, f"{prompt}\n{result.text}")
