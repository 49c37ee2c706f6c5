"""Embeddings of texts."""

from __future__ import annotations

from fastapi import Request, Response

from vision_model_repo.api.dependencies import engine_of, read_json
from vision_model_repo.api.embedding import MAX_NUMBERS_AT_ONCE, check_texts, embed, write_vectors
from vision_model_repo.api.errors import describe
from vision_model_repo.api.openai.models import find_model
from vision_model_repo.api.openai.schemas import EmbeddingBody, Embeddings
from vision_model_repo.api.openapi import request_body
from vision_model_repo.api.protocols import INFER
from vision_model_repo.api.router import DirectRoute, Router
from vision_model_repo.api.wire import extend, write, write_base64, write_list, write_object
from vision_model_repo.tasks.embedding import EmbeddingResult, shorten

router = Router(
    tags=["openai"],
    responses=describe(400, 401, 403, 404, 413, 415, 429, 500, 503, 504, 507),
    route_class=DirectRoute,
)


@router.post("/v1/embeddings", policy=INFER, response_model=Embeddings, openapi_extra=request_body(EmbeddingBody))
async def create_embeddings(request: Request) -> Response:
    """Embeds texts: a vector of unit length for each, near those of like meaning."""
    body, engine = await read_json(request, EmbeddingBody), engine_of(request)
    spec, model_id = find_model(engine.manager.catalog, body.model, "embedding")
    texts = (body.input,) if isinstance(body.input, str) else tuple(body.input)
    check_texts(texts, engine.settings, field="input")
    engine.manager.check_available(spec.model_type, model_id)
    said, _ = await embed(engine, spec, texts, model_id=model_id)
    assert said is not None
    vectors = shorten(said.vectors, body.dimensions, normalize=engine.settings.renormalize_shortened)
    result = EmbeddingResult(vectors, tokens=said.tokens)
    if vectors.size <= MAX_NUMBERS_AT_ONCE:
        document = _write(body, result)
    else:
        document = await engine.pixels.run(_write, body, result)
    return Response(document, media_type="application/json")


def _write(body: EmbeddingBody, result: EmbeddingResult) -> bytes:
    write_one = write_base64 if body.encoding_format == "base64" else write_vectors
    entries = (
        write_object(object=b'"embedding"', index=b"%d" % index, embedding=write_one(vector))
        for index, vector in enumerate(result.vectors)
    )
    usage = {"prompt_tokens": result.tokens, "total_tokens": result.tokens}
    return extend(write({"object": "list", "model": body.model, "usage": usage}), data=write_list(entries))
