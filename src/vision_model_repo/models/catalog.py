"""Which model families there are: one line each, and whatever plugins add.

A plugin package registers a `ModelSpec` under the entry-point group `vision_model_repo.models`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import Any, Literal, cast

from vision_model_repo.errors import NameTaken, NotFound
from vision_model_repo.models.base import Loader

Task = Literal[
    "segmentation",
    "detection",
    "depth",
    "features",
    "tracking",
    "clip_tracking",
    "chat",
    "embedding",
    "ner",
    "classification",
]


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A family of checkpoints that one module can load, or a deployment of a family under a name of its own.

    Attributes:
        model_type: its name in paths and requests.
        task: what it does; decides the request and the result type.
        module: where its `load` function is, or "module:Class" where a class is called instead; imported when the
            first checkpoint is loaded.
        variants: known checkpoints on the hub, the default one first; none for a model that has no weights to find.
        demo: the checkpoint embedded in this package, if there is one.
        family: of a deployment; None for a family itself.
        device, dtype: where and in which arithmetic; None for what settings say.
        max_batch: most images in one forward pass; 0 for what settings say.
        timeout_seconds: for one request; None for what settings say.
        fetches: names of checkpoints that a class of a plugin was told by a caller, and will find by itself.
    """

    model_type: str
    task: Task
    module: str
    variants: tuple[str, ...]
    demo: str | None = None
    family: str | None = None
    device: str | None = None
    dtype: str | None = None
    max_batch: int = 0
    timeout_seconds: float | None = None
    fetches: tuple[str, ...] = ()

    @property
    def sees_frames(self) -> bool:
        """Whether it can track in a video that it is shown frame by frame, by its memory or by what it finds."""
        return self.task in ("tracking", "segmentation", "detection")

    def loader(self) -> Loader:
        module, _, name = self.module.partition(":")
        return cast(Loader, getattr(import_module(module), name or "load"))


REMOTE = "remote"
"""Where a model is that another server runs, in place of a device."""


@dataclass(frozen=True, slots=True)
class RemoteSpec(ModelSpec):
    """A model that another server runs.

    Attributes:
        url: of its API in OpenAI's protocol, such as "http://gpu:8000/v1".
        key_env: name of the environment variable that has the key for it; None where it wants none.
        remote_id: what it calls the model; None for the first of its list.
    """

    url: str = ""
    key_env: str | None = None
    remote_id: str | None = None

    def loader(self) -> Loader:
        # Not super(): a class with slots is made anew, and the name would mean the old one.
        load: Any = ModelSpec.loader(self)
        return partial(load, url=self.url, key_env=self.key_env, remote_id=self.remote_id)


@dataclass(frozen=True, slots=True)
class Extra:
    """Packages that some checkpoints need and a plain installation lacks.

    Attributes:
        name: what to ask for when installing this package.
        modules: what must be there to import.
        model_ids: pattern of the checkpoints on the hub that need it, in lower case as the hub takes either.
    """

    name: str
    modules: tuple[str, ...]
    model_ids: str

    @property
    def installed(self) -> bool:
        return all(find_spec(module) for module in self.modules)

    def needed_by(self, model_id: str) -> bool:
        return fnmatchcase(model_id.lower(), self.model_ids)

    def require(self, model_id: str) -> None:
        """Raises NotFound, saying what to install, unless it is there."""
        if not self.installed:
            raise NotFound(
                f"{model_id} needs an extra that is not installed on this server: "
                f"pip install 'vision-model-repo[{self.name}]'"
            )


DEPTH_ANYTHING_3 = Extra(
    "depth-anything-3", ("depth_anything_3", "addict", "einops", "omegaconf"), "depth-anything/da3*"
)
PIXANO = Extra("pixano", ("pixano_inference",), "")
EXTRAS = (DEPTH_ANYTHING_3,)

_VARIANTS_3 = (
    "depth-anything/da3-base",
    "depth-anything/da3-small",
    "depth-anything/da3metric-large",
    "depth-anything/da3nested-giant-large",
)
_VARIANTS_V2 = (
    "depth-anything/Depth-Anything-V2-Small-hf",
    "depth-anything/Depth-Anything-V2-Base-hf",
    "depth-anything/Depth-Anything-V2-Large-hf",
    "depth-anything/Depth-Anything-V2-Metric-Indoor-Small-hf",
    "depth-anything/Depth-Anything-V2-Metric-Indoor-Base-hf",
    "depth-anything/Depth-Anything-V2-Metric-Indoor-Large-hf",
    "depth-anything/Depth-Anything-V2-Metric-Outdoor-Small-hf",
    "depth-anything/Depth-Anything-V2-Metric-Outdoor-Base-hf",
    "depth-anything/Depth-Anything-V2-Metric-Outdoor-Large-hf",
)


def depth_variants(newest_installed: bool) -> tuple[str, ...]:
    """The newest family first where it can run, since the first variant is the default."""
    if newest_installed:
        return _VARIANTS_3 + _VARIANTS_V2
    return _VARIANTS_V2 + _VARIANTS_3


BUILT_IN = (
    ModelSpec(
        "sam3",
        "segmentation",
        "vision_model_repo.models.sam3",
        ("facebook/sam3",),
        demo="demo/sam3",
    ),
    ModelSpec(
        "grounding_dino",
        "detection",
        "vision_model_repo.models.grounding_dino",
        ("IDEA-Research/grounding-dino-base", "IDEA-Research/grounding-dino-tiny"),
        demo="demo/grounding-dino",
    ),
    ModelSpec(
        "depth_anything",
        "depth",
        "vision_model_repo.models.depth_anything",
        depth_variants(DEPTH_ANYTHING_3.installed),
        demo="demo/depth-anything",
    ),
    ModelSpec(
        "dinov3",
        "features",
        "vision_model_repo.models.dinov3",
        (
            "facebook/dinov3-convnext-tiny-pretrain-lvd1689m",
            "facebook/dinov3-convnext-small-pretrain-lvd1689m",
            "facebook/dinov3-convnext-base-pretrain-lvd1689m",
            "facebook/dinov3-convnext-large-pretrain-lvd1689m",
            "facebook/dinov3-vits16-pretrain-lvd1689m",
            "facebook/dinov3-vitb16-pretrain-lvd1689m",
            "facebook/dinov3-vitl16-pretrain-lvd1689m",
            "facebook/dinov3-vith16plus-pretrain-lvd1689m",
        ),
        demo="demo/dinov3",
    ),
    ModelSpec(
        "sam2_video",
        "tracking",
        "vision_model_repo.models.video",
        (
            "facebook/sam2.1-hiera-large",
            "facebook/sam2.1-hiera-base-plus",
            "facebook/sam2.1-hiera-small",
            "facebook/sam2.1-hiera-tiny",
        ),
    ),
    ModelSpec("sam3_video", "tracking", "vision_model_repo.models.video", ("facebook/sam3",)),
    ModelSpec(
        "vlm",
        "chat",
        "vision_model_repo.models.vlm",
        (
            "HuggingFaceTB/SmolVLM2-500M-Video-Instruct",
            "HuggingFaceTB/SmolVLM-256M-Instruct",
            "Qwen/Qwen3-VL-4B-Instruct",
            "Qwen/Qwen2.5-VL-3B-Instruct",
            "florence-community/Florence-2-base",
        ),
        demo="demo/vlm",
    ),
    ModelSpec(
        "text_embedding",
        "embedding",
        "vision_model_repo.models.text_encoder",
        (
            "sentence-transformers/all-MiniLM-L6-v2",
            "intfloat/e5-small-v2",
            "intfloat/multilingual-e5-small",
            "BAAI/bge-small-en-v1.5",
            "Qwen/Qwen3-Embedding-0.6B",
        ),
        demo="demo/minilm",
    ),
    ModelSpec(
        "clip",
        "embedding",
        "vision_model_repo.models.clip",
        (
            "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
            "openai/clip-vit-large-patch14",
            "google/siglip-base-patch16-224",
            "timm/ViT-B-16-SigLIP2",
            "Marqo/marqo-fashionSigLIP",
        ),
        demo="demo/clip",
    ),
    ModelSpec(
        "image_classifier",
        "classification",
        "vision_model_repo.models.image_classifier",
        (
            "timm/mobilenetv4_conv_medium.e500_r256_in1k",
            "timm/resnet50.a1_in1k",
            "timm/tf_efficientnet_lite0.in1k",
            "google/vit-base-patch16-224",
        ),
        demo="demo/efficientnet-lite0",
    ),
)

ENTRY_POINT_GROUP = "vision_model_repo.models"


class Catalog(Mapping[str, ModelSpec]):
    """Model specs by model_type; a hyphen is as good as an underscore. Deployments come and go."""

    def __init__(self, specs: tuple[ModelSpec, ...]) -> None:
        self._specs = {spec.model_type: spec for spec in specs}

    @classmethod
    def installed(cls) -> Catalog:
        """The built-in families and those of installed plugins."""
        plugins = tuple(entry.load() for entry in entry_points(group=ENTRY_POINT_GROUP))
        return cls(BUILT_IN + plugins)

    def add(self, deployment: ModelSpec) -> None:
        """Adds a model under a name of its own. Raises NameTaken."""
        if (taken := self._find(deployment.model_type)) is not None:
            raise NameTaken(f"There is a model {taken.model_type!r} already. Choose another name.")
        self._specs[deployment.model_type] = deployment

    def remove(self, name: str) -> None:
        """Forgets a deployment. Raises NotFound."""
        del self._specs[self[name].model_type]

    def __getitem__(self, model_type: str) -> ModelSpec:
        if (spec := self._find(model_type)) is None:
            known = ", ".join(self._specs)
            raise NotFound(f"Unknown model_type {model_type[:80]!r}. Known model types: {known}.")
        return spec

    def __contains__(self, model_type: object) -> bool:
        return isinstance(model_type, str) and self._find(model_type) is not None

    def _find(self, model_type: str) -> ModelSpec | None:
        spelled = model_type.replace("-", "_")
        found = (spec for name, spec in self._specs.items() if name.replace("-", "_") == spelled)
        return self._specs.get(spelled) or next(found, None)

    def __iter__(self) -> Iterator[str]:
        return iter(self._specs)

    def __len__(self) -> int:
        return len(self._specs)
