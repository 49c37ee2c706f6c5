"""The API's description. Bodies are parsed from bytes, past FastAPI, so their schemas are added here."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel

from vision_model_repo.api.errors import Problem, ValidationProblem
from vision_model_repo.api.wire import extend, write

REFERENCE = "#/components/schemas/{model}"
FILE_HEADERS = {
    "X-Model-ID": "Checkpoint that answered, percent-encoded.",
    "Server-Timing": "Milliseconds in each stage, and whether the cache was hit for each image.",
}
SECURITY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "api_key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}


def request_body(model: type[BaseModel]) -> dict[str, Any]:
    """`openapi_extra` of a route that reads this model as JSON."""
    return content({"application/json": schema_of(model)})


def content(schemas: dict[str, Any]) -> dict[str, Any]:
    """`openapi_extra` of a route that reads a body by its media type."""
    return {"requestBody": {"required": True, "content": {media: {"schema": s} for media, s in schemas.items()}}}


def binary(media: str) -> dict[str, Any]:
    """A response of a route that may answer with a file, and says in headers what JSON would say beside the results."""
    return {
        "content": {media: {"schema": {"type": "string", "format": "binary"}}},
        "headers": {
            name: {"description": f"{description} Not with JSON.", "schema": {"type": "string"}}
            for name, description in FILE_HEADERS.items()
        },
    }


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema(ref_template=REFERENCE)


def install(app: FastAPI, *, secured: bool) -> None:
    """Completes what FastAPI generates: definitions that bodies and errors refer to, and how to send a key. Call it
    before routes are installed."""
    generate = app.openapi

    def complete() -> dict[str, Any]:
        document = generate()
        components = document.setdefault("components", {})
        schemas = components.setdefault("schemas", {})
        schemas.update({model.__name__: schema_of(model) for model in (Problem, ValidationProblem)})
        for operations in document["paths"].values():
            for operation in operations.values():
                _hoist(operation.get("requestBody", {}), schemas)
        for schema in list(schemas.values()):
            _hoist(schema, schemas)
        if secured:
            components["securitySchemes"] = SECURITY_SCHEMES
            document["security"] = [{name: []} for name in SECURITY_SCHEMES]
        return document

    app.openapi = complete
    own = [route for route in app.router.routes if getattr(route, "path", "") != app.openapi_url]
    app.router.routes[:] = own
    app.add_route(str(app.openapi_url), Description(app).answer, include_in_schema=False)


class Description:
    """Answers `/openapi.json`. It takes a second to make, so that it is made once, and not by the event loop."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._making = asyncio.Lock()
        self._document: bytes | None = None

    async def answer(self, request: Request) -> Response:
        async with self._making:
            if self._document is None:
                self._document = await asyncio.to_thread(lambda: write(self._app.openapi()))
        prefix = request.scope.get("root_path", "").rstrip("/")
        document = extend(self._document, servers=write([{"url": prefix}])) if prefix else self._document
        return Response(document, media_type="application/json")


def _hoist(node: Any, schemas: dict[str, Any]) -> None:
    """Moves the definitions that a schema carries along to where its references point."""
    if isinstance(node, dict):
        schemas.update(node.pop("$defs", {}))
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        _hoist(child, schemas)
