"""How the protocol tells that a request was refused."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse, Response
from starlette.types import Scope

from vision_model_repo.api.errors import Refusal

INVALID = "invalid_request_error"
KINDS = {
    401: ("authentication_error", "invalid_api_key"),
    403: ("permission_error", None),
    404: (INVALID, "not_found"),
    413: (INVALID, "too_large"),
    429: ("rate_limit_error", "rate_limit_exceeded"),
    503: ("server_error", "overloaded"),
    504: ("server_error", "timeout"),
}
"""Type and code by status; others are the caller's mistake or ours, as the status has it."""


def error_document(refusal: Refusal) -> dict[str, Any]:
    """`{"error": {message, type, param, code}}`"""
    kind, code = KINDS.get(refusal.status, ("server_error" if refusal.status >= 500 else INVALID, None))
    message, param = refusal.detail, None
    if isinstance(message, list):
        param = ".".join(map(str, message[0]["loc"][1:])) or None
        message = "; ".join(f"{'.'.join(map(str, each['loc'][1:])) or 'body'}: {each['msg']}" for each in message)
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def write_error(refusal: Refusal, scope: Scope, path: str) -> Response:
    """A body that does not fit is a bad request here like any other."""
    status = 400 if refusal.status == 422 else refusal.status
    return JSONResponse(error_document(refusal), status, refusal.headers)
