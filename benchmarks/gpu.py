"""The published models at full size on a GPU: ours against the plain transformers loop.

Weights are random, so speeds mean something and answers do not. All ways begin with the same decoded images and end
with answers at the images' size; ours runs in this process, without HTTP.

python -m benchmarks.gpu
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.published import Published, published
from benchmarks.report import median_ms, print_table
from vision_model_repo.errors import InvalidInput
from vision_model_repo.models.base import Checkpoint, EncoderModel, Model
from vision_model_repo.models.catalog import BUILT_IN, Catalog
from vision_model_repo.models.hub import Hub
from vision_model_repo.tasks.examples import examples
from vision_model_repo.tasks.segmentation import ObjectPrompt, SegmentationPrompt, SegmentationRequest

SIZE = (1080, 1920)
BATCHES = (1, 8)
GOAL_PERCENT = 40
TEXTS = ("object", "red cube")


class Timer:
    """Medians of calls that leave work on a device."""

    def __init__(self, device: str, repeats: int) -> None:
        self.device = device
        self._repeats = repeats

    def ms(self, call: Callable[[], object]) -> float:
        def finished() -> None:
            call()
            if self.device == "cuda":
                torch.cuda.synchronize()

        for _ in range(2):
            finished()
        return median_ms(finished for _ in range(self._repeats))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", nargs="+", default=[model.model_type for model in published()])
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--tiny", action="store_true", help="the embedded checkpoints, on whatever device there is")
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not options.tiny:
        print("no CUDA device")
        return
    timer = Timer(device, options.repeats)
    peak = measured_peak(timer, side=512 if options.tiny else 8192)
    rows, notes = [], [f"peak measured by multiplying matrices in bfloat16: {peak:.1f} TFLOP/s"]
    for model in published():
        if model.model_type in options.models:
            with TemporaryDirectory() as folder:
                place = Hub(offline=True).resolve(model.demo).folder if options.tiny else model.write(Path(folder))
                rows += plain_rows(model, place, timer)
                for compiled in (False, True)[: 1 if options.tiny else 2]:
                    more, said = our_rows(model, place, timer, peak, compiled=compiled)
                    rows, notes = rows + more, notes + said
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    print_table(
        f"Images of {SIZE[1]} x {SIZE[0]} on {name}, median of {options.repeats}",
        ("model", "way", "dtype", "batch", "ms an image", "images/s"),
        rows,
        notes,
    )


def measured_peak(timer: Timer, side: int) -> float:
    """TFLOP/s of the largest multiplication that a transformer could dream of."""
    left, right = (torch.randn(side, side, device=timer.device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * side**3 / timer.ms(lambda: left @ right) / 1e9


def plain_rows(model: Published, folder: Path, timer: Timer) -> Iterator[tuple[str, ...]]:
    """The processor, the network and the processor's way back, as a model card has it."""
    for dtype, batch in product((torch.float32, torch.bfloat16), BATCHES):
        network: Any = model.plain.from_pretrained(folder, dtype=dtype).eval()
        network.to(timer.device)
        processor: Any = model.processor.from_pretrained(folder)
        images = [Image.fromarray(request.image) for request in requests(model, batch)]
        ms = timer.ms(partial(plain_loop, network, processor, images, dtype))
        yield row(model, "transformers", str(dtype), batch, ms)
        del network
        release()


def plain_loop(network: Any, processor: Any, images: Sequence[Image.Image], dtype: torch.dtype) -> object:
    texts = {"text": [f"{TEXTS[0]}."] * len(images)} if hasattr(processor, "tokenizer") else {}
    inputs = processor(images=list(images), **texts, return_tensors="pt").to(network.device, dtype)
    with torch.inference_mode():
        outputs = network(**inputs)
    sizes = [(image.height, image.width) for image in images]
    for name in ("post_process_instance_segmentation", "post_process_depth_estimation"):
        if hasattr(processor, name):
            return getattr(processor, name)(outputs, target_sizes=sizes)
    if hasattr(processor, "post_process_grounded_object_detection"):
        return processor.post_process_grounded_object_detection(outputs, inputs["input_ids"], target_sizes=sizes)
    return outputs.last_hidden_state.float().cpu()


def our_rows(
    model: Published, folder: Path, timer: Timer, peak: float, *, compiled: bool
) -> tuple[list[tuple[str, ...]], list[str]]:
    """Rows of whole answers, and what there is to say about the encoder, prompts and clicks."""
    loader = Catalog(BUILT_IN)[model.model_type].loader()
    ours: Any = loader(Checkpoint(str(folder), folder), device=timer.device, dtype="bfloat16")
    ours.tune(compiled=compiled)
    way = "ours, compiled" if compiled else "ours"
    rows = [
        row(model, way, "bfloat16", batch, timer.ms(partial(answer, ours, requests(model, batch)))) for batch in BATCHES
    ]
    notes: list[str] = []
    if isinstance(ours, EncoderModel):
        for batch in BATCHES:
            images = [ours.prepare(request.image) for request in requests(model, batch)]
            notes.append(encoder_note(ours, images, timer, peak))
        if model.model_type == "sam3":
            notes += question_notes(ours, model, timer)
    ours.unload()
    release()
    return rows, [f"{model.name}, {way}: {note}" for note in notes]


def answer(model: Model, requests: Sequence[Any]) -> list[Any]:
    """All that the server does with requests that share a forward pass."""
    items = [model.preprocess(request) for request in requests]
    if isinstance(model, EncoderModel):
        encodings = model.encode([model.prepare(request.image) for request in requests])
        items = [model.attach(item, encoding) for item, encoding in zip(items, encodings, strict=True)]
    return [model.postprocess(raw, item) for raw, item in zip(model.forward(items), items, strict=True)]


def encoder_note(model: EncoderModel, images: Sequence[Any], timer: Timer, peak: float) -> str:
    with FlopCounterMode(display=False) as counter:
        model.encode(images)
    ms = timer.ms(partial(model.encode, images))
    reached = counter.get_total_flops() / ms / 1e9
    return (
        f"encoder, batch {len(images)}: {ms / len(images):.1f} ms an image, {reached:.1f} TFLOP/s, "
        f"{100 * reached / peak:.0f} % of the peak (goal for SAM3: {GOAL_PERCENT} %)"
    )


def question_notes(model: EncoderModel, published: Published, timer: Timer) -> Iterator[str]:
    """What each prompt and each click costs on an image that is encoded."""
    (request,) = requests(published, 1)
    (encoding,) = model.encode([model.prepare(request.image)])

    def ms(prompts: int, clicks: int) -> float:
        objects = tuple(ObjectPrompt(points=((100.0 + click, 100.0),), point_labels=(1,)) for click in range(clicks))
        asked = SegmentationRequest(request.image, tuple(map(SegmentationPrompt, TEXTS[:1] * prompts)), objects=objects)
        return timer.ms(lambda: model.forward([model.attach(model.preprocess(asked), encoding)]))

    yield f"on an encoded image, the first prompt {ms(1, 0):.1f} ms, each of eight {ms(8, 0) / 8:.1f} ms"
    try:
        yield f"on an encoded image, the first click {ms(0, 1):.1f} ms, each of eight {ms(0, 8) / 8:.1f} ms"
    except InvalidInput as error:
        yield f"no clicks: {error.message}"


def requests(model: Published, batch: int) -> list[Any]:
    return [examples(Catalog(BUILT_IN)[model.model_type].task, *SIZE)[0] for _ in range(batch)]


def row(model: Published, way: str, dtype: str, batch: int, ms: float) -> tuple[str, ...]:
    return model.name, way, dtype.removeprefix("torch."), str(batch), f"{ms / batch:.1f}", f"{1000 * batch / ms:.1f}"


def release() -> None:
    """Gives the memory of what nobody uses any more back to the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
