"""Answers of the protocol, as its clients read them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from vision_model_repo.api.pixano.wire import WireModel

ServeStatus = Literal["NOT_STARTED", "DEPLOYING", "DEPLOY_FAILED", "RUNNING"]
NAMES = Field(description="Names of the deployed models.", examples=[["sam3"]])


class PixanoAnswer(WireModel):
    """The envelope of every answer; /inference writes processing_time for processingTime."""

    id: str = Field(description="Id of the answer.", examples=["ray-sam3-0123456789ab"])
    status: Literal["SUCCESS"] = Field(description="Refusals have no envelope.", examples=["SUCCESS"])
    timestamp: datetime = Field(description="When it was given, UTC.", examples=["2026-01-01T12:00:00.000000Z"])
    processing_time: float = Field(description="Time from the request's arrival in s.", examples=[0.234])
    metadata: dict[str, str] = Field(
        description="Which model answered.", examples=[{"model_name": "sam3", "capability": "segmentation"}]
    )
    data: dict[str, Any] = Field(description="The answer of the capability.", examples=[{"masks": [], "scores": {}}])


class PixanoModel(WireModel):
    """A deployed model."""

    name: str = Field(description="What requests call it.", examples=["sam3"])
    capability: str = Field(description="What it does.", examples=["segmentation"])
    model_class: str | None = Field(description="Family or class of the model.", examples=["sam3"])
    model_path: str | None = Field(description="Checkpoint.", examples=["facebook/sam3"])
    status: ServeStatus = Field(
        description="RUNNING where it answers requests, if need be after it has been loaded.", examples=["RUNNING"]
    )
    interface: dict[str, Any] | None = Field(
        description="How it is called; null where that is not known.", examples=[{"capability": "segmentation"}]
    )


class DocumentedModel(BaseModel):
    """A deployed model, in the contract of the documentation."""

    name: str = Field(description="What requests call it.", examples=["sam3"])
    capability: str = Field(description="What it does.", examples=["segmentation"])
    model_path: str | None = Field(description="Checkpoint.", examples=["facebook/sam3"])
    model_class: str | None = Field(description="Family or class of the model.", examples=["sam3"])


class DocumentedSettings(BaseModel):
    """The server. Clients refuse any other field."""

    app_name: str = Field(description="Name of the server.", examples=["Pixano Inference"])
    app_version: str = Field(description="Version of the server.", examples=["1.0.0"])
    app_description: str = Field(description="What it is.", examples=["Vision models over the Pixano protocol"])
    num_cpus: int | None = Field(description="Cores.", examples=[8])
    num_gpus: int = Field(description="GPUs.", examples=[1])
    num_nodes: int = Field(description="Machines.", examples=[1])
    gpus_used: float = Field(description="GPUs that hold models.", examples=[1.0])
    gpu_to_model: dict[str, str] = Field(description="A model on each GPU that holds any.", examples=[{}])
    models: list[str] = NAMES
    models_to_capability: dict[str, str] = Field(
        description="What each model does.", examples=[{"sam3": "segmentation"}]
    )


class PixanoInfo(WireModel):
    """The server."""

    app_name: str = Field(description="Name of the server.", examples=["Pixano Inference"])
    app_version: str = Field(description="Version of the server.", examples=["1.0.0"])
    num_cpus: int | None = Field(description="Cores.", examples=[8])
    num_gpus: int = Field(description="GPUs.", examples=[1])
    num_nodes: int = Field(description="Machines.", examples=[1])
    gpus_used: float = Field(description="GPUs that hold models.", examples=[1.0])
    models: list[str] = NAMES
    models_status: dict[str, ServeStatus] = Field(description="Status of each.", examples=[{"sam3": "RUNNING"}])


class PixanoReadiness(BaseModel):
    """Whether the models that the server was started with are there."""

    ready: bool = Field(description="Whether they are.", examples=[True])
    models: dict[str, ServeStatus] = Field(description="Status of each model.", examples=[{"sam3": "RUNNING"}])
    models_loaded: int = Field(description="Models that answer requests.", examples=[1])
    version: str = Field(description="Version of the server.", examples=["1.0.0"])


class PixanoHealth(BaseModel):
    """How the server is."""

    status: Literal["healthy", "unhealthy"] = Field(
        description="Unhealthy, with status code 503, when the thread of a device has died.", examples=["healthy"]
    )


class Undeployed(BaseModel):
    """A model that is no longer there."""

    status: Literal["deleted"] = Field(description="What happened.", examples=["deleted"])
    model: str = Field(description="Its name.", examples=["sam3"])


class PixanoStats(BaseModel):
    """What a model has done since the server started."""

    model_name: str = Field(description="Name of the model.", examples=["sam3"])
    capability: str = Field(description="What it does.", examples=["segmentation"])
    model_class: str | None = Field(description="Family or class of the model.", examples=["sam3"])
    request_count: int = Field(description="Images that it has answered.", examples=[12])
    total_processing_time: float = Field(description="Time for all of them in s.", examples=[2.4])
    avg_processing_time: float = Field(description="Time for one in s.", examples=[0.2])


class PixanoDeployment(WireModel):
    """A model to deploy."""

    name: str | None = Field(
        None,
        min_length=1,
        max_length=100,
        pattern=r"^[^/\s]+$",
        description="What requests call it; the last part of its path, or its class, if left out.",
        examples=["sam3-large"],
    )
    model_class: str = Field(
        description="A family of this server, or a class of an installed plugin.", examples=["sam3"]
    )
    model_params: dict[str, Any] = Field(
        default_factory=dict,
        description="For a family `path`, its checkpoint, and `torch_dtype`; what the class says for a plugin.",
        examples=[{"path": "demo/sam3"}],
    )
    deployment: dict[str, Any] = Field(
        default_factory=dict,
        description="`num_gpus` (0 for the CPU), `max_batch_size`, `timeout_s`; replicas and resources of other kinds "
        "are accepted and mean nothing here.",
        examples=[{"num_gpus": 1, "timeout_s": 60}],
    )
