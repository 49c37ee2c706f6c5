"""Grounding DINO, which finds boxes for a list of phrases.

Grounding DINO (https://huggingface.co/IDEA-Research/grounding-dino-base), through transformers'
`GroundingDinoForObjectDetection`. The network reads all phrases as one caption, `phrase. phrase.`, and scores every
token of it for every query. Here each phrase keeps its tokens, so that an answer's label is a phrase as it was
written, and never the words that happened to score.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.ops import box_convert
from transformers import GroundingDinoForObjectDetection, GroundingDinoProcessor
from transformers.image_transforms import get_size_with_aspect_ratio

from vision_model_repo.errors import InvalidInput
from vision_model_repo.formats.boxes import box_area, clip_boxes
from vision_model_repo.models.base import Checkpoint
from vision_model_repo.models.checkpoint_files import reads_checkpoint
from vision_model_repo.models.token_ids import check_vocabulary
from vision_model_repo.models.torch_model import (
    ImageInput,
    TorchModel,
    check_architecture,
    place,
    read,
    read_prompt_processor,
)
from vision_model_repo.tasks.detection import DetectionRequest, DetectionResult

DELIMITERS = ("[CLS]", "[SEP]", ".", "?")
"""Tokens between which the words of a caption read each other; so none may stand inside a phrase."""
NEARLY_BEST = 0.7
"""Share of a box's best score from which another phrase labels it too.

Phrases may both be true ("red cube", "cube") or exclude each other ("cat", "dog"). With the best phrase alone, the
embedded checkpoint answers 47 % of the phrases in a request of the first kind; with every phrase above the threshold,
18 % of its answers to the second kind are wrong. From here on it is 86 % and 14 %.
"""


@dataclass(frozen=True, slots=True)
class Caption:
    """Token ids (T,) of some phrases, and of each phrase its words as written and where its tokens begin and end."""

    token_ids: Tensor
    phrases: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Item:
    """One image as `ImageInput` prepares it, with its original size and the captions to read it against."""

    pixels: Tensor
    height: int
    width: int
    captions: tuple[Caption, ...]
    threshold: float


@dataclass(frozen=True, slots=True)
class Scored:
    """What the queries say of one caption: probabilities (Q, T) of its tokens and boxes (Q, 4) xyxy 0..1."""

    probabilities: NDArray[np.float32]
    boxes: NDArray[np.float32]


class GroundingDino(TorchModel[DetectionRequest, Item, list[Scored], DetectionResult]):
    """Grounding DINO on one device.

    A phrase's score for a box is that of its most probable token, as the authors' own code has it. More phrases than
    one caption holds are spread over several; the network is run once for each, since it mixes words and image from
    its first layers on.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        network: GroundingDinoForObjectDetection,
        processor: GroundingDinoProcessor,
        dtype: str,
    ) -> None:
        super().__init__(checkpoint, network)
        self.dtype = dtype
        images: Any = processor.image_processor
        self._size = images.size
        self._images = ImageInput(
            self._resized,
            mean=images.image_mean,
            std=images.image_std,
            resample=images.resample,
            device=self.device,
        )
        self._tokenizer: Any = processor.tokenizer
        # The tokenizers of transformers change their padding on every call, and may not be shared meanwhile.
        self._tokenizer_lock = threading.Lock()
        self._max_tokens = int(self.network.config.max_text_len)
        self._start, self._end, self._stop, _ = delimiters = self._tokenizer.convert_tokens_to_ids(list(DELIMITERS))
        # transformers writes BERT's own ids into the network. With a tokenizer that has others, phrases would
        # silently read each other.
        self.network.model.special_tokens.copy_(torch.tensor(delimiters))
        self._never_inside = {*self._tokenizer.all_special_ids, *delimiters} - {self._tokenizer.unk_token_id}

    def preprocess(self, request: DetectionRequest) -> Item:
        """Raises InvalidInput where there is no phrase, or one that is empty or longer than a caption."""
        if not request.phrases:
            raise InvalidInput("Give at least one phrase to look for.")
        height, width = request.image.shape[:2]
        return Item(
            pixels=self._images.prepare(request.image),
            height=height,
            width=width,
            captions=tuple(self._captions(request.phrases)),
            threshold=max(request.box_threshold, request.text_threshold),
        )

    def batch_key(self, item: Item) -> Hashable:
        """Padding pictures would move boxes, and padding captions would shift scores by rounding."""
        return self._images.size(item.pixels), tuple(len(caption.token_ids) for caption in item.captions)

    @property
    def encoders(self) -> list[nn.Module]:
        return [self.network.model.backbone]

    def forward(self, items: Sequence[Item]) -> list[list[Scored]]:
        with torch.inference_mode():
            pixels = self._images.batch([item.pixels for item in items], getattr(torch, self.dtype))
            captions = zip(*(item.captions for item in items), strict=True)
            rounds = [self._read(pixels, caption) for caption in captions]
        return [list(scored) for scored in zip(*rounds, strict=True)]

    def postprocess(self, raw: list[Scored], item: Item) -> DetectionResult:
        # No suppression between captions: a phrase stands in one only, and the queries of two have nothing in common.
        answers = [
            _detections(scored, caption, item.threshold) for scored, caption in zip(raw, item.captions, strict=True)
        ]
        scores = np.concatenate([scores for scores, _, _ in answers])
        size = np.array([item.width, item.height] * 2, np.float32)
        boxes = clip_boxes(np.concatenate([boxes for _, boxes, _ in answers]) * size, item.width, item.height)
        labels = [label for _, _, labels in answers for label in labels]
        order = np.argsort(-scores, kind="stable")
        order = order[box_area(boxes[order]) > 0]
        return DetectionResult(boxes[order], scores[order], tuple(labels[index] for index in order))

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        size = self._size
        if not size.shortest_edge:
            return size.height, size.width
        resized = get_size_with_aspect_ratio((height, width), size.shortest_edge, size.longest_edge)
        # A strip is stretched: the network takes its many queries from the places of the image, and needs so many.
        least = size.shortest_edge // 8
        return max(least, resized[0]), max(least, resized[1])

    def _captions(self, phrases: Sequence[str]) -> Iterator[Caption]:
        """Fills one caption after the other with the phrases in their order, leaving out what comes twice."""
        ids: list[int] = [self._start]
        spans: dict[str, tuple[int, int]] = {}
        for phrase, words in self._words(phrases):
            if len(ids) + len(words) + 2 > self._max_tokens:
                yield Caption(torch.tensor([*ids, self._end]), tuple(spans), tuple(spans.values()))
                ids, spans = [self._start], {}
            spans[phrase] = len(ids), len(ids) + len(words)
            ids += [*words, self._stop]
        yield Caption(torch.tensor([*ids, self._end]), tuple(spans), tuple(spans.values()))

    def _words(self, phrases: Sequence[str]) -> Iterator[tuple[str, list[int]]]:
        """Phrases with their tokens; of those that read the same to the network, the first."""
        seen = set[tuple[int, ...]]()
        for index, phrase in enumerate(phrases):
            with self._tokenizer_lock:
                ids = self._tokenizer(phrase.lower(), add_special_tokens=False)["input_ids"]
            # "2.5 litre bottle" becomes "2 5 litre bottle": a full stop would make two phrases of it.
            words = [token for token in ids if token not in self._never_inside]
            if not words:
                raise InvalidInput(f"Phrase {index} {phrase!r} has no word in it.")
            if len(words) + 3 > self._max_tokens:
                raise InvalidInput(
                    f"Phrase {index} ({phrase[:40]!r}...) has {len(words)} tokens, and this model reads at most "
                    f"{self._max_tokens - 3}. Use a shorter phrase."
                )
            if tuple(words) not in seen:
                seen.add(tuple(words))
                yield phrase, words

    def _read(self, pixels: Tensor, captions: Sequence[Caption]) -> list[Scored]:
        """One run of the network over images (B, 3, h, w), each with a caption of the same length."""
        ids = self.to_device([caption.token_ids for caption in captions])
        outputs = self.network(pixel_values=pixels, input_ids=ids)
        probabilities = outputs.logits[..., : ids.shape[1]].float().sigmoid().cpu().numpy()
        boxes = box_convert(outputs.pred_boxes.float(), "cxcywh", "xyxy").cpu().numpy()
        return [Scored(*scored) for scored in zip(probabilities, boxes, strict=True)]


@reads_checkpoint
def load(checkpoint: Checkpoint, *, device: str, dtype: str) -> GroundingDino:
    """Reads a checkpoint in the format of `IDEA-Research/grounding-dino-base`.

    Raises:
        NotFound: the checkpoint is of another kind, or a part of it is missing.
    """
    check_architecture(checkpoint, ("grounding-dino",))
    processor = read_prompt_processor(GroundingDinoProcessor, checkpoint)
    network = read(GroundingDinoForObjectDetection, checkpoint)
    check_vocabulary(checkpoint.model_id, processor.tokenizer, network)
    return GroundingDino(checkpoint, _place(network, device, dtype), processor, dtype)


def _place(network: GroundingDinoForObjectDetection, device: str, dtype: str) -> GroundingDinoForObjectDetection:
    """Moves the network to its device, and in it the two backbones, most of the weights, to its dtype.

    What lies behind them stays in float32, since it computes places: half precision knows no more than 256 of them
    between the middle and the right edge of an image, and the rounding can end in no number at all.
    """
    core: Any = place(network, device=device, dtype="float32").model
    for backbone in (core.backbone, core.text_backbone):
        place(backbone, device=device, dtype=dtype)
    for behind in (core.text_projection, *core.input_proj_vision):
        behind.register_forward_pre_hook(lambda _, inputs: tuple(value.float() for value in inputs))
    return network


def _detections(
    scored: Scored, caption: Caption, threshold: float
) -> tuple[NDArray[np.float32], NDArray[np.float32], list[str]]:
    """Scores (N,), boxes (N, 4) and labels of the queries that a phrase of the caption names."""
    scores = np.stack([scored.probabilities[:, start:stop].max(axis=1) for start, stop in caption.spans], axis=1)
    named = (scores > threshold) & (scores >= NEARLY_BEST * scores.max(axis=1, keepdims=True))
    queries, phrases = np.nonzero(named)
    return scores[named], scored.boxes[queries], [caption.phrases[index] for index in phrases]
