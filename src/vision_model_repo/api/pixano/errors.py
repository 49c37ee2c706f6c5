"""How the contracts tell that a request was refused."""

from __future__ import annotations

from starlette.responses import JSONResponse, Response
from starlette.types import Scope

from vision_model_repo.api.errors import Refusal, write_detail
from vision_model_repo.errors import VisionError

DOCUMENTED_PATHS = ("/inference/", "/app/")
CODES = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    409: "conflict",
    413: "payload_too_large",
    422: "validation_error",
    500: "internal_error",
    503: "unavailable",
    504: "timeout",
}


class Conflict(VisionError):
    """A name that is taken, or memory that is."""

    status = 409


class NotUnderstood(VisionError):
    """A deployment that makes no sense."""

    status = 422


def write_error(refusal: Refusal, scope: Scope, path: str) -> Response:
    """`{"detail": ...}` in the documentation's contract, `{"error": {code, message, requestId}}` in the others."""
    if path.startswith(DOCUMENTED_PATHS):
        return write_detail(refusal)
    error = {
        "code": CODES.get(refusal.status, "error"),
        "message": refusal.detail,
        "requestId": scope.get("state", {}).get("request_id", ""),
    }
    return JSONResponse({"error": error}, refusal.status, refusal.headers)
