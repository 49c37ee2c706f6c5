"""Vision-language models that another server runs, and offers in OpenAI's protocol: vLLM, or one like this.

Nothing is loaded here, and nothing of that server is imported: it is asked over HTTP, and its answer is handed on as
it grows. Failures of its own are told as such; what it says of a request that it refuses is told to the caller.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import pybase64
from pydantic_core import from_json, to_json

from vision_model_repo.errors import (
    Busy,
    InvalidInput,
    NotFound,
    RemoteFailure,
    RequestTimeout,
    TooLarge,
    VisionError,
)
from vision_model_repo.formats.images import encode_png
from vision_model_repo.models.base import Checkpoint, RemoteModel
from vision_model_repo.models.catalog import REMOTE
from vision_model_repo.tasks.chat import USUAL_NEW_TOKENS, ChatMessage, ChatRequest, ChatResult, Part, TokenUsage

CONNECT_SECONDS = 5.0
AT_ONCE = 64
"""Requests to one server at once; it has a queue of its own."""
LONGEST_MESSAGE = 500
"""Characters of what another server says of an error."""
ERRORS: dict[int, type[VisionError]] = {
    400: InvalidInput,
    404: NotFound,
    408: RequestTimeout,
    413: TooLarge,
    422: InvalidInput,
    429: Busy,
    503: Busy,
    504: RequestTimeout,
}
"""What the caller, or time, can mend. Everything else is a failure there, a key that is refused too."""


class RemoteChat(RemoteModel[ChatRequest, bytes, ChatResult]):
    """A model on another server.

    Args:
        url: of its API, such as "http://gpu:8000/v1".
        key: sent along, where it wants one.
        model_id: what it calls the model; None for the first of its list.

    Raises:
        Busy: the server cannot be reached.
        NotFound: it has no model.
        RemoteFailure: it answers with an error.
    """

    device = REMOTE
    dtype = REMOTE
    max_batch = AT_ONCE

    def __init__(self, url: str, key: str | None, model_id: str | None) -> None:
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        # Reading the certificates takes longer than most of what is asked with them.
        self._certificates = httpx.create_ssl_context()
        self.model_id = model_id or ""
        listed = self._list()
        if not model_id:
            if not listed:
                raise NotFound(f"The server at {self._url} has no model.")
            self.model_id = listed[0]

    def preprocess(self, request: ChatRequest) -> bytes:
        body: dict[str, Any] = {
            "model": self.model_id,
            "messages": [_spelled(message) for message in request.messages],
            "max_tokens": request.max_new_tokens or USUAL_NEW_TOKENS,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if request.seed is not None:
            body["seed"] = request.seed
        if request.stop:
            body["stop"] = list(request.stop)
        return to_json(body)

    async def stream(self, item: bytes) -> AsyncGenerator[ChatResult]:
        text, finish_reason, usage = "", None, TokenUsage(0, 0)
        # How long an answer may take is known to whoever waits for it.
        timeout = httpx.Timeout(None, connect=CONNECT_SECONDS)
        headers = {**self._headers, "Content-Type": "application/json"}
        try:
            async with (
                httpx.AsyncClient(timeout=timeout, verify=self._certificates) as client,
                client.stream("POST", f"{self._url}/chat/completions", content=item, headers=headers) as response,
            ):
                if response.status_code != httpx.codes.OK:
                    raise self._error(response.status_code, await response.aread())
                async for line in response.aiter_lines():
                    chunk = self._chunk(line)
                    usage = _usage(chunk) or usage
                    for choice in chunk.get("choices", ()):
                        text += choice.get("delta", {}).get("content") or ""
                        finish_reason = choice.get("finish_reason") or finish_reason
                    if not finish_reason:
                        yield ChatResult(text, None, usage)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from None
        if not finish_reason:
            raise RemoteFailure(f"The server that runs {self.model_id} broke off its answer.")
        yield ChatResult(text, "length" if finish_reason == "length" else "stop", usage)

    def memory_bytes(self) -> int:
        """0: it is the memory of another server."""
        return 0

    def unload(self) -> None:
        """Nothing is held here."""

    def _list(self) -> list[str]:
        """The models that the server has."""
        try:
            response = httpx.get(
                f"{self._url}/models", headers=self._headers, timeout=CONNECT_SECONDS, verify=self._certificates
            )
        except httpx.HTTPError as error:
            raise self._unreachable(error) from None
        if response.status_code != httpx.codes.OK:
            raise self._error(response.status_code, response.content)
        try:
            return [str(model["id"]) for model in from_json(response.content)["data"]]
        except (ValueError, KeyError, TypeError):
            raise RemoteFailure(f"{self._url} does not list models as OpenAI's protocol has it.") from None

    def _chunk(self, line: str) -> dict[str, Any]:
        """What a line of the stream says; nothing where it is none of a chunk. Raises what an error in it means."""
        data = line.removeprefix("data:").strip()
        if not line.startswith("data:") or data == "[DONE]":
            return {}
        try:
            chunk = from_json(data)
        except ValueError:
            chunk = None
        if not isinstance(chunk, dict):
            raise RemoteFailure(f"The server that runs {self.model_id} sent what is no chunk of an answer.")
        if (error := chunk.get("error")) is not None:
            code = error.get("code") if isinstance(error, dict) else None
            raise self._error(code if isinstance(code, int) else 500, data.encode())
        return chunk

    def _error(self, status: int, body: bytes) -> VisionError:
        message = _message(body)
        if kind := ERRORS.get(status):
            return kind(message or f"The server that runs {self.model_id} answers with status {status}.")
        return RemoteFailure(f"The server that runs {self.model_id} answers with status {status}. {message}".strip())

    def _unreachable(self, error: httpx.HTTPError) -> Busy:
        reason = type(error).__name__
        return Busy(
            f"The server that runs {self.model_id or 'the model'} cannot be reached ({reason}). Try again later.",
            retry_after=10,
        )


def load(
    checkpoint: Checkpoint, *, device: str, dtype: str, url: str, key_env: str | None, remote_id: str | None
) -> RemoteChat:
    """Reaches for a model on another server.

    Args:
        url: of its API.
        key_env: name of the environment variable that has the key for it.
        remote_id: what it calls the model; None for the first of its list.

    Raises:
        What `RemoteChat` raises.
    """
    return RemoteChat(url, os.environ.get(key_env) if key_env else None, remote_id)


def _spelled(message: ChatMessage) -> dict[str, Any]:
    return {"role": message.role, "content": [_spelled_part(part) for part in message.parts]}


def _spelled_part(part: Part) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    picture = pybase64.b64encode(encode_png(part)).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}}


def _usage(chunk: dict[str, Any]) -> TokenUsage | None:
    usage = chunk.get("usage")
    if not isinstance(usage, dict):
        return None
    return TokenUsage(int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0))


def _message(body: bytes) -> str:
    """What a server says of an error, in OpenAI's words or in those of older vLLM; empty for anything else."""
    try:
        said = from_json(body)
    except ValueError:
        return ""
    error = said.get("error", said) if isinstance(said, dict) else said
    message = error.get("message") if isinstance(error, dict) else error
    return message[:LONGEST_MESSAGE] if isinstance(message, str) else ""
