"""Whether a tokenizer.json is one that a server can use: tried in a helper process before it is used in this one."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from pathlib import Path

from vision_model_repo.models.checkpoint_config import refuse
from vision_model_repo.models.helper_process import HelperProcess, HelperRefused

MEMORY_MB = 2048
"""A tokenizer of 256,000 words takes 600 MB while its file is read."""
SECONDS = 20.0
"""Such a one takes 4 s."""
REMEMBERED = 64

_fine: OrderedDict[bytes, None] = OrderedDict()


def check_tokenizer(model_id: str, path: Path) -> None:
    """Raises NotFound for a tokenizer that hangs, takes too much memory, or is damaged.

    One that was found fine is remembered by its content.
    """
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
    if digest in _fine:
        return
    helper = HelperProcess(memory_mb=MEMORY_MB, seconds=SECONDS)
    try:
        helper.ask("check_tokenizer", path=str(path))
    except HelperRefused as error:
        raise refuse(model_id, f"its tokenizer.json cannot be used: {error}") from None
    finally:
        helper.close()
    _fine[digest] = None
    while len(_fine) > REMEMBERED:
        _fine.popitem(last=False)
