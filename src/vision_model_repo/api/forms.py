"""Forms with files, small ones in memory and large ones on disk: none takes more memory than another body may have."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from mmap import ACCESS_READ, mmap

from fastapi import Request
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from vision_model_repo.api.dependencies import engine_of
from vision_model_repo.errors import InsufficientMemory, InvalidInput, TooLarge
from vision_model_repo.formats.video import VideoBytes

MEGABYTE = 2**20
SPOOL_BYTES = 16 * MEGABYTE
"""Up to this size a file stays in memory: the detour over the disk needs other threads."""


class _Parser(MultiPartParser):
    """Counts what its files take of the memory.

    Args:
        max_mb: most memory of all files together.
    """

    def __init__(self, request: Request, *, max_files: int, max_mb: int) -> None:
        super().__init__(request.headers, request.stream(), max_files=max_files)  # type: ignore[arg-type]
        self._max_mb = max_mb
        self.spool_max_size = min(SPOOL_BYTES, max_mb * MEGABYTE)
        self._kept = 0
        self._part_bytes = 0

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
        InvalidInput: it cannot be read.
        TooLarge: its small files take more memory than a body may have.
        InsufficientMemory: a large one does not fit on the disk.
    """
    parser = _Parser(request, max_files=max_files, max_mb=engine_of(request).settings.max_body_mb)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        refusal = TooLarge if error.message.startswith("Too many") else InvalidInput
        raise refusal(f"The form cannot be read: {error.message}") from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise InsufficientMemory("The server's disk is full. Send a smaller file, or try again later.") from error
    try:
        yield form
    finally:
        await form.close()


async def read_file(name: str, file: UploadFile | str) -> bytes:
    """A file of a form. Raises InvalidInput for a field that is text."""
    if isinstance(file, str):
        raise InvalidInput(f"{name} is text. Send it as a file, as in curl -F {name.partition('[')[0]}=@picture.jpg.")
    return await file.read()


async def read_video_file(file: UploadFile) -> VideoBytes:
    """A file of a form; a large one stays on disk, until nobody reads it any more."""
    if (file.size or 0) <= SPOOL_BYTES:
        return await file.read()
    file.file.flush()
    return mmap(file.file.fileno(), 0, access=ACCESS_READ)
