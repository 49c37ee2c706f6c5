"""Models under names of their own: what a configuration file or a caller asks for, and what the catalog needs to know.

[[models]]
name = "sam3-large"            what requests call it
family = "sam3"                a family of this server, or class = "module:Class" with a task
model_id = "facebook/sam3"     its checkpoint
device = "cuda:0"
dtype = "bfloat16"
batch = 8                      most images in one forward pass
timeout = 60                   seconds for one request

[[models]]
name = "qwen"
url = "http://gpu:8000/v1"     of another server that speaks OpenAI's protocol, vLLM for one
key_env = "VLLM_API_KEY"       the environment variable with the key for it
model_id = "Qwen/Qwen3-VL-4B-Instruct"
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_snake

from vision_model_repo.errors import NotAllowed, NotFound
from vision_model_repo.models.catalog import PIXANO, REMOTE, Catalog, ModelSpec, RemoteSpec, Task

Dtype = Literal["auto", "float32", "float16", "bfloat16"]

_NAMES_CHECKPOINT = re.compile("path|model|name|repo|checkpoint|ckpt|weight|file|folder|url|processor|tokenizer|id$")

PIXANO_FAMILIES = {"GroundingDINOModel": "grounding_dino"}
"""Families of ours that do what a model class of Pixano's own packages does."""


class Deployment(BaseModel):
    """A model to be deployed."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True, frozen=True)

    name: str = Field(min_length=1, max_length=100, pattern=r"^[^/\s]+$")
    family: str | None = None
    class_path: str | None = Field(None, alias="class", pattern=r"^[\w.]+:\w+$")
    task: Task | None = None
    url: str | None = Field(None, pattern=r"^https?://[^\s/]")
    key_env: str | None = Field(None, min_length=1)
    model_id: str | None = None
    device: str | None = None
    dtype: Dtype | None = None
    replicas: Literal[1] = Field(1, description="A process holds one; for more, start more servers.")
    batch: int = Field(0, ge=0)
    timeout: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if sum(given is not None for given in (self.family, self.class_path, self.url)) != 1:
            raise ValueError("give either family or class or url")
        if (self.class_path is None) != (self.task is None):
            raise ValueError("give a task with class, such as detection, and none with family or url")
        if self.url is not None and (self.device or self.dtype):
            raise ValueError("give no device and no dtype with url: the other server has its own")
        if self.key_env is not None and (self.url is None or self.key_env not in os.environ):
            raise ValueError("key_env is the name of an environment variable, which must be set, and goes with url")
        return self


class PixanoParams(BaseModel):
    """What Pixano's model parameters may say of a family of ours."""

    model_config = ConfigDict(extra="forbid")

    path: str | None = None
    torch_dtype: Dtype | None = None
    compile: bool = False


class PixanoResources(BaseModel):
    """Pixano's deployment settings. Those of replicas mean nothing to one process, but a misspelt one is an error."""

    model_config = ConfigDict(extra="forbid")

    num_gpus: float | None = Field(None, ge=0)
    max_batch_size: int = Field(0, ge=0)
    timeout_s: float | None = Field(None, gt=0)
    num_cpus: float | None = None
    memory_mb: int | None = None
    min_replicas: int | None = None
    max_replicas: int | None = None
    target_num_ongoing_requests_per_replica: int | None = None
    downscale_delay_s: float | None = None
    upscale_delay_s: float | None = None
    batch_wait_timeout_s: float | None = None
    max_ongoing_requests: int | None = None
    health_check_period_s: float | None = None

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> Self:
        """From keys_like_this or keysLikeThis. Raises ValidationError."""
        return cls.model_validate({to_snake(name): value for name, value in given.items()})

    @property
    def device(self) -> str | None:
        """The CPU where no GPU is asked for; what settings say where nothing is."""
        return "cpu" if self.num_gpus == 0 else None


def read_config(path: Path, catalog: Catalog) -> list[ModelSpec]:
    """The models of a configuration file: TOML as above, or a Python file of Pixano's, which is run.

    Raises:
        ValueError: there is no such file, or it makes no sense.
        NotFound: a family that is not there, or Pixano's package is not installed.
    """
    if not path.is_file():
        raise ValueError(f"There is no configuration file {path}.")
    if path.suffix != ".py":
        return [spec_of(deployment, catalog) for deployment in read_toml(path)]
    PIXANO.require(f"The configuration file {path}")
    from vision_model_repo.models import pixano_plugin

    return [_pixano_spec(config, catalog) for config in pixano_plugin.read_config(path, PIXANO_FAMILIES)]


def pixano_spec(
    name: str | None,
    model_class: str,
    params: Mapping[str, Any],
    resources: Mapping[str, Any],
    catalog: Catalog,
    *,
    plugins: bool,
) -> ModelSpec:
    """What the catalog needs to know of a deployment that a caller asks for in Pixano's words.

    Args:
        plugins: whether callers may have classes of plugins made, which do with parameters what they like.

    Raises:
        NotAllowed: it is a class of a plugin, and callers may have none.
        NotFound: no plugin has that class, and no family has that name.
        ValidationError: parameters or resources make no sense.
    """
    if PIXANO.installed:
        from vision_model_repo.models import pixano_plugin

        if pixano_plugin.is_plugin_class(model_class):
            if not plugins:
                raise NotAllowed(
                    f"{model_class[:80]!r} is a class of a plugin, which callers may not deploy on this server. Ask "
                    "for one of its families, or have its administrator name the class in CONFIG_FILE or set "
                    "PIXANO_DEPLOY_PLUGINS=true."
                )
            given = {to_snake(key): value for key, value in resources.items()}
            PixanoResources.model_validate(given)
            spec = pixano_plugin.spec_of(pixano_plugin.config_of(name, model_class, params, given))
            return replace(spec, fetches=tuple(_names_of_checkpoints(params)))
    return spec_of(from_pixano(name, model_class, params, resources), catalog)


def _names_of_checkpoints(params: Any) -> Iterator[str]:
    """What a plugin may take for a repository or a path, by its parameters' names and by how a text looks."""
    if isinstance(params, Mapping):
        for key, value in params.items():
            if isinstance(value, str) and (_NAMES_CHECKPOINT.search(str(key).lower()) or set(value) & set("/:~\\")):
                yield value
            else:
                yield from _names_of_checkpoints(value)
    elif isinstance(params, list | tuple):
        for value in params:
            yield from _names_of_checkpoints({"": value})


def _pixano_spec(config: Any, catalog: Catalog) -> ModelSpec:
    from vision_model_repo.models import pixano_plugin

    if pixano_plugin.is_plugin_class(config.model_class):
        return pixano_plugin.spec_of(config)
    # What the file says of the device is a default where it says nothing, so settings choose it.
    resources = {"max_batch_size": config.max_batch_size, "timeout_s": config.timeout_s}
    return spec_of(from_pixano(config.name, config.model_class, config.model_params, resources), catalog)


def from_pixano(
    name: str | None, model_class: str, params: Mapping[str, Any], resources: Mapping[str, Any]
) -> Deployment:
    """A deployment of a family of ours in Pixano's words. Raises ValidationError for what makes no sense."""
    given, places = PixanoParams.model_validate(dict(params)), PixanoResources.read(resources)
    return Deployment.model_validate(
        {
            "name": name or _last_part(given.path) or model_class,
            "family": PIXANO_FAMILIES.get(model_class, model_class),
            "model_id": given.path,
            "device": places.device,
            "dtype": given.torch_dtype,
            "batch": places.max_batch_size,
            "timeout": places.timeout_s,
        }
    )


def _last_part(path: str | None) -> str:
    return (path or "").rstrip("/").rpartition("/")[2]


def spec_of(deployment: Deployment, catalog: Catalog) -> ModelSpec:
    """What the catalog needs to know of a deployment. Raises NotFound for an unknown family."""
    if deployment.url is not None:
        return _remote_spec(deployment, deployment.url)
    if deployment.class_path is not None and deployment.task is not None:
        variants = (deployment.model_id,) if deployment.model_id else ()
        spec = ModelSpec(deployment.name, deployment.task, deployment.class_path, variants)
        family = deployment.class_path.rpartition(":")[2]
    else:
        spec = _family(deployment.family or "", catalog)
        family = spec.model_type
        if deployment.model_id:
            spec = replace(spec, variants=(deployment.model_id,), demo=None)
    return replace(
        spec,
        model_type=deployment.name,
        family=family,
        device=deployment.device,
        dtype=deployment.dtype,
        max_batch=deployment.batch,
        timeout_seconds=deployment.timeout,
    )


def _remote_spec(deployment: Deployment, url: str) -> RemoteSpec:
    return RemoteSpec(
        deployment.name,
        "chat",
        "vision_model_repo.models.remote_chat",
        (),
        family="openai",
        device=REMOTE,
        max_batch=deployment.batch,
        timeout_seconds=deployment.timeout,
        url=url,
        key_env=deployment.key_env,
        remote_id=deployment.model_id,
    )


def _family(name: str, catalog: Catalog) -> ModelSpec:
    known = [spec.model_type for spec in catalog.values() if spec.family is None]
    if name not in catalog or catalog[name].family is not None:
        raise NotFound(f"No model family or class {name[:80]!r} on this server. Families: {', '.join(known)}.")
    return catalog[name]


def read_toml(path: Path) -> list[Deployment]:
    """The deployments of a configuration file. Raises ValueError, naming the entry, for one that makes no sense."""
    try:
        document = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is not valid TOML: {error}") from None
    if unknown := set(document) - {"models"}:
        raise ValueError(f"{path} has {', '.join(sorted(unknown))}. It may hold [[models]] alone.")
    deployments = []
    for index, entry in enumerate(document.get("models", [])):
        try:
            deployments.append(Deployment.model_validate(entry))
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(map(str, (f"models[{index}]", *problem["loc"])))
            raise ValueError(f"{path}: {where}: {problem['msg']}") from None
    return deployments
