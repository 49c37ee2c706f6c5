"""Whether the server is well, and what it has done."""

from __future__ import annotations

from fastapi import Request, Response

from vision_model_repo.api.dependencies import EngineDependency, prefers
from vision_model_repo.api.ingrain.schemas import IngrainMessage, IngrainMetrics
from vision_model_repo.api.ingrain.statistics import statistics
from vision_model_repo.api.native import metrics as prometheus
from vision_model_repo.api.protocols import OPEN, READ
from vision_model_repo.api.router import Router
from vision_model_repo.api.wire import write

SCRAPED = ("application/openmetrics-text", "text/plain")

router = Router(tags=["ingrain"])


@router.get(
    "/health",
    policy=OPEN,
    responses={503: {"model": IngrainMessage, "description": "The thread of a device has died."}},
)
async def health(engine: EngineDependency, response: Response) -> IngrainMessage:
    """Answers within milliseconds, whatever the models are doing."""
    if engine.manager.healthy:
        return IngrainMessage(message="The inference server is running.")
    response.status_code = 503
    return IngrainMessage(message="The thread of a device has died. Restart the server.")


@router.get("/metrics", policy=READ, response_model=IngrainMetrics)
async def metrics(request: Request, engine: EngineDependency) -> Response:
    """What each model has done, as JSON; all counters as text for clients that want that rather."""
    if any(prefers(request, media, over="application/json") for media in SCRAPED):
        return await prometheus.metrics(request, engine)
    return Response(write(statistics(engine)), media_type="application/json", headers={"Vary": "Accept"})
