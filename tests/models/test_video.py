"""Models with a memory answer as transformers' own sessions do, and forget what those never would."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    Sam2ImageProcessor,
    Sam2VideoConfig,
    Sam2VideoModel,
    Sam2VideoProcessor,
    Sam2VideoVideoProcessor,
    Sam3VideoConfig,
    Sam3VideoModel,
    Sam3VideoProcessor,
)

from training import sam3_model
from vision_model_repo.errors import InvalidInput, NotFound
from vision_model_repo.formats.masks import encode_mask
from vision_model_repo.models import video
from vision_model_repo.models.base import Checkpoint
from vision_model_repo.models.hub import Hub
from vision_model_repo.models.video import PromptedVideo
from vision_model_repo.tasks.segmentation import ObjectPrompt
from vision_model_repo.tasks.tracking import TrackedFrame, TrackMemory, TrackPrompt, TrackRequest

HEIGHT, WIDTH = 48, 64
WIDE = 128
"""Channels of a frame's features; what is remembered of it has 64, whatever the configuration says."""
SQUARE = np.zeros((HEIGHT, WIDTH), bool)
SQUARE[10:30, 20:40] = True
POINTS = TrackPrompt(0, 7, ObjectPrompt(((30.0, 20.0), (5.0, 5.0)), (1, 0)))
BOX = TrackPrompt(0, 3, ObjectPrompt(box=(20.0, 10.0, 40.0, 30.0)))
MASK = TrackPrompt(0, 5, mask=encode_mask(SQUARE))
LATER = TrackPrompt(4, 9, ObjectPrompt(((10.0, 40.0),), (1,)))
CORRECTION = TrackPrompt(9, 3, ObjectPrompt(((33.0, 21.0),), (1,)))


def tracker_sizes(side: int, features: int) -> dict[str, Any]:
    return {
        "image_size": side,
        "prompt_encoder_config": {"hidden_size": WIDE, "image_size": side, "patch_size": side // features},
        "mask_decoder_config": {"hidden_size": WIDE, "mlp_dim": 64, "iou_head_hidden_dim": 64},
        "memory_attention_hidden_size": WIDE,
        "memory_attention_num_layers": 1,
        "memory_attention_feed_forward_hidden_size": 64,
        "memory_attention_rope_feat_sizes": [features, features],
        "memory_encoder_hidden_size": WIDE,
        "memory_encoder_output_channels": 64,
        "mask_downsampler_embed_dim": WIDE,
        "memory_fuser_embed_dim": WIDE,
        "memory_fuser_intermediate_dim": 64,
    }


def randomize(network: Any) -> Any:
    """Weights large enough that every part of the network matters."""
    torch.manual_seed(1)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    return network.eval()


@pytest.fixture(scope="module")
def sam2(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    vision = {
        "backbone_config": {
            "model_type": "sam2_hiera_det_model",
            "hidden_size": 8,
            "image_size": [128, 128],
            "blocks_per_stage": [1, 1, 2, 1],
            "embed_dim_per_stage": [8, 16, 32, 64],
            "num_attention_heads_per_stage": [1, 1, 1, 1],
            "window_size_per_stage": [8, 4, 4, 2],
            "global_attention_blocks": [3],
            "window_positional_embedding_background_size": [4, 4],
        },
        "backbone_channel_list": [64, 32, 16, 8],
        "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
        "fpn_hidden_size": WIDE,
    }
    config: Any = Sam2VideoConfig(vision_config=vision, **tracker_sizes(128, 8))
    folder = tmp_path_factory.mktemp("sam2")
    randomize(Sam2VideoModel(config)).save_pretrained(folder)
    size = {"height": 128, "width": 128}
    Sam2VideoProcessor(
        Sam2ImageProcessor(size=size), Sam2VideoVideoProcessor(size=size), target_size=128
    ).save_pretrained(folder)
    return Checkpoint("random/sam2", folder)


@pytest.fixture(scope="module")
def sam3(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    tokenizer = sam3_model.build_tokenizer()
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sam3_model, "WIDTH", WIDE)
        detector: Any = sam3_model.build_model(tokenizer)
    vision = detector.config.vision_config.to_dict() | {"scale_factors": [4.0, 2.0, 1.0, 0.5]}
    features = sam3_model.IMAGE_SIZE // sam3_model.PATCH_SIZE
    sizes = tracker_sizes(sam3_model.IMAGE_SIZE, features)
    config: Any = Sam3VideoConfig(
        detector_config=detector.config.to_dict(),
        tracker_config=sizes | {"vision_config": vision},
        low_res_mask_size=4 * features,
        score_threshold_detection=1e-5,
        new_det_thresh=1e-5,
        hotstart_delay=0,
    )
    network: Any = randomize(Sam3VideoModel(config))
    network.detector_model.load_state_dict(detector.state_dict())
    folder = tmp_path_factory.mktemp("sam3-video")
    network.save_pretrained(folder)
    processor: Any = Sam3VideoProcessor(
        sam3_model.build_processor().image_processor,
        Sam2VideoVideoProcessor(size={"height": sam3_model.IMAGE_SIZE, "width": sam3_model.IMAGE_SIZE}),
        tokenizer,
        target_size=sam3_model.IMAGE_SIZE,
    )
    processor.save_pretrained(folder)
    return Checkpoint("random/sam3-video", folder)


def frames(count: int, seed: int = 0) -> list[np.ndarray]:
    """A noisy picture that drifts."""
    field = np.random.default_rng(seed).integers(256, size=(HEIGHT, WIDTH + count, 3), dtype=np.uint8)
    return [np.ascontiguousarray(field[:, index : index + WIDTH]) for index in range(count)]


def track(
    model: PromptedVideo, count: int, prompts: tuple[TrackPrompt, ...] = (), memory: TrackMemory | None = None
) -> list[tuple[Any, TrackedFrame]]:
    memory = memory or TrackMemory()
    answers = []
    for index, image in enumerate(frames(count)):
        here = tuple(prompt for prompt in prompts if prompt.frame_index == index)
        item = model.preprocess(TrackRequest(image, index, memory, here))
        (raw,) = model.forward([item])
        answers.append((raw, model.postprocess(raw, item)))
    return answers


def plain_logits(
    network: Any, processor: Any, model: PromptedVideo, count: int, prompts: tuple[TrackPrompt, ...]
) -> list[Any]:
    """What transformers' own loop over a streamed video gives, nothing forgotten."""
    session = processor.init_video_session(dtype=torch.float32)
    session.video_height, session.video_width = HEIGHT, WIDTH
    outputs = []
    for index, image in enumerate(frames(count)):
        here = [prompt for prompt in prompts if prompt.frame_index == index]
        for prompt in here:
            given: dict[str, Any] = {}
            if prompt.mask is not None:
                given["input_masks"] = prompt.mask.to_dense()
            if prompt.prompt.points:
                given["input_points"] = [[[list(point) for point in prompt.prompt.points]]]
                given["input_labels"] = [[list(prompt.prompt.point_labels)]]
            if prompt.prompt.box is not None:
                given["input_boxes"] = [[list(prompt.prompt.box)]]
            processor.add_inputs_to_inference_session(session, index, prompt.object_id, **given)
        # Each call lists its own object alone.
        session.obj_with_new_inputs = [prompt.object_id for prompt in here]
        pixels = model._images.batch([model._images.prepare(image)], torch.float32)
        outputs.append(network(session, frame=pixels, frame_idx=index))
    return outputs


def test_sam2_follows_as_transformers_does(sam2: Checkpoint) -> None:
    model = video.load(sam2, device="cpu", dtype="float32")
    network: Any = Sam2VideoModel.from_pretrained(sam2.folder, dtype=torch.float32)
    processor = Sam2VideoProcessor.from_pretrained(sam2.folder)
    prompts = (POINTS, BOX, MASK, LATER, CORRECTION)
    plain = plain_logits(network.eval(), processor, model, 22, prompts)
    answers = track(model, 22, prompts)
    for (raw, _), expected in zip(answers, plain, strict=True):
        assert raw.object_ids == expected.object_ids
        assert np.allclose(raw.logits, expected.pred_masks[:, 0], atol=1e-3)
        assert np.allclose(raw.scores, expected.object_score_logits.sigmoid().flatten(), atol=1e-4)
    assert answers[-1][0].object_ids == [7, 3, 5, 9]


def find(model: PromptedVideo, count: int, phrases: tuple[str, ...]) -> list[tuple[Any, TrackedFrame]]:
    memory = TrackMemory()
    answers = []
    for index, image in enumerate(frames(count)):
        item = model.preprocess(TrackRequest(image, index, memory, phrases=phrases))
        (raw,) = model.forward([item])
        answers.append((raw, model.postprocess(raw, item)))
    return answers


def test_sam3_finds_and_follows_what_words_name_as_transformers_does(sam3: Checkpoint) -> None:
    model = video.load(sam3, device="cpu", dtype="float32")
    network: Any = Sam3VideoModel.from_pretrained(sam3.folder, dtype=torch.float32)
    network.max_num_objects, network.fill_hole_area = video.MAX_OBJECTS, 0
    processor: Any = Sam3VideoProcessor.from_pretrained(sam3.folder)
    pixels = [model._images.batch([model._images.prepare(image)], torch.float32)[0] for image in frames(6)]
    session = processor.init_video_session(dtype=torch.float32)
    session.processed_frames = dict(enumerate(pixels))
    processor.add_text_prompt(session, ["red object", "cube"])
    plain = list(network.propagate_in_video_iterator(session))
    found = find(model, 6, ("red object", "cube"))
    assert len(plain) == 6 and any(raw.object_ids for raw, _ in found)
    for (raw, _), expected in zip(found, plain, strict=True):
        hidden = {*expected.removed_obj_ids, *expected.suppressed_obj_ids}
        assert raw.object_ids == sorted(set(expected.obj_id_to_mask) - hidden)
        for object_id, logits in zip(raw.object_ids, raw.logits, strict=True):
            assert np.allclose(logits, expected.obj_id_to_mask[object_id][0], atol=1e-3)
        assert set(raw.labels) <= {"red object", "cube"}


def test_a_hundred_frames_take_no_more_memory_than_thirty(sam2: Checkpoint) -> None:
    model = video.load(sam2, device="cpu", dtype="float32")
    memory = TrackMemory()
    held = []
    for index, image in enumerate((frames(30) * 4)[:100]):
        here = (BOX,) if index == 0 else ()
        model.forward([model.preprocess(TrackRequest(image, index, memory, here))])
        held.append(memory.nbytes)
    assert 0 < held[-1] <= held[29] < 3_000_000
    assert not memory.state.session.processed_frames


def test_words_take_no_more_memory_with_every_frame(sam3: Checkpoint) -> None:
    model = video.load(sam3, device="cpu", dtype="float32")
    memory = TrackMemory()
    held = []
    for index, image in enumerate(frames(36)):
        model.forward([model.preprocess(TrackRequest(image, index, memory, phrases=("cube",)))])
        held.append(memory.nbytes / max(1, memory.state.session.get_obj_num()))
    assert 0 < held[-1] <= 1.5 * max(held[15:30])


def test_sam3_follows_points_and_boxes_with_the_eyes_of_its_detector(sam3: Checkpoint) -> None:
    model = video.load(sam3, device="cpu", dtype="float32")
    answers = track(model, 8, (POINTS, MASK, LATER))
    assert [raw.object_ids for raw, _ in answers] == [[7, 5]] * 4 + [[7, 5, 9]] * 4
    assert len({raw.logits.tobytes() for raw, _ in answers}) == 8
    for _raw, frame in answers:
        for each in frame.objects:
            assert each.mask is not None and (each.mask.height, each.mask.width) == (HEIGHT, WIDTH)
            assert each.box == each.mask.box and 0 <= (each.score or 0) <= 1


def test_no_prompt_yet_means_no_object_yet(sam2: Checkpoint) -> None:
    model = video.load(sam2, device="cpu", dtype="float32")
    assert [len(frame.objects) for _, frame in track(model, 4, (LATER,))] == [0] * 4


def test_refusals_say_what_to_do(sam2: Checkpoint, sam3: Checkpoint) -> None:
    image = frames(1)[0]
    model = video.load(sam2, device="cpu", dtype="float32")
    with pytest.raises(InvalidInput, match="random/sam2 reads no phrases"):
        model.preprocess(TrackRequest(image, 0, TrackMemory(), phrases=("cube",)))
    memory = TrackMemory()
    track(model, 1, (BOX,), memory)
    with pytest.raises(InvalidInput, match="loaded anew"):
        track(video.load(sam2, device="cpu", dtype="float32"), 1, (BOX,), memory)
    words = video.load(sam3, device="cpu", dtype="float32")
    with pytest.raises(InvalidInput, match="either what phrases name or what prompts mean"):
        words.preprocess(TrackRequest(image, 0, TrackMemory(), (BOX,), phrases=("cube",)))
    with pytest.raises(InvalidInput, match="Phrase 0 is empty"):
        words.preprocess(TrackRequest(image, 0, TrackMemory(), phrases=(" ",)))
    with pytest.raises(NotFound, match="of the kind 'grounding-dino'"):
        video.load(Hub(offline=True).resolve("demo/grounding-dino"), device="cpu", dtype="float32")
