"""What the files of a sentence-transformers checkpoint say beside its weights: how tokens become one vector.

They are those of https://github.com/UKPLab/sentence-transformers: modules.json lists the steps, each with a folder of
its own. A checkpoint without them is read as that library reads it: the mean over the tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from vision_model_repo.errors import NotFound
from vision_model_repo.models.base import Checkpoint
from vision_model_repo.models.plain_files import Unreadable, read_json

MODULES = "modules.json"
NAMES = (MODULES, "sentence_bert_config.json", "config_sentence_transformers.json")
"""The files in a checkpoint's own folder; each step may have a folder inside it."""
POOLING_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""In the order in which their vectors are put one after the other, where there are several."""
KNOWN_PROMPTS = {
    "*e5-small*": {"query": "query: ", "passage": "passage: "},
    "*e5-base*": {"query": "query: ", "passage": "passage: "},
    "*e5-large*": {"query": "query: ", "passage": "passage: "},
}
"""Of checkpoints whose card has them and whose files have not, by pattern of their names."""


@dataclass(frozen=True, slots=True)
class SentenceFiles:
    """How a checkpoint embeds.

    Attributes:
        pooling: how the vectors of a text's tokens become one; several are put one after the other.
        pool_prompt: whether the tokens of a prompt count among them.
        dense: folders of linear layers that follow.
        normalize: whether vectors have unit length, whatever is asked for.
        max_tokens: most tokens that are read, those at the ends included; None for what the network can.
        lower_case: whether texts are read in lower case.
        prompts: words to put before a text, by name.
        default_prompt: name of those that are put where none are asked for.
    """

    pooling: tuple[str, ...] = ("mean",)
    pool_prompt: bool = True
    dense: tuple[Path, ...] = ()
    normalize: bool = False
    max_tokens: int | None = None
    lower_case: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None


def read_sentence_files(checkpoint: Checkpoint) -> SentenceFiles:
    """Raises NotFound for a step that this server does not know, or a file that is damaged."""
    found: dict[str, Any] = {"dense": ()}
    for kind, path in steps(checkpoint):
        if kind == "Transformer" and not path:
            continue
        if kind == "Pooling":
            found |= _pooling(checkpoint, path)
        elif kind == "Dense":
            found["dense"] += (checkpoint.folder / path,)
        elif kind == "Normalize":
            found["normalize"] = True
        else:
            raise NotFound(f"{checkpoint.model_id} has a step {kind!r} in {path!r}, which this server does not know.")
    limits = _read(checkpoint, "sentence_bert_config.json", {})
    words = _read(checkpoint, "config_sentence_transformers.json", {})
    most, default = limits.get("max_seq_length"), words.get("default_prompt_name")
    if not (most is None or (type(most) is int and most > 0)) or not isinstance(default, str | None):
        raise _damaged(checkpoint, "sentence_bert_config.json" if isinstance(default, str | None) else NAMES[2])
    return SentenceFiles(
        **found,
        max_tokens=most,
        lower_case=bool(limits.get("do_lower_case")),
        prompts=_prompts(checkpoint, words.get("prompts") or {}),
        default_prompt=default,
    )


def steps(checkpoint: Checkpoint) -> Iterator[tuple[str, str]]:
    """The kind of every step and its folder, "" for the checkpoint's own. Raises NotFound for a damaged file."""
    for module in _read(checkpoint, MODULES, [{"type": "Transformer", "path": ""}]):
        match module:
            case {"type": str(kind), "path": str(path)}:
                yield kind.rpartition(".")[2], path
            case _:
                raise _damaged(checkpoint, MODULES)


def _pooling(checkpoint: Checkpoint, path: str) -> dict[str, Any]:
    config = _read(checkpoint, f"{path}/config.json", {})
    given = config.get("pooling_mode")
    if given is None:
        modes = tuple(mode for key, mode in POOLING_MODES.items() if config.get(key)) or ("mean",)
    else:
        modes = tuple(map(str, given)) if isinstance(given, list) else (str(given),)
    if unknown := set(modes) - set(POOLING_MODES.values()):
        raise NotFound(f"{checkpoint.model_id} pools by {min(unknown)!r}, which this server does not know.")
    if len(modes) > len(POOLING_MODES):
        raise _damaged(checkpoint, f"{path}/config.json")
    return {"pooling": modes, "pool_prompt": bool(config.get("include_prompt", True))}


def _prompts(checkpoint: Checkpoint, given: Any) -> Mapping[str, str]:
    """Those of the files that have any words, or else those that the checkpoint is known for."""
    if not isinstance(given, dict) or not all(isinstance(words, str | None) for words in given.values()):
        raise _damaged(checkpoint, NAMES[2])
    if prompts := {name: words for name, words in given.items() if words}:
        return prompts
    known = (words for pattern, words in KNOWN_PROMPTS.items() if fnmatchcase(checkpoint.model_id.lower(), pattern))
    return next(known, {})


def _read(checkpoint: Checkpoint, name: str, default: Any) -> Any:
    path = checkpoint.folder / name
    if not path.is_file():
        return default
    try:
        content = read_json(path)
    except Unreadable:
        content = None
    if type(content) is not type(default):
        raise _damaged(checkpoint, name)
    return content


def _damaged(checkpoint: Checkpoint, name: str) -> NotFound:
    return NotFound(f"The {name} of {checkpoint.model_id} is damaged. Get it again.")
