"""What a protocol is, and the policies that its routes are declared with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from fastapi import APIRouter
from starlette.responses import Response
from starlette.types import Scope

from vision_model_repo.api.errors import Refusal
from vision_model_repo.models.catalog import Catalog

AccessScope = Literal["infer", "manage", "read", "logs", "admin"]


@dataclass(frozen=True, slots=True)
class Policy:
    """How the server treats the requests of a route.

    Attributes:
        open: whether they need no key and count for no rate limit.
        work: whether they run a model, or bring an image or a video to keep. They take a place (MAX_PENDING_REQUESTS)
            and are cancelled when their client hangs up.
        video: whether a form may bring a video file, which may be larger than any other body.
        scope: what a caller must be allowed to do: `infer`, `manage` models, `read` status and metrics, read `logs`;
            a route that says none is for an `admin`.
    """

    open: bool = False
    work: bool = False
    video: bool = False
    scope: AccessScope = "admin"


ADMIN = Policy()
OPEN = Policy(open=True, scope="read")
READ = Policy(scope="read")
MANAGE = Policy(scope="manage")
INFER = Policy(work=True, scope="infer")
VIDEO = Policy(work=True, video=True, scope="infer")
RESULTS = Policy(scope="infer")
"""Of what an earlier request left: a job, an image, a tracking session."""


@dataclass(frozen=True, slots=True)
class Protocol:
    """One way to talk to the engine.

    Attributes:
        name: also its prefix.
        title: for people.
        router: makes its routes for the models of a catalog; paths are those that its clients know.
        write_error: how it tells that a request was refused, from the request's path in the protocol.
    """

    name: str
    title: str
    router: Callable[[Catalog], APIRouter]
    write_error: Callable[[Refusal, Scope, str], Response]

    @property
    def prefix(self) -> str:
        return f"/{self.name}"
