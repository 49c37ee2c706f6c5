"""The engine's metrics: text for Prometheus, or JSON for those who ask for it, of the same registry."""

from __future__ import annotations

from fastapi import Request, Response
from prometheus_client.exposition import choose_encoder

from vision_model_repo.api.dependencies import EngineDependency, prefers
from vision_model_repo.api.ingrain.statistics import statistics
from vision_model_repo.api.protocols import READ
from vision_model_repo.api.router import Router
from vision_model_repo.api.wire import write

router = Router(tags=["health"])


@router.get(
    "/metrics",
    policy=READ,
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(request: Request, engine: EngineDependency) -> Response:
    """Counters, histograms and gauges as text, in OpenMetrics' form where `Accept` asks for it.

    With `Accept: application/json` it tells what each model has done, as `GET /ingrain/metrics` does.
    """
    if prefers(request, "application/json", over="text/plain"):
        return Response(write(statistics(engine)), media_type="application/json", headers={"Vary": "Accept"})
    encoder, media_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encoder(engine.metrics.registry), headers={"Content-Type": media_type, "Vary": "Accept"})
