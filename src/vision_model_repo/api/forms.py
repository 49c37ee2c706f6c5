"""Forms with files, kept in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Request
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from vision_model_repo.errors import InvalidInput


class _InMemoryParser(MultiPartParser):
    """Keeps files in memory: the body has a limit already, and a detour over the disk needs other threads."""

    spool_max_size = 2**62


@asynccontextmanager
async def open_form(request: Request, *, max_files: int) -> AsyncIterator[FormData]:
    """The fields of a form; its files are gone afterwards. Raises InvalidInput for one that cannot be read."""
    parser = _InMemoryParser(request.headers, request.stream(), max_files=max_files)  # type: ignore[arg-type]
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise InvalidInput(f"The form cannot be read: {error.message}") from None
    try:
        yield form
    finally:
        await form.close()


async def read_file(name: str, file: UploadFile | str) -> bytes:
    """A file of a form. Raises InvalidInput for a field that is text."""
    if isinstance(file, str):
        raise InvalidInput(f"{name} is text. Send it as a file, as in curl -F {name.partition('[')[0]}=@picture.jpg.")
    return await file.read()
