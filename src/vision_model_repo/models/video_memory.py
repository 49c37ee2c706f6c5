"""What transformers' video sessions keep, and how they are made to forget it.

A session of transformers holds every frame that it was shown and every mask that it ever gave, several megabytes a
frame. The networks look at little of that again: at what they remember of the last few frames, and of those on which
an object was meant. This module throws away the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession
from transformers.models.sam3_tracker_video.modeling_sam3_tracker_video import Sam3TrackerVideoInferenceSession
from transformers.models.sam3_video.modeling_sam3_video import Sam3VideoInferenceSession

UNKNOWN_LENGTH = 2**31
"""Frames that a video is taken to have while it is streamed."""
METADATA_FRAMES = 64
"""Frames for which SAM 3 keeps scores and misses; its rules look back on fifteen."""


class Sam2Session(Sam2VideoInferenceSession):
    """A session that can forget frames without thinking the video shorter for it."""

    @property
    def num_frames(self) -> int:
        return UNKNOWN_LENGTH


class Sam3TrackerSession(Sam3TrackerVideoInferenceSession):
    """A session that can forget frames without thinking the video shorter for it."""

    @property
    def num_frames(self) -> int:
        return UNKNOWN_LENGTH


class Sam3Session(Sam3VideoInferenceSession):
    """A session that can forget frames without thinking the video shorter for it."""

    @property
    def num_frames(self) -> int:
        return UNKNOWN_LENGTH


def forget(session: Any, frame_index: int, config: Any) -> None:
    """Leaves of a session, after a frame, what the next frames need.

    Args:
        config: of the tracker: how many frames it looks back on.
    """
    session.processed_frames.clear()
    session.cache.clear_all()
    for inputs in (*session.point_inputs_per_obj.values(), *session.mask_inputs_per_obj.values()):
        inputs.clear()
    # The last frames lend their pictures, some more of them a vector for each object.
    pointed = max(config.num_maskmem, config.max_object_pointers_in_encoder)
    for tracked in session.frames_tracked_per_obj.values():
        _keep_near(tracked, frame_index, pointed)
    for outputs in session.output_dict_per_obj.values():
        _keep_near(outputs["non_cond_frame_outputs"], frame_index, pointed)
        for index, output in outputs["non_cond_frame_outputs"].items():
            output.pop("high_res_masks", None)
            if abs(frame_index - index) >= config.num_maskmem:
                _keep_only(output, "object_pointer")
        for output in outputs["cond_frame_outputs"].values():
            output.pop("high_res_masks", None)
    if isinstance(session, Sam3Session):
        _forget_findings(session, frame_index, config)


def _forget_findings(session: Any, frame_index: int, config: Any) -> None:
    """What SAM 3 keeps beyond that where it finds objects by itself, and shows them to its tracker again and again."""
    for outputs in session.output_dict_per_obj.values():
        shown = outputs["cond_frame_outputs"]
        for index in sorted(shown, key=lambda index: abs(frame_index - index))[config.max_cond_frame_num :]:
            del shown[index]
    for by_frame in (session.obj_id_to_tracker_score_frame_wise, session.suppressed_obj_ids):
        _keep_near(by_frame, frame_index, METADATA_FRAMES)
    for indices in (*session.unmatched_frame_inds.values(), *session.overlap_pair_to_frame_inds.values()):
        del indices[:-METADATA_FRAMES]


def _keep_near(by_frame: dict[int, Any], frame_index: int, distance: int) -> None:
    for index in [index for index in by_frame if abs(frame_index - index) > distance]:
        del by_frame[index]


def _keep_only(output: dict[str, Any], name: str) -> None:
    for other in [other for other in output if other != name]:
        del output[other]


def held_bytes(session: Any) -> int:
    """Bytes of all that a session remembers."""
    return sum(tensor.untyped_storage().nbytes() for tensor in _tensors(session.output_dict_per_obj))


def _tensors(things: Mapping[Any, Any]) -> Iterator[Tensor]:
    for thing in things.values():
        if isinstance(thing, Tensor):
            yield thing
        elif isinstance(thing, Mapping):
            yield from _tensors(thing)


class Suppression:
    """Stands in for the kernels that transformers would fetch from the hub for SAM 3 in videos.

    Without them it would not suppress doubles among detections at all. The filling of holes, the other thing that they
    are for, is switched off in the network.
    """

    @staticmethod
    def generic_nms(overlaps: Tensor, scores: Tensor, threshold: float, *, use_iou_matrix: bool) -> Tensor:
        """Indices of what stays of N detections with overlaps (N, N): greedily the best, and what overlaps none."""
        rivals = (overlaps > threshold).cpu()
        open_ = torch.ones(len(scores), dtype=torch.bool)
        kept: list[int] = []
        for index in scores.argsort(descending=True).tolist():
            if open_[index]:
                kept.append(index)
                open_ &= ~rivals[index]
        return torch.tensor(kept, dtype=torch.long, device=scores.device)
