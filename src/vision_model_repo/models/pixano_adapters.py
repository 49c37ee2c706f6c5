"""Between our requests and results and the inputs and outputs of Pixano's model classes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pixano_inference import schemas

from vision_model_repo.errors import InvalidInput
from vision_model_repo.formats.masks import from_coco_rle
from vision_model_repo.tasks.chat import ChatRequest, ChatResult, Part, TokenUsage
from vision_model_repo.tasks.detection import DetectionRequest, DetectionResult
from vision_model_repo.tasks.embedding import EmbeddingRequest, EmbeddingResult
from vision_model_repo.tasks.ner import Entity, NerRequest, NerResult
from vision_model_repo.tasks.segmentation import ObjectMasks, SegmentationRequest, SegmentationResult

USUAL_NEW_TOKENS = 256
"""Most tokens of an answer where the request does not say."""


class Adapter(ABC):
    """Between our requests and results and the inputs and outputs of one capability."""

    @abstractmethod
    def ask(self, request: Any) -> Any:
        """The plugin's input. Raises InvalidInput for a request that it has no words for."""

    @abstractmethod
    def read(self, output: Any) -> Any:
        """Our result."""


class DetectionAdapter(Adapter):
    def ask(self, request: DetectionRequest) -> schemas.DetectionInput:
        return schemas.DetectionInput(
            image=picture_file(request.image),
            classes=list(request.phrases) or None,
            box_threshold=request.box_threshold,
            text_threshold=request.text_threshold,
        )

    def read(self, output: schemas.DetectionOutput) -> DetectionResult:
        boxes = np.array(output.boxes, np.float32).reshape(-1, 4)
        return DetectionResult(boxes, np.array(output.scores, np.float32), tuple(output.classes))


class SegmentationAdapter(Adapter):
    def ask(self, request: SegmentationRequest) -> schemas.SegmentationInput:
        objects = request.objects
        if request.prompts or not objects:
            raise InvalidInput("This model is asked by points and boxes, and not by phrases.")
        logits = [each.logits for each in objects if each.logits is not None]
        if len(logits) not in (0, len(objects)):
            raise InvalidInput("This model takes earlier masks for all objects of a request, or for none.")
        points = [[[round(x), round(y)] for x, y in each.points] for each in objects]
        boxes = [[round(side) for side in each.box] for each in objects if each.box]
        if len(boxes) not in (0, len(objects)):
            raise InvalidInput("This model takes boxes for all objects of a request, or for none.")
        return schemas.SegmentationInput(
            image=picture_file(request.image),
            mask_input=schemas.NDArrayFloat.from_numpy(np.stack(logits)[:, None]) if logits else None,
            points=points if any(points) else None,
            labels=[list(each.point_labels) for each in objects] if any(points) else None,
            boxes=boxes or None,
            multimask_output=request.multimask is not False,
            return_logits=True,
        )

    def read(self, output: schemas.SegmentationOutput) -> SegmentationResult:
        scores = output.scores.to_numpy().reshape(len(output.masks) or 1, -1)
        logits = None if output.mask_logits is None else output.mask_logits.to_numpy()
        return SegmentationResult(
            (), tuple(_object(masks, scores[i], logits, i) for i, masks in enumerate(output.masks))
        )


class EmbeddingAdapter(Adapter):
    def ask(self, request: EmbeddingRequest) -> schemas.EmbeddingInput:
        return schemas.EmbeddingInput(
            image=[picture_file(image) for image in request.images] or None,
            text=list(request.texts) or None,
            normalize=request.normalize,
        )

    def read(self, output: schemas.EmbeddingOutput) -> EmbeddingResult:
        return EmbeddingResult(output.embeddings.to_numpy())


class NerAdapter(Adapter):
    def ask(self, request: NerRequest) -> schemas.NERInput:
        return schemas.NERInput(text=request.text)

    def read(self, output: schemas.NEROutput) -> NerResult:
        return NerResult(tuple(Entity(**entity.model_dump()) for entity in output.entities))


class VlmAdapter(Adapter):
    def ask(self, request: ChatRequest) -> schemas.VLMInput:
        """A plain prompt as such; a conversation as chat templates read it, with its images beside it, in order."""
        prompt: str | list[dict[str, Any]] = [
            {"role": message.role, "content": [_spelled(part) for part in message.parts]}
            for message in request.messages
        ]
        if len(request.messages) == 1 and request.messages[0].role == "user":
            prompt = "\n".join(request.messages[0].texts)
        images = [picture_file(image) for message in request.messages for image in message.images]
        return schemas.VLMInput.model_validate(
            {
                "prompt": prompt,
                "images": images or None,
                "max_new_tokens": request.max_new_tokens or USUAL_NEW_TOKENS,
                "temperature": request.temperature,
            }
        )

    def read(self, output: schemas.VLMOutput) -> ChatResult:
        usage = TokenUsage(output.usage.prompt_tokens, output.usage.completion_tokens)
        return ChatResult(output.generated_text, "stop", usage)


ADAPTERS: Mapping[str, Adapter] = {
    "detection": DetectionAdapter(),
    "segmentation": SegmentationAdapter(),
    "embedding": EmbeddingAdapter(),
    "ner": NerAdapter(),
    "vlm": VlmAdapter(),
}


def picture_file(image: NDArray[np.uint8]) -> bytes:
    """An image as plugins decode it: losslessly, and written and read at the speed of memory."""
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "BMP")
    return buffer.getvalue()


def _spelled(part: Part) -> dict[str, Any]:
    return {"type": "text", "text": part} if isinstance(part, str) else {"type": "image"}


def _object(masks: Sequence[Any], scores: NDArray[np.float32], logits: NDArray[np.float32] | None, index: int) -> Any:
    """The readings of one prompt, best first."""
    order = np.argsort(-scores[: len(masks)], kind="stable")
    runs = [from_coco_rle({"size": masks[place].size, "counts": masks[place].counts}) for place in order]
    coarse = np.zeros((len(runs), 1, 1), np.float32) if logits is None else logits[index][order]
    boxes = np.array([each.box or (0, 0, 0, 0) for each in runs], np.float32).reshape(-1, 4)
    return ObjectMasks(scores[order], boxes, tuple(runs), coarse)
