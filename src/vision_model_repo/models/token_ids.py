"""Token ids that a network can look up. One beyond its table ends the work of a GPU for the whole process."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

from vision_model_repo.errors import InvalidInput, NotFound

TABLES = ("word_embeddings", "token_embedding")
"""How tables of words are called in the networks that have one as a part."""


def rows_of(network: Any) -> int | None:
    """Rows of a transformers network's table of tokens; None for one that has none of its own."""
    try:
        table = network.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        return None
    return table.weight.shape[0] if isinstance(getattr(table, "weight", None), nn.Parameter) else None


def check_ids(model_id: str, texts: Iterable[Sequence[int]], rows: int | None) -> None:
    """Raises InvalidInput for a text with a token that the network does not have."""
    if rows is not None and any(ids and not 0 <= min(ids) <= max(ids) < rows for ids in texts):
        raise InvalidInput(f"The tokenizer of {model_id} reads a token in this text that its network does not have.")


def check_vocabulary(model_id: str, tokenizer: Any, network: nn.Module) -> None:
    """Raises NotFound for a tokenizer with any token that a table of words in the network does not have."""
    tables = [
        module.num_embeddings
        for name, module in network.named_modules()
        if isinstance(module, nn.Embedding) and name.endswith(TABLES)
    ]
    most = max(tokenizer.get_vocab().values(), default=0)
    if any(most >= rows for rows in tables):
        raise NotFound(f"The tokenizer of {model_id} has tokens that its network, with {min(tables):,}, does not have.")
