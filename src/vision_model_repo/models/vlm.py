"""Vision-language models, which continue a conversation about images.

Whatever transformers' `AutoModelForImageTextToText` and `AutoProcessor` load from safetensors without remote code:
SmolVLM (https://huggingface.co/HuggingFaceTB/SmolVLM2-500M-Video-Instruct), Qwen-VL, Llava, Florence-2 and others.
Answers are generated one beside the other, a moment each in turn, and not as one batch: padding would let an answer
depend on its company.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import nn
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from vision_model_repo.errors import InvalidInput, NotFound
from vision_model_repo.models.base import Checkpoint, GenerativeModel
from vision_model_repo.models.chat_template import ChatTemplate
from vision_model_repo.models.checkpoint_files import reads_checkpoint
from vision_model_repo.models.generation import Sampler, Writer, check_generation, generate
from vision_model_repo.models.helper_process import HelperRefused
from vision_model_repo.models.token_ids import check_ids, rows_of
from vision_model_repo.models.torch_model import TorchModel, place, read, read_config, read_prompt_processor
from vision_model_repo.tasks.chat import (
    USUAL_NEW_TOKENS,
    ChatMessage,
    ChatRequest,
    ChatResult,
    FinishReason,
    Part,
    TokenUsage,
)

logger = logging.getLogger(__name__)

AS_WRITTEN = "{{ written }}"
PASS_SECONDS = 0.05
"""How long an answer is carried on before others may have the device; short to wait for, long beside the change."""
AT_ONCE = 8
"""Answers under way at once. Each holds what its prompt left in the memory of the device."""


@dataclass(slots=True)
class Item:
    """One answer under way.

    Attributes:
        inputs: of the prompt, in host memory.
        prompt_tokens: of it.
        limit: most tokens of the answer.
        steps: the network at work; None before it begins.
        finish_reason: None while the answer goes on.
        abandoned: whether nobody waits for it any more.
    """

    inputs: Any
    prompt_tokens: int
    limit: int
    sampler: Sampler
    stop: tuple[str, ...]
    writer: Writer
    steps: Iterator[tuple[int, bool]] | None = None
    finish_reason: FinishReason | None = None
    abandoned: bool = False


class VisionLanguageModel(TorchModel[ChatRequest, Item, ChatResult, ChatResult], GenerativeModel):
    """A vision-language model on one device.

    Args:
        network: of a class that `AutoModelForImageTextToText` knows.
        processor: writes conversations as the network was taught to read them, where it has a chat template.
    """

    def __init__(self, checkpoint: Checkpoint, network: nn.Module, processor: Any) -> None:
        super().__init__(checkpoint, network, max_batch=AT_ONCE)
        self._processor = processor
        self._template = ChatTemplate.of(processor)
        self._rows = rows_of(network)
        # Tokenizers keep state while they read.
        self._processor_lock = threading.Lock()
        self._context = _context_length(self.network.config)
        tokenizer = processor.tokenizer
        special = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
        # Networks that know no conversation may answer in special tokens, such as those for places.
        self._silent = set(tokenizer.all_special_ids if self._template else special)

    @property
    def encoders(self) -> Sequence[nn.Module]:
        """None: code that is compiled for one length would be compiled anew for every token."""
        return ()

    def preprocess(self, request: ChatRequest) -> Item:
        """Raises InvalidInput for a conversation that the model cannot read, or that is too long for it."""
        self._check(request)
        try:
            with self._processor_lock:
                inputs = self._read_conversation(request) if self._template else self._read(request)
        except HelperRefused as error:
            raise InvalidInput(f"The model's chat template refuses these messages: {error}.") from None
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            if isinstance(error, RuntimeError) and "memory" in str(error):
                raise
            logger.warning("%s cannot prepare a conversation", self.model_id, exc_info=True)
            raise InvalidInput(f"The processor of {self.model_id} cannot prepare this conversation.") from None
        check_ids(self.model_id, [inputs["input_ids"].flatten().tolist()], self._rows)
        count = inputs["input_ids"].shape[1]
        return Item(
            inputs=inputs,
            prompt_tokens=count,
            limit=self._limit(count, request.max_new_tokens),
            sampler=Sampler(request.temperature, request.top_p, request.seed),
            stop=request.stop,
            writer=Writer(self._decode, request.stop),
        )

    def forward(self, items: Sequence[Item]) -> list[ChatResult]:
        return [self._carry_on(item) for item in items]

    def finished(self, raw: ChatResult) -> bool:
        return raw.finish_reason is not None

    def abandon(self, item: Item) -> None:
        item.abandoned = True
        item.steps = None

    def postprocess(self, raw: ChatResult, item: Item) -> ChatResult:
        return raw

    def unload(self) -> None:
        if self._template is not None:
            self._template.close()
        super().unload()

    def check_template(self) -> None:
        """Raises NotFound for a chat template that cannot be read, or writes no end of text."""
        if self._template is not None:
            self._template.check(self.model_id)

    def _check(self, request: ChatRequest) -> None:
        if not request.messages:
            raise InvalidInput("Give at least one message.")
        # A text that holds the token of an image would be read as one that is missing.
        tokens = [getattr(self._processor, name, None) for name in ("image_token", "video_token")]
        for token in filter(None, tokens):
            if any(token in text for message in request.messages for text in message.texts):
                raise InvalidInput(f"A message has {token!r} in its text, which this model reads as a picture.")

    def _read_conversation(self, request: ChatRequest) -> Any:
        assert self._template is not None
        messages = [_spelled(message) for message in request.messages]
        return self._processor.apply_chat_template(
            messages,
            # What the checkpoint's own template made of them; this one does nothing but say it.
            chat_template=AS_WRITTEN,
            written=self._template.write(messages),
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )

    def _read(self, request: ChatRequest) -> Any:
        if [message.role for message in request.messages] != ["user"]:
            raise InvalidInput("This model reads one prompt, and no conversation: send one message of the user.")
        [message] = request.messages
        images = [Image.fromarray(image) for image in message.images]
        return self._processor(text="\n".join(message.texts), images=images or None, return_tensors="pt")

    def _limit(self, prompt: int, wanted: int | None) -> int:
        """Most tokens of an answer. Raises InvalidInput where the prompt leaves no room for it."""
        if self._context is None:
            return wanted or USUAL_NEW_TOKENS
        # An encoder reads the prompt by itself, and leaves the decoder all its room.
        room = self._context if self.network.config.is_encoder_decoder else self._context - prompt
        if prompt > self._context or room < max(1, wanted or 1):
            raise InvalidInput(
                f"The prompt has {prompt} tokens, images included, which leaves {max(0, room)} of the {self._context} "
                f"that this model has room for; {wanted or 1} are wanted for the answer. Send less, or ask for less."
            )
        return wanted or min(room, USUAL_NEW_TOKENS)

    def _carry_on(self, item: Item) -> ChatResult:
        """Adds the first token, which takes the longest, or those that a moment suffices for."""
        try:
            with torch.inference_mode():
                self._step_for_a_moment(item)
        except BaseException:
            # Half a step cannot be taken back. What chooses the tokens, chooses the same ones again.
            item.steps = None
            raise
        if item.finish_reason is not None:
            item.steps = None
        usage = TokenUsage(item.prompt_tokens, item.writer.count)
        return ChatResult(item.writer.text(complete=item.finish_reason is not None), item.finish_reason, usage)

    def _step_for_a_moment(self, item: Item) -> None:
        if item.abandoned:
            return
        moment_is_over = time.monotonic() + PASS_SECONDS
        steps = item.steps
        if steps is None:
            steps, moment_is_over = self._begin(item), 0.0
        # In this order: what is abandoned meanwhile must not be held.
        item.steps = steps
        while not item.abandoned:
            token, ended = next(steps)
            item.writer.add(token)
            if ended or item.writer.stopped:
                item.finish_reason = "stop"
            elif item.writer.count >= item.limit:
                item.finish_reason = "length"
            if item.finish_reason is not None or time.monotonic() >= moment_is_over:
                return
        item.steps = None

    def _begin(self, item: Item) -> Iterator[tuple[int, bool]]:
        item.sampler.restart()
        item.writer = Writer(self._decode, item.stop)
        inputs = item.inputs.to(self.device, dtype=getattr(torch, self.dtype))
        return generate(self.network, inputs, item.sampler, limit=item.limit)

    def _decode(self, tokens: list[int]) -> str:
        spoken = [token for token in tokens if token not in self._silent]
        return self._processor.tokenizer.decode(spoken, clean_up_tokenization_spaces=False)


@reads_checkpoint
def load(checkpoint: Checkpoint, *, device: str, dtype: str) -> VisionLanguageModel:
    """Reads a checkpoint of any class that `AutoModelForImageTextToText` knows.

    Raises:
        NotFound: the checkpoint is of another kind, or a part of it is missing.
    """
    kind = read_config(checkpoint).get("model_type")
    if kind not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        raise NotFound(
            f"{checkpoint.model_id} is a checkpoint of the kind {kind!r}, which is no vision-language model that "
            "transformers knows."
        )
    processor: Any = read_prompt_processor(AutoProcessor, checkpoint)  # type: ignore[type-var]
    network: Any = read(AutoModelForImageTextToText, checkpoint)  # type: ignore[type-var]
    check_generation(checkpoint.model_id, network.generation_config, rows_of(network))
    model = VisionLanguageModel(checkpoint, place(network, device=device, dtype=dtype), processor)
    model.check_template()
    return model


def _context_length(config: Any) -> int | None:
    """Tokens that the language model has room for; None where its configuration does not say."""
    text = config.get_text_config()
    return getattr(text, "max_position_embeddings", None) or getattr(text, "n_positions", None)


def _spelled(message: ChatMessage) -> dict[str, Any]:
    """A message as chat templates read it."""
    return {"role": message.role, "content": [_spelled_part(part) for part in message.parts]}


def _spelled_part(part: Part) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    return {"type": "image", "image": Image.fromarray(part)}
