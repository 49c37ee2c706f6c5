"""Everything that can go wrong on purpose, as one tree; each class knows its HTTP status.

    VisionError
    ├── InvalidInput           400   the request makes no sense; the message names the field or image
    ├── NotAllowed             403   gated weights, a model id or address that settings exclude
    ├── NotFound               404   no such model, checkpoint or job
    ├── NameTaken              409   a model has that name already
    ├── TooLarge               413   a body or count over a limit
    ├── RequestTimeout         504   could not be answered within the time that was set
    ├── RemoteFailure          502   the server that runs the model fails
    ├── InsufficientMemory     507   does not fit, even after idle models were evicted
    └── Busy                   503   full or shutting down; carries Retry-After

The message is what the caller reads: a sentence that says what to do next, without internals.
"""

from __future__ import annotations

from typing import ClassVar


class VisionError(Exception):
    """Base of all expected errors."""

    status: ClassVar[int] = 500

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidInput(VisionError):
    """The request makes no sense.

    Attributes:
        index: of which image it is, where a model refused one of several.
    """

    status = 400

    def __init__(self, message: str, *, index: int | None = None) -> None:
        super().__init__(message)
        self.index = index


class NotAllowed(VisionError):
    status = 403


class NotFound(VisionError):
    status = 404


class NameTaken(VisionError):
    status = 409


class TooLarge(VisionError):
    status = 413


class RequestTimeout(VisionError):
    status = 504


class RemoteFailure(VisionError):
    status = 502


class InsufficientMemory(VisionError):
    status = 507


class Busy(VisionError):
    """The server is full or shutting down.

    Args:
        retry_after: seconds after which another try is reasonable.
    """

    status = 503

    def __init__(self, message: str, *, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after
