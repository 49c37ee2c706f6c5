"""Models that remember a video: SAM 2 and the tracker of SAM 3 for points, boxes and masks, SAM 3 for words.

Segment Anything 2 (https://huggingface.co/facebook/sam2.1-hiera-large) and 3 (https://huggingface.co/facebook/sam3),
through transformers' `Sam2VideoModel`, `Sam3TrackerVideoModel` and `Sam3VideoModel`. Each frame is one forward pass, so
that a video takes turns with other requests. What the networks look back on, a few frames, is all that stays in memory:
transformers' own sessions would grow with every frame.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    PreTrainedModel,
    Sam2VideoModel,
    Sam2VideoProcessor,
    Sam3TrackerVideoModel,
    Sam3TrackerVideoProcessor,
    Sam3VideoModel,
    Sam3VideoProcessor,
)
from transformers.models.sam3_video import modeling_sam3_video

from vision_model_repo.errors import InvalidInput
from vision_model_repo.formats.logits import upsample_mask
from vision_model_repo.models.base import Checkpoint
from vision_model_repo.models.checkpoint_files import reads_checkpoint
from vision_model_repo.models.sam3_prompts import EncodedPrompt, PromptEncoder
from vision_model_repo.models.token_ids import check_vocabulary
from vision_model_repo.models.torch_model import (
    ImageInput,
    TorchModel,
    check_architecture,
    place,
    read,
    read_prompt_processor,
)
from vision_model_repo.models.video_memory import (
    Sam2Session,
    Sam3Session,
    Sam3TrackerSession,
    Suppression,
    forget,
    held_bytes,
)
from vision_model_repo.tasks.segmentation import SegmentationPrompt
from vision_model_repo.tasks.tracking import TrackedFrame, TrackedObject, TrackPrompt, TrackRequest

MAX_OBJECTS = 64
"""Most objects that SAM 3 begins to follow by itself; transformers would follow ten thousand."""
CORNERS = (2, 3)
"""Labels of a box's first and last corner, which the networks take for points."""


@dataclass(frozen=True, slots=True)
class Item:
    """A frame, as the network wants it, and what is said about it."""

    pixels: Tensor
    request: TrackRequest
    phrases: tuple[EncodedPrompt, ...]

    @property
    def size(self) -> tuple[int, int]:
        height, width = self.request.image.shape[:2]
        return height, width


@dataclass(frozen=True, slots=True)
class Seen:
    """The objects on one frame: ids, mask logits (N, h, w) and scores (N,), in float32, and labels."""

    object_ids: list[int]
    logits: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: list[str | None]


@dataclass(frozen=True, slots=True)
class _State:
    """A session of transformers, and the model whose it is."""

    owner: object
    session: Any


class PromptedVideo(TorchModel[TrackRequest, Item, Seen, TrackedFrame]):
    """SAM 2, or the tracker of SAM 3 alone: follows what points, boxes and masks mean.

    Args:
        processor: of the checkpoint; says how to prepare frames.
    """

    def __init__(self, checkpoint: Checkpoint, network: PreTrainedModel, processor: Any) -> None:
        super().__init__(checkpoint, network, max_batch=1)
        images = processor.image_processor
        size = images.size["height"], images.size["width"]
        self._images = ImageInput(
            lambda height, width: size,
            mean=images.image_mean,
            std=images.image_std,
            resample=images.resample,
            device=self.device,
        )

    @property
    def tracker(self) -> Any:
        """The part of the network that follows objects."""
        return self.network

    def preprocess(self, request: TrackRequest) -> Item:
        """Raises InvalidInput for phrases, which this model cannot read."""
        if request.phrases:
            raise InvalidInput(f"{self.model_id} reads no phrases. Mean an object by points, a box or a mask.")
        return Item(self._images.prepare(request.image), request, ())

    def batch_key(self, item: Item) -> Hashable:
        """Every video is a batch of its own, so that none waits for another's frame."""
        return id(item.request.memory)

    def forward(self, items: Sequence[Item]) -> list[Seen]:
        with torch.inference_mode():
            return [self._step(item) for item in items]

    def postprocess(self, raw: Seen, item: Item) -> TrackedFrame:
        objects = []
        for object_id, logits, score, label in zip(raw.object_ids, raw.logits, raw.scores, raw.labels, strict=True):
            mask = upsample_mask(logits, *item.size)
            if (box := mask.box) is not None:
                objects.append(TrackedObject(object_id, box, mask, float(score), label))
        return TrackedFrame(item.request.frame_index, tuple(objects))

    def _step(self, item: Item) -> Seen:
        session = self._session(item)
        index = item.request.frame_index
        session.add_new_frame(self._images.batch([item.pixels], getattr(torch, self.dtype)), index)
        seen = self._see(session, item)
        forget(session, index, self.tracker.config)
        item.request.memory.nbytes = held_bytes(session)
        return seen

    def _session(self, item: Item) -> Any:
        memory = item.request.memory
        if memory.state is None:
            session = self._session_class(item)(
                inference_device=self.device,
                inference_state_device=self.device,
                video_storage_device=self.device,
                dtype=getattr(torch, self.dtype),
            )
            memory.state = _State(self, session)
        if memory.state.owner is not self:
            raise InvalidInput("The model was loaded anew since this video was begun. Track it again from the start.")
        return memory.state.session

    def _session_class(self, item: Item) -> type:
        return Sam2Session if isinstance(self.network, Sam2VideoModel) else Sam3TrackerSession

    def _see(self, session: Any, item: Item) -> Seen:
        """One frame, by prompts."""
        index = item.request.frame_index
        self._mean(session, item)
        if not session.get_obj_num():
            return _nothing()
        outputs = self.tracker(session, frame_idx=index, reverse=item.request.backward)
        scores = outputs.object_score_logits.float().sigmoid().flatten().cpu().numpy()
        logits = outputs.pred_masks.float().squeeze(1).cpu().numpy()
        return Seen(list(outputs.object_ids), logits, scores, [None] * len(scores))

    def _mean(self, session: Any, item: Item) -> None:
        """Tells a session what prompts mean on its newest frame; of the processor's own ways each undoes the last."""
        index = item.request.frame_index
        for prompt in item.request.prompts:
            row = session.obj_id_to_idx(prompt.object_id)
            if prompt.mask is not None:
                session.add_mask_inputs(row, index, self._mask_input(prompt))
                session.remove_point_inputs(row, index)
            else:
                session.add_point_inputs(row, index, self._point_input(prompt, *item.size))
                session.remove_mask_inputs(row, index)
        session.obj_with_new_inputs = [prompt.object_id for prompt in item.request.prompts]

    def _point_input(self, prompt: TrackPrompt, height: int, width: int) -> dict[str, Tensor]:
        clicks = prompt.prompt
        points, labels = list(clicks.points), list(clicks.point_labels)
        if clicks.box is not None:
            points = [clicks.box[:2], clicks.box[2:], *points]
            labels = [*CORNERS, *labels]
        side = self.tracker.image_size
        scale = torch.tensor([side / width, side / height])
        return {
            "point_coords": (torch.tensor(points, dtype=torch.float32) * scale)[None, None],
            "point_labels": torch.tensor(labels, dtype=torch.int32)[None, None],
        }

    def _mask_input(self, prompt: TrackPrompt) -> Tensor:
        assert prompt.mask is not None
        side = self.tracker.image_size
        pixels = torch.from_numpy(prompt.mask.to_dense())[None, None].to(self.device, torch.float32)
        return (F.interpolate(pixels, (side, side), mode="bilinear", antialias=True) >= 0.5).float()


class Sam3Video(PromptedVideo):
    """SAM 3 with its detector: follows what phrases name, or what points, boxes and masks mean."""

    def __init__(self, checkpoint: Checkpoint, network: PreTrainedModel, processor: Any) -> None:
        super().__init__(checkpoint, network, processor)
        self.network.max_num_objects = MAX_OBJECTS
        # That would want code from the hub.
        self.network.fill_hole_area = 0
        modeling_sam3_video.cv_utils_kernel = Suppression
        text = self.network.config.detector_config.text_config
        self._prompts = PromptEncoder(processor.tokenizer, max_tokens=int(text.max_position_embeddings))

    @property
    def tracker(self) -> Any:
        return self.network.tracker_model

    def preprocess(self, request: TrackRequest) -> Item:
        """Raises InvalidInput for phrases and prompts together, or a phrase that is empty or too long."""
        if request.phrases and request.prompts:
            raise InvalidInput("This model follows either what phrases name or what prompts mean. Give one of them.")
        height, width = request.image.shape[:2]
        phrases = tuple(
            self._prompts.encode(SegmentationPrompt(phrase), f"Phrase {index}", height=height, width=width)
            for index, phrase in enumerate(request.phrases)
        )
        return Item(self._images.prepare(request.image), request, phrases)

    def _session_class(self, item: Item) -> type:
        return Sam3Session if item.phrases else Sam3TrackerSession

    def _see(self, session: Any, item: Item) -> Seen:
        index = item.request.frame_index
        if item.phrases:
            return self._find(session, item)
        # The tracker has no eyes of its own, and takes the detector's.
        features = self.network.detector_model.get_vision_features(pixel_values=session.get_frame(index)[None])
        levels, positions = self.network.get_vision_features_for_tracker(vision_embeds=features)
        session.cache.cache_vision_features(index, {"vision_feats": levels, "vision_pos_embeds": positions})
        return super()._see(session, item)

    def _find(self, session: Any, item: Item) -> Seen:
        """One frame, by words."""
        for phrase in item.phrases:
            row = session.add_prompt(phrase.text)
            if row not in session.prompt_input_ids:
                session.prompt_input_ids[row] = phrase.token_ids[None].to(self.device)
                session.prompt_attention_masks[row] = phrase.attention_mask[None].to(self.device)
        outputs = self.network(session, frame_idx=item.request.frame_index, reverse=item.request.backward)
        hidden = {*outputs.removed_obj_ids, *outputs.suppressed_obj_ids}
        found = sorted(object_id for object_id in outputs.obj_id_to_mask if object_id not in hidden)
        if not found:
            return _nothing()
        logits = torch.cat([outputs.obj_id_to_mask[object_id] for object_id in found]).float().cpu().numpy()
        scores = np.array([float(outputs.obj_id_to_score[object_id]) for object_id in found], np.float32)
        labels = [session.prompts[session.obj_id_to_prompt_id[object_id]] for object_id in found]
        return Seen(found, logits, scores, labels)


def _nothing() -> Seen:
    return Seen([], np.zeros((0, 1, 1), np.float32), np.zeros(0, np.float32), [])


@reads_checkpoint
def load(checkpoint: Checkpoint, *, device: str, dtype: str) -> PromptedVideo:
    """Reads a checkpoint in the format of `facebook/sam2.1-hiera-large` or `facebook/sam3`.

    Raises:
        NotFound: the checkpoint is of another kind, or a part of it is missing.
    """
    kind = check_architecture(checkpoint, ("sam2_video", "sam3_tracker_video", "sam3_video"))
    if kind == "sam3_video":
        network = place(read(Sam3VideoModel, checkpoint), device=device, dtype=dtype)
        processor: Any = read_prompt_processor(Sam3VideoProcessor, checkpoint)
        check_vocabulary(checkpoint.model_id, processor.tokenizer, network)
        return Sam3Video(checkpoint, network, processor)
    if kind == "sam2_video":
        network = place(read(Sam2VideoModel, checkpoint), device=device, dtype=dtype)
        return PromptedVideo(checkpoint, network, read_prompt_processor(Sam2VideoProcessor, checkpoint))
    network = place(read(Sam3TrackerVideoModel, checkpoint), device=device, dtype=dtype)
    return PromptedVideo(checkpoint, network, read_prompt_processor(Sam3TrackerVideoProcessor, checkpoint))
