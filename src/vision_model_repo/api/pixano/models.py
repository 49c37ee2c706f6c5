"""Models: what is deployed, deploying and undeploying, and what each has done."""

from __future__ import annotations

from fastapi import Request
from pydantic import ValidationError

from vision_model_repo.api.dependencies import EngineDependency, read_json
from vision_model_repo.api.errors import describe
from vision_model_repo.api.pixano.body import describe_json
from vision_model_repo.api.pixano.deployed import listed, model_of
from vision_model_repo.api.pixano.errors import Conflict, NotUnderstood
from vision_model_repo.api.pixano.schemas import PixanoDeployment, PixanoModel, PixanoStats, Undeployed
from vision_model_repo.api.pixano.task import capability_of
from vision_model_repo.api.pixano.tracking import SUFFIX
from vision_model_repo.api.protocols import MANAGE, READ
from vision_model_repo.api.router import Router
from vision_model_repo.deployments import pixano_spec
from vision_model_repo.errors import InsufficientMemory, NotFound
from vision_model_repo.models.catalog import Catalog, ModelSpec

router = Router(prefix="/v1/models", tags=["pixano models"], responses=describe(401, 404, 422, 429))


@router.get("", policy=READ)
async def list_models(engine: EngineDependency) -> list[PixanoModel]:
    """Lists the models that answer requests of this protocol; one that finds objects again as one that tracks them."""
    return listed(engine)


@router.post(
    "",
    policy=MANAGE,
    status_code=201,
    openapi_extra=describe_json(PixanoDeployment),
    responses=describe(403, 409, 415, 422, 503),
)
async def deploy(request: Request, engine: EngineDependency) -> PixanoModel:
    """Deploys a model under a name of its own and loads it."""
    body = await read_json(request, PixanoDeployment, strict=False)
    spec = _spec(body, engine.manager.catalog, plugins=engine.settings.pixano_deploy_plugins)
    try:
        return model_of(engine, await engine.manager.deploy(spec))
    except InsufficientMemory as error:
        raise Conflict(error.message) from None


@router.delete("/{name}", policy=MANAGE, responses=describe(409))
async def undeploy(engine: EngineDependency, name: str) -> Undeployed:
    """Forgets a deployment and, after its requests in flight, frees its memory."""
    spec = _deployed(name, engine.manager.catalog)
    if name not in engine.manager.catalog:
        raise Conflict(f"{name} is {spec.model_type}, listed again as a tracker. Undeploy {spec.model_type}.")
    if spec.family is None:
        raise Conflict(
            f"{spec.model_type} is a family of this server, and no deployment. Its memory is freed by POST "
            "/native/models/unload."
        )
    await engine.manager.undeploy(name)
    return Undeployed(status="deleted", model=name)


@router.get("/{name}/stats", policy=READ)
async def stats(engine: EngineDependency, name: str) -> PixanoStats:
    """Counts what a model has answered since the server started."""
    spec = _deployed(name, engine.manager.catalog)
    count, seconds = engine.metrics.usage(spec.model_type)
    return PixanoStats(
        model_name=spec.model_type,
        capability=capability_of(spec) or spec.task,
        model_class=spec.family or spec.model_type,
        request_count=count,
        total_processing_time=round(seconds, 6),
        avg_processing_time=round(seconds / count, 6) if count else 0.0,
    )


def _deployed(name: str, catalog: Catalog) -> ModelSpec:
    """The model of that name, or of that second name. Raises NotFound."""
    first = name if name in catalog else name.removesuffix(SUFFIX)
    if first not in catalog:
        raise NotFound(f"No model {name[:80]!r} is deployed. There are: {', '.join(catalog)}.")
    return catalog[first]


def _spec(body: PixanoDeployment, catalog: Catalog, *, plugins: bool) -> ModelSpec:
    try:
        return pixano_spec(body.name, body.model_class, body.model_params, body.deployment, catalog, plugins=plugins)
    except ValidationError as error:
        problem = error.errors()[0]
        raise NotUnderstood(f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}") from None
