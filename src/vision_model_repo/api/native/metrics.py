"""The engine's metrics, for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from prometheus_client.exposition import choose_encoder

from vision_model_repo.api.dependencies import EngineDependency

router = APIRouter(tags=["health"])


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(request: Request, engine: EngineDependency) -> Response:
    """Counters, histograms and gauges as text, in OpenMetrics' form where `Accept` asks for it."""
    encoder, media_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encoder(engine.metrics.registry), headers={"Content-Type": media_type, "Vary": "Accept"})
