"""From a body to what the engine is asked."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vision_model_repo.api.chat import check_texts, new_tokens
from vision_model_repo.api.native.images import read_image
from vision_model_repo.api.openai.schemas import MAX_STOPS, CompletionBody, ImagePart, Message, TextPart
from vision_model_repo.engine.concurrency import gather_or_cancel
from vision_model_repo.engine.engine import Engine
from vision_model_repo.errors import Busy, InsufficientMemory, InvalidInput, TooLarge, VisionError
from vision_model_repo.settings import Settings
from vision_model_repo.tasks.chat import ChatMessage, ChatRequest, Role

ROLES: dict[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


def check_body(body: CompletionBody, limits: Settings) -> None:
    """Raises InvalidInput or TooLarge for what can be known before any image is fetched or decoded."""
    for name, asked in _unsupported(body).items():
        if asked:
            raise InvalidInput(f"{name} is not supported by this server. Leave it out.")
    if body.n not in (None, 1):
        raise InvalidInput(f"n is {body.n}, and one answer is given to a request. Send several requests.")
    if isinstance(body.stop, list) and len(body.stop) > MAX_STOPS:
        raise InvalidInput(f"stop has {len(body.stop)} texts; at most {MAX_STOPS} are accepted.")
    if len(body.messages) > limits.max_messages:
        raise TooLarge(f"messages has {len(body.messages)} entries; at most {limits.max_messages} are accepted.")
    images = sum(isinstance(part, ImagePart) for message in body.messages for part in _parts(message))
    if images > limits.max_images:
        raise TooLarge(f"The messages have {images} images; at most {limits.max_images} are accepted in one request.")
    check_texts([part for message in body.messages for part in _texts(message)], limits)
    new_tokens(_wanted(body), limits)


def _unsupported(body: CompletionBody) -> dict[str, bool]:
    return {
        "tools": bool(body.tools),
        "functions": bool(body.functions),
        "logprobs": bool(body.logprobs),
        "frequency_penalty": bool(body.frequency_penalty),
        "presence_penalty": bool(body.presence_penalty),
        "logit_bias": bool(body.logit_bias),
        "response_format": (body.response_format or {}).get("type", "text") != "text",
    }


async def read_request(body: CompletionBody, engine: Engine) -> ChatRequest:
    """What the engine is asked, with all images fetched and decoded.

    Raises:
        InvalidInput: an image cannot be had or decoded; the message names its place.
        TooLarge: together they have too many pixels.
    """
    sources = {
        (index, place): part.image_url.url
        for index, message in enumerate(body.messages)
        for place, part in enumerate(_parts(message))
        if isinstance(part, ImagePart)
    }
    pixels = await gather_or_cancel(partial(_read_image, url, where, engine) for where, url in sources.items())
    if sum(image.size for image in pixels) // 3 > engine.settings.max_request_pixels:
        raise TooLarge("The images have too many pixels together for one request. Send fewer or smaller ones.")
    images = dict(zip(sources, pixels, strict=True))
    return ChatRequest(
        messages=tuple(_message(index, message, images) for index, message in enumerate(body.messages)),
        max_new_tokens=new_tokens(_wanted(body), engine.settings),
        temperature=body.temperature or 0.0,
        top_p=1.0 if body.top_p is None else body.top_p,
        seed=body.seed,
        stop=(body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ()),
    )


async def _read_image(url: str, where: tuple[int, int], engine: Engine) -> NDArray[np.uint8]:
    try:
        return (await read_image(url, engine)).pixels
    except (InsufficientMemory, Busy):
        raise
    except VisionError as error:
        index, place = where
        raise InvalidInput(f"messages[{index}].content[{place}].image_url: {error.message}") from error


def _message(index: int, message: Message, images: dict[tuple[int, int], Any]) -> ChatMessage:
    parts = (
        part.text if isinstance(part, TextPart) else images[index, place] for place, part in enumerate(_parts(message))
    )
    return ChatMessage(ROLES[message.role], tuple(parts))


def _parts(message: Message) -> list[TextPart | ImagePart]:
    if isinstance(message.content, str):
        return [TextPart(type="text", text=message.content)]
    return message.content


def _texts(message: Message) -> list[str]:
    return [part.text for part in _parts(message) if isinstance(part, TextPart)]


def _wanted(body: CompletionBody) -> int | None:
    return body.max_completion_tokens or body.max_tokens
