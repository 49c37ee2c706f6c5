"""Everything that can go wrong on purpose, as one tree; each class knows its HTTP status.

    VisionError
    ├── InvalidInput           400   the request makes no sense; the message names the field or image
    ├── NotAllowed             403   gated weights, a model id or address that settings exclude
    ├── NotFound               404   no such model, checkpoint or job
    ├── NameTaken              409   a model has that name already
    ├── TooLarge               413   a body or count over a limit
    ├── RequestTimeout         504   could not be answered within the time that was set
    ├── RemoteFailure          502   the server that runs the model fails
    ├── InsufficientMemory     507   does not fit in memory or on the disk
    └── Busy                   503   full or shutting down; carries Retry-After

The message is what the caller reads: a sentence that says what to do next, without internals.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from functools import wraps
from typing import ClassVar, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_NO_MEMORY = re.compile(
    r"out of memory|can't allocate memory|memory allocation|insufficient memory|decoder error -9", re.I
)
"""How torch, libavif, turbojpeg, libjpeg and Pillow tell it."""


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


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on a GPU or on the host. Looks at names, so that torch need not be imported."""
    if isinstance(error, VisionError):
        return False
    if isinstance(error, SystemError) and error.__cause__ is not None:
        # This is how Python tells of an extension that went on after an error.
        error = error.__cause__
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    return isinstance(error, RuntimeError | ValueError | OSError) and bool(_NO_MEMORY.search(str(error)[:1000]))


def as_exception(error: BaseException) -> Exception:
    """The error itself, or one in its place where it is no `Exception`.

    A panic of an extension written in Rust is none, nor is `SystemExit`. In a thread that works for a request, either
    means that this request fails and nothing else.
    """
    if isinstance(error, Exception):
        return error
    failure = RuntimeError(f"{type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure


def contained(function: Callable[P, T]) -> Callable[P, T]:
    """The same function for a thread of work: whatever it raises is an `Exception`."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except Exception:
            raise
        except BaseException as error:
            raise as_exception(error) from error

    return call
