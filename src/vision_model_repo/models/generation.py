"""Text, token by token: how the next token is chosen, when the text ends, and what of it can be read already.

transformers' `generate` prepares inputs, cache and the checkpoint's own rules for every kind of network; its loop is
replaced by one that can be left after any token and entered again, so that a long answer does not keep the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from vision_model_repo.errors import NotFound

UNREADABLE = "\ufffd"
"""Stands for bytes that are no character yet."""
LONGEST_SEED = 2**64
COLDEST = torch.finfo(torch.float32).tiny


class Sampler:
    """Chooses tokens.

    Args:
        temperature: 0 for the most probable token each time.
        top_p: share of the probability that the tokens to choose from make up together.
        seed: None for another choice each time.
    """

    def __init__(self, temperature: float, top_p: float, seed: int | None) -> None:
        self._temperature = temperature
        self._top_p = top_p
        # On the CPU: a seed then means the same on every device.
        self._random = torch.Generator()
        self._seed = self._random.seed() if seed is None else seed % LONGEST_SEED
        self.restart()

    def restart(self) -> None:
        """The same choices again from here on."""
        self._random.manual_seed(self._seed)

    def __call__(self, scores: Tensor) -> int:
        """One token by the scores (V,) of all."""
        if self._temperature == 0:
            return int(scores.argmax())
        # From the highest score down, and by no less than float32 can divide by: a tiny temperature makes no infinity
        # of the highest one, and all others impossible.
        scores = (scores.float() - scores.max()) / max(self._temperature, COLDEST)
        ranked, tokens = scores.softmax(dim=0).sort(descending=True, stable=True)
        # The most probable token stays, however little it takes to pass the share.
        before = ranked.cumsum(dim=0) - ranked
        ranked[1:][before[1:] >= self._top_p] = 0
        return int(tokens[torch.multinomial(ranked.cpu(), 1, generator=self._random)])


def generate(
    network: Any, inputs: Mapping[str, Any], choose: Callable[[Tensor], int], *, limit: int
) -> Iterator[tuple[int, bool]]:
    """Tokens of one answer, and with each whether the checkpoint ends there. The network runs as they are asked for.

    Args:
        network: of a class that transformers can generate with.
        inputs: of the prompt, on the network's device, with a batch of one.
        choose: a token by the scores (V,) of all.
        limit: most tokens that will be asked for.
    """
    return network.generate(
        **inputs, custom_generate=_steps, choose=choose, max_new_tokens=limit, do_sample=False, num_beams=1
    )


def _steps(
    network: Any,
    input_ids: Tensor,
    *,
    logits_processor: Callable[[Tensor, Tensor], Tensor],
    stopping_criteria: Any,
    generation_config: Any,
    choose: Callable[[Tensor], int],
    **state: Any,
) -> Iterator[tuple[int, bool]]:
    """What transformers calls a custom generation loop, as an iterator."""
    ends = _as_set(generation_config.eos_token_id)
    new_tokens: int | None = None
    while True:
        inputs = network.prepare_inputs_for_generation(
            input_ids, next_sequence_length=new_tokens, is_first_iteration=new_tokens is None, **state
        )
        outputs = network(**inputs, return_dict=True)
        state = network._update_model_kwargs_for_generation(
            outputs, state, is_encoder_decoder=network.config.is_encoder_decoder
        )
        # A copy: the scores of a long prompt are not to be kept for those of its end.
        scores = logits_processor(input_ids, outputs.logits[:, -1].to(copy=True, dtype=torch.float32))
        del outputs, inputs
        token = choose(scores[0])
        input_ids = torch.cat([input_ids, input_ids.new_tensor([[token]])], dim=1)
        new_tokens = 1
        yield token, token in ends


def _as_set(tokens: int | Sequence[int] | None) -> frozenset[int]:
    if tokens is None:
        return frozenset()
    return frozenset([tokens] if isinstance(tokens, int) else tokens)


IDS = ("bos", "eos", "pad", "decoder_start", "forced_bos", "forced_eos")
COUNTS = ("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "min_length", "min_new_tokens")
PENALTIES = ("repetition_penalty", "encoder_repetition_penalty")


def check_generation(model_id: str, config: Any, rows: int | None) -> None:
    """Raises NotFound for rules of a checkpoint by which no answer could be generated.

    Args:
        config: transformers' GenerationConfig.
        rows: tokens that the network has.
    """

    def tokens(value: Any) -> bool:
        return value is None or all(type(each) is int and 0 <= each < (rows or 2**31) for each in _listed(value))

    words = config.bad_words_ids
    single = [getattr(config, f"{name}_token_id", None) for name in IDS]
    counts = [getattr(config, name, None) for name in COUNTS]
    penalties = [getattr(config, name, None) for name in PENALTIES]
    if not (
        all(map(tokens, (*single, config.suppress_tokens, config.begin_suppress_tokens)))
        and all(value is None or (type(value) is int and value >= 0) for value in counts)
        and all(value is None or (type(value) in (int, float) and 1e-3 <= value <= 1e3) for value in penalties)
        and (words is None or (isinstance(words, list) and all(isinstance(w, list) and w and tokens(w) for w in words)))
    ):
        raise NotFound(f"The generation_config.json of {model_id} has tokens or numbers by which nothing is generated.")


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else [value]


class Writer:
    """Turns tokens into text, as far as it is settled.

    Args:
        decode: the text of some tokens.
        stop: texts before which the text ends.
    """

    def __init__(self, decode: Callable[[list[int]], str], stop: Sequence[str]) -> None:
        self._decode = decode
        self._stop = [text for text in stop if text]
        self._tokens: list[int] = []
        # Tokens that are text already, and those before them that a tokenizer needs to see for the right spaces.
        self._read = self._context = 0
        self._text = ""
        self.stopped = False

    @property
    def count(self) -> int:
        """Tokens so far."""
        return len(self._tokens)

    def add(self, token: int) -> None:
        """Adds a token, and sees whether a stop text is complete."""
        self._tokens.append(token)
        self._settle(complete=False)

    def text(self, *, complete: bool) -> str:
        """The text so far. What may be the beginning of a stop text is held back until the text is complete."""
        if complete:
            self._settle(complete=True)
            return self._text
        return self._text[: len(self._text) - max((_overlap(self._text, stop) for stop in self._stop), default=0)]

    def _settle(self, *, complete: bool) -> None:
        if self.stopped or self._read == len(self._tokens):
            return
        known = self._decode(self._tokens[self._context : self._read])
        text = self._decode(self._tokens[self._context :])
        if not complete and (text.endswith(UNREADABLE) or len(text) <= len(known)):
            return
        self._context, self._read = self._read, len(self._tokens)
        settled = len(self._text)
        self._text += text[len(known) :]
        for stop in self._stop:
            if (place := self._text.find(stop, max(0, settled - len(stop) + 1))) >= 0:
                self._text = self._text[:place]
                self.stopped = True


def _overlap(text: str, stop: str) -> int:
    """Characters at the end of a text that a stop text begins with."""
    return next((size for size in range(min(len(stop), len(text)), 0, -1) if text.endswith(stop[:size])), 0)
