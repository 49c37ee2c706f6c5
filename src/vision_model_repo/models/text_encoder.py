"""Text encoders in the manner of sentence-transformers: one vector for a text, near those of like meaning.

Sentence-BERT (Reimers and Gurevych, 2019; https://sbert.net), E5 (Wang et al., 2022), BGE and others, through
transformers; how tokens become one vector is read from the checkpoint's own files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, T5EncoderModel

from vision_model_repo.errors import InvalidInput, NotFound
from vision_model_repo.models.base import Checkpoint
from vision_model_repo.models.checkpoint_files import reads_checkpoint
from vision_model_repo.models.sentence_files import SentenceFiles, read_sentence_files
from vision_model_repo.models.token_ids import check_ids, rows_of
from vision_model_repo.models.torch_model import UNTRUSTED, TorchModel, place, read, read_config, read_json
from vision_model_repo.tasks.embedding import EmbeddingRequest, EmbeddingResult, unit_length

MAX_BATCH = 32
"""Requests in one pass."""
MAX_TOKENS_AT_ONCE = 16_384
"""In one run of the network, padding included."""
MAX_STRETCH = 2
"""Most times that a text is made longer by padding, beside shorter ones of the same run."""
TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "tokenizer.model",
    "sentencepiece.bpe.model",
    "spiece.model",
)
"""Of which a tokenizer needs at least one."""
USUAL_MAX_TOKENS = 512
"""Of checkpoints that do not say."""
POSITIONS_FROM_PADDING = ("roberta", "xlm-roberta", "camembert", "mpnet", "xmod")
"""Kinds of networks that count positions from behind the padding token's id."""


@dataclass(frozen=True, slots=True)
class Row:
    """A text in tokens.

    Attributes:
        ids: of the tokens, those that begin and end it included.
        skipped: tokens at its beginning that do not count in its vector.
    """

    ids: Sequence[int]
    skipped: int = 0


@dataclass(frozen=True, slots=True)
class Item:
    """The texts of a request, and the places of those that were cut."""

    rows: tuple[Row, ...]
    truncated: tuple[int, ...]
    normalize: bool


class SentenceNetwork(nn.Module):
    """A transformer, and what makes one vector of those of its tokens."""

    def __init__(self, transformer: PreTrainedModel, dense: Sequence[nn.Module], pooling: Sequence[str]) -> None:
        super().__init__()
        self.transformer: Any = transformer
        self.dense = nn.Sequential(*dense)
        self.pooling = tuple(pooling)

    def forward(self, ids: Tensor, mask: Tensor | None, counted: Tensor) -> Tensor:
        """(N, D) of tokens (N, T), a mask of those that are there, and one of those that count."""
        hidden = self.transformer(input_ids=ids, attention_mask=mask).last_hidden_state
        pooled = torch.cat([pool(mode, hidden.float(), counted) for mode in self.pooling], dim=1)
        return self.dense(pooled.to(hidden.dtype)).float() if len(self.dense) else pooled


class TextEncoder(TorchModel[EmbeddingRequest, Item, NDArray[np.float32], EmbeddingResult]):
    """A text encoder on one device."""

    def __init__(self, checkpoint: Checkpoint, network: SentenceNetwork, tokenizer: Any, files: SentenceFiles) -> None:
        super().__init__(checkpoint, network, max_batch=MAX_BATCH)
        self._files = files
        self._rows = rows_of(network.transformer)
        self._padding = tokenizer.pad_token_id or 0
        self._ends = {tokenizer.sep_token_id, tokenizer.eos_token_id, tokenizer.cls_token_id}
        # The library below the tokenizer: it takes a fifth of the time, and is set here once for all threads. Files
        # may ask for padding, to a length that their author found useful.
        self._tokenizer = tokenizer.backend_tokenizer
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(_max_tokens(files, tokenizer, network.transformer.config, self._padding))

    @property
    def encoders(self) -> Sequence[nn.Module]:
        return [self.network.transformer]

    def preprocess(self, request: EmbeddingRequest) -> Item:
        if request.images:
            raise InvalidInput("This model does not support image inference. It embeds texts.")
        if not request.texts:
            raise InvalidInput("There is nothing to embed. Give at least one text.")
        prompt = self._prompt(request.prompt)
        texts = [prompt + text for text in request.texts]
        if self._files.lower_case:
            texts = [text.lower() for text in texts]
        # Fast, since it does not tell where in a text each token is.
        encodings = self._tokenizer.encode_batch_fast(texts)
        skipped = 0 if self._files.pool_prompt or not prompt else self._length(prompt)
        check_ids(self.model_id, (each.ids for each in encodings), self._rows)
        rows = tuple(Row(each.ids, skipped) for each in encodings)
        return Item(rows, tuple(place for place, each in enumerate(encodings) if each.overflowing), request.normalize)

    def forward(self, items: Sequence[Item]) -> list[NDArray[np.float32]]:
        rows = [row for item in items for row in item.rows]
        vectors: list[Any] = [None] * len(rows)
        with torch.inference_mode():
            for places in runs([len(row.ids) for row in rows]):
                for place, vector in zip(places, self._embed([rows[place] for place in places]), strict=True):
                    vectors[place] = vector
        ends = np.cumsum([len(item.rows) for item in items])[:-1]
        return np.split(np.stack(vectors), ends)

    def postprocess(self, raw: NDArray[np.float32], item: Item) -> EmbeddingResult:
        vectors = unit_length(raw) if item.normalize or self._files.normalize else raw
        return EmbeddingResult(vectors, item.truncated, sum(len(row.ids) for row in item.rows))

    def _embed(self, rows: Sequence[Row]) -> NDArray[np.float32]:
        """(N, D) of texts that are padded to the longest of them."""
        lengths = np.array([len(row.ids) for row in rows])
        ids = np.full((len(rows), lengths.max()), self._padding)
        for padded, row in zip(ids, rows, strict=True):
            padded[: len(row.ids)] = row.ids
        places = np.arange(ids.shape[1])
        there = places < lengths[:, None]
        counted = there & (places >= np.array([row.skipped for row in rows])[:, None])
        # Without padding there is nothing to mask, and the network takes a shorter way.
        mask = None if there.all() else self._on_device(there.astype(np.int64))
        return self.network(self._on_device(ids), mask, self._on_device(counted)).cpu().numpy()

    def _on_device(self, values: NDArray[Any]) -> Tensor:
        return torch.from_numpy(values).to(self.device, non_blocking=True)

    def _prompt(self, name: str | None) -> str:
        name = self._files.default_prompt if name is None else name
        if name is None:
            return ""
        if name not in self._files.prompts:
            known = ", ".join(self._files.prompts) or "none"
            raise InvalidInput(f"{self.model_id} has no prompt {name[:80]!r}. It has: {known}.")
        return self._files.prompts[name]

    def _length(self, prompt: str) -> int:
        """Tokens of a prompt, without the one that ends a text."""
        ids = self._tokenizer.encode(prompt).ids
        return len(ids) - (ids[-1] in self._ends)


def runs(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Places of texts that share a run of the network: of like length, so that little of it is padding."""
    run: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        full = (len(run) + 1) * lengths[index] > MAX_TOKENS_AT_ONCE
        if run and (full or lengths[index] > MAX_STRETCH * lengths[run[0]]):
            yield run
            run = []
        run.append(index)
    if run:
        yield run


def pool(mode: str, hidden: Tensor, counted: Tensor) -> Tensor:
    """(N, D) from the vectors (N, T, D) of tokens, of which those count that the mask (N, T) says."""
    weights = counted[..., None].to(hidden.dtype)
    if mode == "cls":
        # The first that counts.
        return _at(hidden, counted.int().argmax(dim=1))
    if mode == "lasttoken":
        places = torch.arange(counted.shape[1], device=counted.device)
        return _at(hidden, (places * counted).argmax(dim=1))
    if mode == "max":
        return hidden.masked_fill(~counted[..., None], -torch.inf).amax(dim=1)
    if mode == "weightedmean":
        weights = weights * torch.arange(1, hidden.shape[1] + 1, device=hidden.device)[:, None]
    total = weights.sum(dim=1).clamp(min=1e-9)
    return (hidden * weights).sum(dim=1) / (total.sqrt() if mode == "mean_sqrt_len_tokens" else total)


@reads_checkpoint
def load(checkpoint: Checkpoint, *, device: str, dtype: str) -> TextEncoder:
    """Reads a text encoder of any kind that transformers knows.

    Raises:
        NotFound: the checkpoint is no such, or its files ask for what this server does not know.
    """
    kind = read_config(checkpoint).get("model_type")
    files = read_sentence_files(checkpoint)
    # Many are saved without the layer that makes something else of the first token, which is not used here.
    network_class: Any = T5EncoderModel if kind in ("t5", "mt5") else AutoModel
    transformer = read(network_class, checkpoint, needless=("pooler.",))
    dense = [_read_dense(checkpoint, str(folder.relative_to(checkpoint.folder))) for folder in files.dense]
    network = SentenceNetwork(transformer, dense, files.pooling)
    _check(checkpoint, network)
    return TextEncoder(checkpoint, place(network, device=device, dtype=dtype), _read_tokenizer(checkpoint), files)


def _check(checkpoint: Checkpoint, network: SentenceNetwork) -> None:
    """Raises NotFound for a network that wants more than a text, an image mostly, or makes something else of it."""
    token = torch.zeros((1, 1), dtype=torch.int64)
    try:
        with torch.inference_mode():
            network.eval()(token, None, token == 0)
    except (AttributeError, TypeError, ValueError):
        kind = type(network.transformer).__name__
        raise NotFound(
            f"{checkpoint.model_id} is no text encoder: its network, {kind}, needs more than text."
        ) from None


def _at(hidden: Tensor, places: Tensor) -> Tensor:
    return hidden[torch.arange(len(hidden), device=hidden.device), places]


def _max_tokens(files: SentenceFiles, tokenizer: Any, config: Any, padding: int) -> int:
    positions = getattr(config, "max_position_embeddings", None)
    if positions and config.model_type in POSITIONS_FROM_PADDING:
        positions -= padding + 1
    # A tokenizer that knows no limit gives an astronomical one.
    usual = min(tokenizer.model_max_length, positions or USUAL_MAX_TOKENS)
    wanted = files.max_tokens or usual
    return min(wanted, positions) if positions else wanted


def _read_tokenizer(checkpoint: Checkpoint) -> Any:
    tokenizer: Any = None
    # Where there is none of these, transformers makes up a tokenizer that knows no words.
    if any((checkpoint.folder / name).is_file() for name in TOKENIZER_FILES):
        with suppress(OSError, ValueError):
            tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder, **UNTRUSTED)
    if not getattr(tokenizer, "is_fast", False):
        raise NotFound(f"{checkpoint.model_id} has no tokenizer.json that can be read. Get its JSON files again.")
    return tokenizer


def _read_dense(checkpoint: Checkpoint, folder: str) -> nn.Module:
    """A linear layer and what follows it."""
    config = read_json(checkpoint, f"{folder}/config.json")
    name = str(config.get("activation_function", "torch.nn.modules.activation.Tanh")).rpartition(".")[2]
    activations = {"Tanh": nn.Tanh, "Identity": nn.Identity, "ReLU": nn.ReLU, "GELU": nn.GELU, "SiLU": nn.SiLU}
    if name not in activations:
        raise NotFound(f"{checkpoint.model_id} asks for {name!r} in {folder}, which this server does not know.")
    try:
        weights = load_file(checkpoint.folder / folder / "model.safetensors")
    except (OSError, SafetensorError):
        raise NotFound(f"{checkpoint.model_id} has no whole safetensors weights in {folder}.") from None
    named = {name.removeprefix("linear."): weight for name, weight in weights.items()}
    size = (config.get("out_features"), config.get("in_features"))
    if "weight" not in named or named["weight"].shape != size:
        raise NotFound(f"The weights of {checkpoint.model_id} in {folder} are not of the size that its files say.")
    linear = nn.Linear(named["weight"].shape[1], named["weight"].shape[0], bias=bool(config.get("bias", True)))
    linear.load_state_dict(named)
    return nn.Sequential(linear, activations[name]())
