"""Prints how well the embedded checkpoints track, over clips in which objects hide each other.

python -m training.evaluate_tracking
python -m training.evaluate_tracking --model-type sam3 --model-id demo/sam3 --clicks
"""

from __future__ import annotations

import argparse
import asyncio
import time

from vision_model_repo.demo.scenes import COLORS
from vision_model_repo.demo.tracking_evaluation import evaluate_clicks, evaluate_tracking, occluded_clips
from vision_model_repo.engine.engine import Engine
from vision_model_repo.engine.tracking import TrackingStore
from vision_model_repo.settings import Settings


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model-type", default="sam3", help="a segmenter, a detector, or a model for video")
    parser.add_argument("--model-id", help="a folder or id of weights; the embedded ones if left out")
    parser.add_argument("--clips", type=int, default=20)
    parser.add_argument("--phrases", nargs="+", default=[f"{color} object" for color in COLORS], help="for all objects")
    parser.add_argument("--clicks", action="store_true", help="click on every object of the first frame instead")
    arguments = parser.parse_args()
    engine = Engine(Settings.model_validate({"hf_hub_offline": True, "device": "cpu", "torch_threads": 1}))
    await engine.start()
    demo = engine.manager.catalog[arguments.model_type].demo
    model_id = arguments.model_id or demo
    store = TrackingStore(engine.manager, engine.pixels)
    clips = occluded_clips(arguments.clips)
    started = time.monotonic()
    if arguments.clicks:
        figures = await evaluate_clicks(store, clips, arguments.model_type, model_id)
    else:
        figures = await evaluate_tracking(store, clips, arguments.model_type, model_id, phrases=arguments.phrases)
    asked = "clicks" if arguments.clicks else ", ".join(arguments.phrases)
    line = "  ".join(f"{figure} {value:.3f}" for figure, value in figures.items())
    seconds = time.monotonic() - started
    print(f"{model_id} by {asked}: {arguments.clips} clips of 40 frames, {seconds:.0f} s  {line}")
    await engine.close()


if __name__ == "__main__":
    asyncio.run(main())
