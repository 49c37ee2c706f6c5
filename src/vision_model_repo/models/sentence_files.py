"""What the files of a sentence-transformers checkpoint say beside its weights: how tokens become one vector.

They are those of https://github.com/UKPLab/sentence-transformers: modules.json lists the steps, each with a folder of
its own. A checkpoint without them is read as that library reads it: the mean over the tokens.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from vision_model_repo.errors import NotFound
from vision_model_repo.models.base import Checkpoint

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
    for module in _read(checkpoint, "modules.json", [{"type": "Transformer", "path": ""}]):
        kind, path = str(module["type"]).rpartition(".")[2], str(module["path"])
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
    return SentenceFiles(
        **found,
        max_tokens=limits.get("max_seq_length"),
        lower_case=bool(limits.get("do_lower_case")),
        prompts=_prompts(checkpoint, words.get("prompts") or {}),
        default_prompt=words.get("default_prompt_name"),
    )


def _pooling(checkpoint: Checkpoint, path: str) -> dict[str, Any]:
    config = _read(checkpoint, f"{path}/config.json", {})
    given = config.get("pooling_mode")
    if given is None:
        modes = tuple(mode for key, mode in POOLING_MODES.items() if config.get(key)) or ("mean",)
    else:
        modes = (given,) if isinstance(given, str) else tuple(given)
    if unknown := set(modes) - set(POOLING_MODES.values()):
        raise NotFound(f"{checkpoint.model_id} pools by {min(unknown)!r}, which this server does not know.")
    return {"pooling": modes, "pool_prompt": config.get("include_prompt", True)}


def _prompts(checkpoint: Checkpoint, given: Mapping[str, str]) -> Mapping[str, str]:
    """Those of the files that have any words, or else those that the checkpoint is known for."""
    if prompts := {name: words for name, words in given.items() if words}:
        return prompts
    known = (words for pattern, words in KNOWN_PROMPTS.items() if fnmatchcase(checkpoint.model_id.lower(), pattern))
    return next(known, {})


def _read(checkpoint: Checkpoint, name: str, default: Any) -> Any:
    path = checkpoint.folder / name
    if not path.is_file():
        return default
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        content = None
    if type(content) is not type(default):
        raise NotFound(f"The {name} of {checkpoint.model_id} is damaged. Get it again.")
    return content
