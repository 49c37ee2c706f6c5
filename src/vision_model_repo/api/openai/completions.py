"""Chat completions: whole, or bit by bit as server-sent events."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from fastapi import Request, Response
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from vision_model_repo.api.dependencies import EngineDependency, read_json
from vision_model_repo.api.errors import describe, refusal_of
from vision_model_repo.api.openai.conversation import check_body, read_request
from vision_model_repo.api.openai.errors import error_document
from vision_model_repo.api.openai.models import find_model
from vision_model_repo.api.openai.schemas import Completion, CompletionBody
from vision_model_repo.api.openapi import request_body
from vision_model_repo.api.protocols import INFER
from vision_model_repo.api.router import Router
from vision_model_repo.api.wire import write
from vision_model_repo.tasks.chat import ChatResult

router = Router(tags=["openai"], responses=describe(400, 401, 403, 404, 413, 415, 429, 500, 503, 504, 507))
EVENTS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}, "description": "The answer, or its chunks."}
}
DONE = b"data: [DONE]\n\n"

Results = AsyncGenerator[tuple[ChatResult, str]]


class EventStream(StreamingResponse):
    """Server-sent events.

    Args:
        source: what they are made of; closed with the response, whatever ends it.
    """

    def __init__(self, events: AsyncGenerator[bytes], source: Results) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        self._events = events
        self._source = source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._source), aclosing(self._events):
            await super().__call__(scope, receive, send)


@dataclass(frozen=True, slots=True)
class Head:
    """What the answer and every chunk of it say of themselves."""

    id: str
    created: int
    model: str

    @classmethod
    def of(cls, model: str) -> Head:
        return cls(f"chatcmpl-{uuid4().hex}", int(time.time()), model)

    def document(self, kind: str, model_id: str, choices: list[Any], **more: Any) -> dict[str, Any]:
        head = {"id": self.id, "object": kind, "created": self.created, "model": self.model}
        return {**head, "system_fingerprint": model_id, "choices": choices, **more}


@router.post(
    "/v1/chat/completions",
    policy=INFER,
    response_model=Completion,
    responses=EVENTS,
    openapi_extra=request_body(CompletionBody),
)
async def complete(request: Request, engine: EngineDependency) -> Response:
    """Continues a conversation about images; with `stream`, in chunks that end with `[DONE]`."""
    body = await read_json(request, CompletionBody)
    spec, model_id = find_model(engine.manager.catalog, body.model, "chat")
    check_body(body, engine.settings)
    engine.manager.check_available(spec.model_type, model_id)
    asked = await read_request(body, engine)
    head = Head.of(body.model)
    if not body.stream:
        answer = await engine.manager.run(spec.model_type, [asked], model_id=model_id)
        return Response(write(_whole(head, answer.results[0], answer.model_id)), media_type="application/json")
    results = engine.manager.stream(spec.model_type, asked, model_id=model_id)
    # What is wrong with a request shows before its first token, and can still be told by a status.
    first = await anext(results)
    with_usage = body.stream_options is not None and body.stream_options.include_usage
    return EventStream(_events(head, first, results, with_usage), results)


def _whole(head: Head, result: ChatResult, model_id: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": result.text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": result.finish_reason}
    return head.document("chat.completion", model_id, [choice], usage=_usage(result))


async def _events(
    head: Head, first: tuple[ChatResult, str], results: Results, with_usage: bool
) -> AsyncGenerator[bytes]:
    """Chunks of what is new in each result."""
    result, model_id = first
    more: dict[str, Any] = {"usage": None} if with_usage else {}

    def chunk(delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return _event(head.document("chat.completion.chunk", model_id, [choice], **more))

    yield chunk({"role": "assistant", "content": ""})
    sent = 0
    try:
        while True:
            if len(result.text) > sent:
                yield chunk({"content": result.text[sent:]})
                sent = len(result.text)
            if result.finish_reason is not None:
                break
            result, _ = await anext(results)
    except Exception as error:
        # The status is sent already; this is how clients of the protocol learn of it.
        yield _event(error_document(refusal_of(error)))
        return
    yield chunk({}, result.finish_reason)
    if with_usage:
        yield _event(head.document("chat.completion.chunk", model_id, [], usage=_usage(result)))
    yield DONE


def _usage(result: ChatResult) -> dict[str, int]:
    prompt, completion = result.usage.prompt, result.usage.completion
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _event(document: dict[str, Any]) -> bytes:
    return b"data: " + write(document) + b"\n\n"
