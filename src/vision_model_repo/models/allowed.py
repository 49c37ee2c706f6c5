"""Which checkpoints may be loaded: decided by what will be read or fetched, and not by how a name is spelled."""

from __future__ import annotations

import os
import re
from fnmatch import fnmatchcase
from pathlib import Path, PurePath

from vision_model_repo.models.names import DEMO_PREFIX, HUB_PREFIXES, repository_of


class AllowedIds:
    """Decides by ALLOWED_MODEL_IDS.

    Args:
        patterns: of embedded checkpoints, repositories on the hub and folders; empty allows all.
    """

    def __init__(self, patterns: tuple[str, ...]) -> None:
        self._patterns = patterns

    def fits(self, model_id: str) -> bool:
        """Whether a pattern fits what a name means: an embedded checkpoint, a folder here, or a repository."""
        if not self._patterns:
            return True
        if model_id.startswith(DEMO_PREFIX):
            return any(fnmatchcase(model_id, pattern) for pattern in self._patterns)
        if (path := _folder(model_id)) is not None:
            return any(_fits_folder(path, pattern) for pattern in self._patterns)
        return any(fnmatchcase(_hub_name(model_id), _hub_pattern(pattern)) for pattern in self._patterns)


def _folder(model_id: str) -> str | None:
    """The path of a folder that is there."""
    try:
        path = str(Path(model_id).expanduser()) if model_id.startswith("~") else model_id
        return path if Path(path).is_dir() else None
    except (OSError, RuntimeError, ValueError):
        return None


def _fits_folder(path: str, pattern: str) -> bool:
    """By what a path says and by where it leads: a link inside of an allowed folder may lead out of it."""
    if ".." in PurePath(path).parts:
        return False
    real = os.path.realpath(path)
    if pattern.startswith("~/"):
        pattern = str(Path.home()) + pattern[1:]
    return fnmatchcase(path, pattern) and (fnmatchcase(real, pattern) or fnmatchcase(real, _real_pattern(pattern)))


def _real_pattern(pattern: str) -> str:
    """The pattern, beginning at where the folder really is that it begins with."""
    fixed = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
    folder = fixed if fixed == pattern else fixed.rpartition("/")[0]
    return os.path.realpath(folder) + pattern[len(folder) :]


def _hub_name(model_id: str) -> str:
    """What will be fetched. A repository of an owner called demo is none of the embedded checkpoints."""
    repository = repository_of(model_id)
    return HUB_PREFIXES[0] + repository if repository.startswith(DEMO_PREFIX) else repository


def _hub_pattern(pattern: str) -> str:
    if pattern.startswith(HUB_PREFIXES):
        name = pattern.partition(":")[2]
        return HUB_PREFIXES[0] + name if name.startswith(DEMO_PREFIX) else name
    return pattern if re.search(r"[*?\[]", pattern) else repository_of(pattern)
