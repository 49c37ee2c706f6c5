"""From a model id to a folder of weights: embedded, local, cached or downloaded."""

from __future__ import annotations

import logging
from fnmatch import fnmatchcase
from importlib.resources import files
from pathlib import Path

import httpx
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from vision_model_repo.errors import NotAllowed, NotFound, VisionError
from vision_model_repo.models.base import Checkpoint
from vision_model_repo.models.catalog import ModelSpec

logger = logging.getLogger(__name__)

DEMO_PREFIX = "demo/"
# Safetensors and plain text only: a pickle or a Python file is never fetched, so it can never be run.
WANTED_FILES = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")


class Hub:
    """Finds checkpoints.

    Args:
        root: root of the Hugging Face cache, weights in its `hub` folder; None for the library's default.
        token: for gated and private repositories.
        offline: never ask the network.
        allowed: patterns of the only ids that may be used; empty allows all.
    """

    def __init__(
        self,
        *,
        root: Path | None = None,
        token: str | None = None,
        offline: bool = False,
        allowed: tuple[str, ...] = (),
    ) -> None:
        self._cache = root / "hub" if root else None
        self._token = token
        self._offline = offline
        self._allowed = allowed

    def resolve(self, model_id: str) -> Checkpoint:
        """Finds the folder of a model id, downloading it where needed.

        Raises:
            NotAllowed: settings exclude the id, or the repository is gated.
            NotFound: no such id, or it is neither cached nor reachable.
        """
        if self._allowed and not any(fnmatchcase(model_id, pattern) for pattern in self._allowed):
            raise NotAllowed(f"Model id {model_id!r} is not in ALLOWED_MODEL_IDS of this server.")
        if model_id.startswith(DEMO_PREFIX):
            return Checkpoint(model_id, _embedded(model_id))
        local = Path(model_id).expanduser()
        if local.is_dir():
            return Checkpoint(model_id, _complete(model_id, local))
        return Checkpoint(model_id, _complete(model_id, self._download(model_id)))

    def resolve_default(self, spec: ModelSpec, preferred: str | None = None) -> Checkpoint:
        """The checkpoint to use when a request names none.

        A preferred id, from the settings, is taken at its word. Otherwise it is the family's first variant, or, where
        that cannot be had, the embedded one; the reason is logged and kept in the checkpoint.
        """
        if preferred:
            return self.resolve(preferred)
        try:
            return self.resolve(spec.variants[0])
        except VisionError as error:
            if spec.demo is None:
                raise
            logger.warning("%s: using the embedded %s instead. %s", spec.model_type, spec.demo, error.message)
            found = self.resolve(spec.demo)
            return Checkpoint(found.model_id, found.folder, fallback_reason=error.message)

    def _download(self, model_id: str) -> Path:
        try:
            return Path(
                snapshot_download(
                    model_id,
                    cache_dir=self._cache,
                    token=self._token,
                    local_files_only=self._offline,
                    allow_patterns=list(WANTED_FILES),
                )
            )
        except HFValidationError:
            raise NotFound(
                f"{model_id[:200]!r} is neither a folder on this server nor a Hugging Face id of the form owner/name."
            ) from None
        except GatedRepoError:
            raise NotAllowed(
                f"{model_id} is gated. Accept its terms on https://huggingface.co/{model_id}, then set HF_TOKEN to a "
                "token of that account and try again; or give the path of a local copy as model_id."
            ) from None
        except RepositoryNotFoundError:
            raise NotFound(
                f"No checkpoint {model_id!r} on the Hugging Face hub. Check the spelling; for a private one set "
                "HF_TOKEN; for a local copy give the path of its folder."
            ) from None
        except (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, httpx.HTTPError, OSError) as error:
            logger.info("Download of %s failed: %r", model_id, error)
            why = "HF_HUB_OFFLINE is set" if self._offline else "the Hugging Face hub cannot be reached"
            raise NotFound(
                f"{model_id} is not in the cache and {why}. Download it where there is a network "
                f"(`hf download {model_id}`) and point HF_ROOT_FOLDER to that cache, or give the path of a local copy "
                "as model_id."
            ) from None


def _embedded(model_id: str) -> Path:
    root = Path(str(files("vision_model_repo.demo") / "checkpoints"))
    known = sorted(folder.name for folder in root.iterdir() if (folder / "config.json").is_file())
    name = model_id.removeprefix(DEMO_PREFIX)
    if name not in known:
        raise NotFound(
            f"No embedded checkpoint {model_id[:200]!r}. There are: {', '.join('demo/' + k for k in known)}."
        )
    return root / name


def _complete(model_id: str, folder: Path) -> Path:
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise NotFound(
            f"{model_id!r} has no config.json with safetensors weights beside it, so it is no checkpoint that this "
            "server can load."
        )
    return folder
