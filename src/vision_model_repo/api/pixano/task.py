"""What the protocol needs to know of a capability: its body, its media, and the way between wire and task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import Field

from vision_model_repo.api.pixano.media import Media
from vision_model_repo.api.pixano.wire import WireModel
from vision_model_repo.engine.engine import Engine
from vision_model_repo.errors import InvalidInput, NotFound
from vision_model_repo.models.catalog import ModelSpec
from vision_model_repo.settings import Settings

CAPABILITIES = {
    "segmentation": "segmentation",
    "detection": "detection",
    "tracking": "tracking",
    "clip_tracking": "tracking",
    "chat": "vlm",
    "ner": "ner",
    "embedding": "embedding",
}
"""The protocol's word for each task that it knows."""


class CapabilityRequest(WireModel):
    """What every request says."""

    model: str = Field(description="Name of a deployed model, as listed by /v1/models.", examples=["sam3"])


BodyT = TypeVar("BodyT", bound=CapabilityRequest)


class Capability(ABC, Generic[BodyT]):
    """One capability, for every model that has it.

    Attributes:
        name: in paths and in the list of models.
        body: schema of a request.
        media: form field of the files; None where there is no form.
        light: whether answers are written in less time than it takes to hand them to another thread.
        seconds: time for an answer where the deployment says nothing; None for what settings say.
    """

    name: ClassVar[str]
    media: ClassVar[str | None] = "image"
    light: ClassVar[bool] = False
    seconds: ClassVar[float | None] = None
    body: type[BodyT]

    @abstractmethod
    async def answer(self, engine: Engine, spec: ModelSpec, body: BodyT, files: Sequence[Media]) -> Any:
        """The `data` of the answer, in names_like_this, with arrays and masks as they are.

        Args:
            files: the media of a form; none where the body has them.

        Raises:
            InvalidInput, TooLarge: the request makes no sense, or passes a limit.
            What `ModelManager.run` raises.
        """

    def most_files(self, limits: Settings) -> int:
        """Files accepted in one form."""
        return 1

    def find(self, engine: Engine, name: str) -> ModelSpec:
        """The model of that name.

        Raises:
            NotFound: there is none, or none at all of this capability.
            InvalidInput: it has another capability.
        """
        deployed = {spec.model_type: capability_of(spec) for spec in engine.manager.catalog.values()}
        able = [each for each, capability in deployed.items() if capability == self.name]
        if not able:
            raise NotFound(f"No model for {self.name} is deployed on this server. Deploy one with POST /v1/models.")
        if name not in engine.manager.catalog:
            raise NotFound(f"No model {name[:80]!r} is deployed. Models for {self.name}: {', '.join(able)}.")
        spec = engine.manager.catalog[name]
        if spec.model_type not in able:
            raise InvalidInput(
                f"Model {name[:80]!r} is for {capability_of(spec) or spec.task}, not for {self.name}. Models for "
                f"{self.name}: {', '.join(able)}."
            )
        return spec


def capability_of(spec: ModelSpec) -> str | None:
    """The protocol's word for what a model does; None if it has none."""
    return CAPABILITIES.get(spec.task)
