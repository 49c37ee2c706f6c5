"""Forms with files, small ones in memory and large ones on disk: none takes more memory than another body may have."""

from __future__ import annotations

import errno
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from mmap import ACCESS_READ, mmap

from fastapi import Request
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from vision_model_repo.api.dependencies import engine_of
from vision_model_repo.errors import Busy, InsufficientMemory, InvalidInput, TooLarge, VisionError
from vision_model_repo.formats.video import VideoBytes

MEGABYTE = 2**20
SPOOL_BYTES = 16 * MEGABYTE
"""Up to this size a file stays in memory: the detour over the disk needs other threads."""

_FULL = (errno.ENOSPC, errno.EDQUOT)
_NOT_WRITABLE = (errno.ENOENT, errno.ENOTDIR, errno.EROFS, errno.EACCES, errno.EPERM)
_TOO_MANY_FILES = (errno.EMFILE, errno.ENFILE)


class _Parser(MultiPartParser):
    """Counts what its files take of the memory, and refuses a form without an end, which the library would take, less
    its last field.

    Args:
        max_mb: most memory of all files together.
    """

    def __init__(self, request: Request, *, max_files: int, max_mb: int) -> None:
        super().__init__(request.headers, self._to_the_end(request), max_files=max_files)  # type: ignore[arg-type]
        self._max_mb = max_mb
        self.spool_max_size = min(SPOOL_BYTES, max_mb * MEGABYTE)
        self._kept = 0
        self._part_bytes = 0
        self._ended = False

    async def _to_the_end(self, request: Request) -> AsyncGenerator[bytes]:
        async for chunk in request.stream():
            yield chunk
        # Raised from here, the error makes the library close all files.
        if not self._ended:
            raise InvalidInput(
                "The form ends early, without its closing boundary. Send it anew; if a client of your own writes it, "
                "the last line must be the boundary with -- before and after it."
            )

    def on_end(self) -> None:
        super().on_end()
        self._ended = True

    def on_part_begin(self) -> None:
        super().on_part_begin()
        self._part_bytes = 0

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        super().on_part_data(data, start, end)
        self._part_bytes += end - start

    def on_part_end(self) -> None:
        super().on_part_end()
        if self._part_bytes <= self.spool_max_size:
            self._kept += self._part_bytes
        if self._kept > self._max_mb * MEGABYTE:
            raise TooLarge(
                f"The form has more than {self._max_mb} MB of small files. Send fewer of them; frames of a video are "
                "smaller as one video file."
            )


@asynccontextmanager
async def open_form(request: Request, *, max_files: int) -> AsyncIterator[FormData]:
    """The fields of a form; its files are gone afterwards.

    Raises:
        InvalidInput: it cannot be read, or ends early.
        TooLarge: its small files take more memory than a body may have.
        InsufficientMemory: a large one does not fit on the disk, or there is no folder for it.
        Busy: too many files are open.
    """
    parser = _Parser(request, max_files=max_files, max_mb=engine_of(request).settings.max_body_mb)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        refusal = TooLarge if error.message.startswith("Too many") else InvalidInput
        raise refusal(f"The form cannot be read: {error.message}") from None
    except OSError as error:
        raise _storage_refusal(error) from error
    try:
        yield form
    finally:
        await form.close()


async def read_file(name: str, file: UploadFile | str) -> bytes:
    """A file of a form. Raises InvalidInput for a field that is text."""
    if isinstance(file, str):
        raise InvalidInput(f"{name} is text. Send it as a file, as in curl -F {name.partition('[')[0]}=@picture.jpg.")
    try:
        return await file.read()
    except OSError as error:
        raise _storage_refusal(error) from error


async def read_video_file(file: UploadFile) -> VideoBytes:
    """A file of a form; a large one stays on disk, until nobody reads it any more."""
    if (file.size or 0) <= SPOOL_BYTES:
        return await file.read()
    try:
        file.file.flush()
        return mmap(file.file.fileno(), 0, access=ACCESS_READ)
    except OSError as error:
        raise _storage_refusal(error) from error


def _storage_refusal(error: OSError) -> VisionError:
    """What to tell where a file of a form cannot be kept. Raises the error itself if it is of another kind."""
    if error.errno in _FULL:
        return InsufficientMemory("The server's disk is full. Send a smaller file, or try again later.")
    if error.errno in _NOT_WRITABLE:
        return InsufficientMemory(
            "The server has no temporary folder that it may write to, which a file of more than "
            f"{SPOOL_BYTES // MEGABYTE} MB needs. Send a smaller file, or ask the administrator to "
            "name such a folder as TMPDIR."
        )
    if error.errno in _TOO_MANY_FILES:
        return Busy("The server has too many files open. Try again later.")
    if error.errno == errno.ENOMEM:
        return InsufficientMemory("The server has no memory left for the file. Send a smaller one, or try again later.")
    raise error
