"""What a loader gets to see of a checkpoint: files of known kinds, checked as data, in a folder of their own.

Libraries look for much in a checkpoint's folder: code, pickles, adapters of a second repository. So no library is
given that folder. It gets another one, for as long as it reads, with links to the weights and vocabularies, and with
the JSON files as `checkpoint_config` leaves them. What else a checkpoint has is not there.

Meanwhile the thread is confined, too: see `confinement`.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from vision_model_repo.errors import InsufficientMemory, VisionError
from vision_model_repo.models import open_clip_config, sentence_files
from vision_model_repo.models.base import Checkpoint, Servable
from vision_model_repo.models.checkpoint_config import Cleaner, clean_generation, refuse
from vision_model_repo.models.confinement import confined
from vision_model_repo.models.plain_files import Unreadable, open_regular, read_json, tensor_shapes
from vision_model_repo.models.tokenizer_files import check_tokenizer

logger = logging.getLogger(__name__)

Load = TypeVar("Load", bound=Callable[..., Servable])

CLEANED = (
    "config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "chat_template.json",
    "generation_config.json",
)
"""JSON files that libraries read."""
MAX_CONFIG_BYTES = 4 * 2**20
"""Of one that is cleaned; lists of 21,843 labels take 2 MB."""
MAX_TOKENIZER_BYTES = 64 * 2**20
"""That of Gemma has 33 MB."""
MAX_VOCABULARY_BYTES = 32 * 2**20
MAX_TEMPLATE_BYTES = 2**20
LINKED = {
    "tokenizer.json": MAX_TOKENIZER_BYTES,
    "vocab.json": MAX_VOCABULARY_BYTES,
    "added_tokens.json": MAX_CONFIG_BYTES,
    "*.txt": MAX_VOCABULARY_BYTES,
    "*.model": MAX_VOCABULARY_BYTES,
    "chat_template.jinja": MAX_TEMPLATE_BYTES,
}
"""Files that libraries read as they are, and their most bytes."""
MAX_FILES = 10_000
BUNDLED_PICKLES = ("demo/efficientnet-lite0",)
"""From an installed package; torch is told to read numbers alone from them."""
_PLAIN_NAME = re.compile(r"[\w][\w.@+-]{0,199}")


def reads_checkpoint(load: Load) -> Load:
    """Marks the loader of a family: it is given the checked files of a checkpoint, and nothing else of it.

    The loader raises NotFound for a checkpoint whose files break a rule, and for whatever a library makes of files
    that make no sense to it.
    """

    @functools.wraps(load)
    def guarded(checkpoint: Checkpoint, **options: Any) -> Servable:
        with opened(checkpoint) as view:
            try:
                with confined(view.folder):
                    return load(view, **options)
            except VisionError:
                raise
            except BaseException as error:
                if not _is_about_files(error):
                    raise
                logger.warning("%s cannot be read", checkpoint.model_id, exc_info=True)
                raise refuse(checkpoint.model_id, "its files contradict each other or are damaged") from None

    return guarded  # type: ignore[return-value]


def _is_about_files(error: BaseException) -> bool:
    """Whether an error comes from what was read, rather than from the machine or from whoever ends the process."""
    if isinstance(error, MemoryError) or type(error).__name__ in ("OutOfMemoryError", "AcceleratorError"):
        return False
    if isinstance(error, RuntimeError) and re.search("allocate memory|CUDA|cuDNN|out of memory", str(error)):
        return False
    # The panics of extensions in Rust are no Exceptions.
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


@contextmanager
def opened(checkpoint: Checkpoint) -> Iterator[Checkpoint]:
    """The checkpoint in a folder of its own, with its checked files alone, for as long as they are read.

    Raises:
        NotFound: a file breaks a rule.
        InsufficientMemory: there is no folder for temporary files.
    """
    try:
        folder = tempfile.TemporaryDirectory(prefix="checkpoint-", ignore_cleanup_errors=True)
    except OSError as error:
        raise InsufficientMemory(
            f"There is no writable folder for temporary files, which loading a model needs ({error.strerror}). Set "
            "TMPDIR to one."
        ) from None
    with folder as path:
        try:
            _fill(Path(path), checkpoint)
        except Unreadable as error:
            raise refuse(checkpoint.model_id, str(error)) from None
        yield replace(checkpoint, folder=Path(path))


def _fill(view: Path, checkpoint: Checkpoint) -> None:
    model_id, source = checkpoint.model_id, Source(checkpoint.folder)
    weights = source.named("*.safetensors")
    tensors = 0
    for path in weights:
        tensors += len(tensor_shapes(source.regular(path.name)))
        _link(view, source, path.name)
    for index in source.named("*.safetensors.index.json"):
        (view / index.name).write_text(json.dumps(_checked_index(model_id, source, index, weights)))
    for name in CLEANED:
        if source.has(name):
            content = read_json(source.regular(name), MAX_CONFIG_BYTES)
            if name == "config.json" and _has(content, "auto_map") and source.has(open_clip_config.NAME):
                # Without its code it describes something else than OpenCLIP's file, which needs none.
                continue
            content = Cleaner(model_id, name, tensors).clean(content)
            if name == "generation_config.json":
                content = clean_generation(content)
            (view / name).write_text(json.dumps(content))
    for pattern, limit in LINKED.items():
        for path in source.named(pattern):
            with open_regular(source.regular(path.name)) as file:
                if os.fstat(file.fileno()).st_size > limit:
                    raise Unreadable(f"{path.name} has more than {limit:,} bytes")
            _link(view, source, path.name)
    if model_id in BUNDLED_PICKLES:
        for path in source.named("*.pth"):
            _link(view, source, path.name)
    if source.has(open_clip_config.NAME):
        content = open_clip_config.checked(model_id, read_json(source.regular(open_clip_config.NAME), MAX_CONFIG_BYTES))
        (view / open_clip_config.NAME).write_text(json.dumps(content))
    _fill_sentence_files(view, model_id, source)
    if source.has("tokenizer.json"):
        check_tokenizer(model_id, view / "tokenizer.json")


def _fill_sentence_files(view: Path, model_id: str, source: Source) -> None:
    """Those that only code of ours reads, with the folders that they name."""
    for name in sentence_files.NAMES:
        if source.has(name):
            (view / name).write_text(json.dumps(read_json(source.regular(name))))
    folders = {path for _, path in sentence_files.steps(Checkpoint(model_id, view)) if path}
    for name in folders:
        if not _PLAIN_NAME.fullmatch(name):
            raise Unreadable(f"modules.json names the folder {name[:80]!r}, which is none of the checkpoint's own")
        (view / name).mkdir(exist_ok=True)
        inner = Source(source.folder / name, source.roots)
        if inner.has("config.json"):
            (view / name / "config.json").write_text(json.dumps(read_json(inner.regular("config.json"))))
        for path in inner.named("*.safetensors"):
            tensor_shapes(inner.regular(path.name))
            _link(view / name, inner, path.name)


def _has(content: Any, key: str) -> bool:
    return isinstance(content, dict) and key in content


def _link(view: Path, source: Source, name: str) -> None:
    (view / name).symlink_to(source.regular(name))


def _checked_index(model_id: str, source: Source, path: Path, weights: list[Path]) -> dict[str, Any]:
    """Which file each tensor is in. Raises Unreadable for a file that is none of the checkpoint's own."""
    content = read_json(source.regular(path.name))
    shards = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(shards, dict):
        raise Unreadable(f"{path.name} is damaged")
    known = {each.name for each in weights}
    for shard in shards.values():
        if not isinstance(shard, str) or shard not in known:
            raise Unreadable(f"{path.name} names {str(shard)[:80]!r}, which is none of its weight files")
    return {"metadata": {}, "weight_map": shards}


class Source:
    """A checkpoint's own folder, of which regular files are read, and links that stay inside.

    In the Hugging Face cache a checkpoint's files are links to `blobs` beside it, which belong to it.

    Args:
        roots: where its files may lie; None for the folder, and what belongs to it in the cache.
    """

    def __init__(self, folder: Path, roots: tuple[Path, ...] | None = None) -> None:
        self.folder = folder
        self.roots = roots or own_folders(folder)

    def has(self, name: str) -> bool:
        return os.path.lexists(self.folder / name)

    def named(self, pattern: str) -> list[Path]:
        """Files of a pattern, but for those of adapters, which need a second repository."""
        found = [path for path in self.folder.glob(pattern) if not path.name.startswith("adapter_")]
        if len(found) > MAX_FILES:
            raise Unreadable(f"it has more than {MAX_FILES:,} files")
        return sorted(found)

    def regular(self, name: str) -> Path:
        """Where a file really lies. Raises Unreadable where that is outside of the checkpoint, or no regular file."""
        try:
            path = (self.folder / name).resolve(strict=True)
        except (OSError, RuntimeError):
            raise Unreadable(f"{name} is missing, or a link to nothing") from None
        if not any(path.is_relative_to(root) for root in self.roots):
            raise Unreadable(f"{name} is a link to a place outside of its folder")
        if not path.is_file():
            raise Unreadable(f"{name} is no regular file")
        return path


def own_folders(folder: Path) -> tuple[Path, ...]:
    """Where the files of a checkpoint in that folder may lie."""
    real = folder.resolve()
    cached, blobs = real.parent.parent, real.parent.parent / "blobs"
    # No link: it could make any folder the checkpoint's own.
    in_cache = real.parent.name == "snapshots" and cached.name.startswith("models--") and not blobs.is_symlink()
    return (real, blobs) if in_cache else (real,)
