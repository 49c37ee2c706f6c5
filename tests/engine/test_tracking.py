"""Sessions answer frame by frame, are corrected, go on where they were, stop when told to, and stay small."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import aclosing
from pathlib import Path

import numpy as np
import pytest

from tests.engine import colorful, weighty
from vision_model_repo.engine.association import Rules
from vision_model_repo.engine.clips import TrackClip
from vision_model_repo.engine.manager import ModelManager
from vision_model_repo.engine.metrics import Metrics
from vision_model_repo.engine.pixels import PixelThreads
from vision_model_repo.engine.tracking import TrackingStore
from vision_model_repo.engine.tracking_session import TrackingLimits
from vision_model_repo.errors import Busy, InvalidInput, NotFound, TooLarge
from vision_model_repo.formats.clips import ClipKind
from vision_model_repo.formats.masks import encode_mask
from vision_model_repo.formats.video import Frame, Video, open_video
from vision_model_repo.models.hub import Hub
from vision_model_repo.settings import Settings
from vision_model_repo.tasks.segmentation import ObjectPrompt
from vision_model_repo.tasks.tracking import TrackedFrame, TrackPrompt

HEIGHT, WIDTH = 60, 80


class Crossing(Video):
    """A red square goes right, behind a blue post that stands, and a green one stands aside."""

    def __init__(self, frame_count: int = 24, nbytes: int = 1000) -> None:
        self.frame_count, self.nbytes = frame_count, nbytes
        self.height, self.width, self.frames_per_second = HEIGHT, WIDTH, 10.0
        self.decoded = 0

    def _forward(self, start: int, stop: int) -> Generator[tuple[int, Frame]]:
        for index in range(start, stop):
            self.decoded += 1
            yield index, self.frame(index)

    def frame(self, index: int) -> Frame:
        frame = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
        left = 2 + 3 * (index % 24)
        frame[20:30, left : left + 10] = colorful.COLORS["red"]
        frame[5:55, 30:46] = colorful.COLORS["blue"]
        frame[40:55, 55:70] = colorful.COLORS["green"]
        return frame


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[ModelManager]:
    colorful.FORWARDS.clear()
    checkpoint = weighty.write_checkpoint(tmp_path / "plain")
    settings = Settings(  # pyright: ignore[reportCallIssue]
        default_model_ids=dict.fromkeys(("segmenter", "detector", "other"), checkpoint), device="cpu"
    )
    pixels = PixelThreads(2)
    manager = ModelManager(settings, colorful.catalog(), Hub(offline=True), pixels, Metrics())
    await manager.start()
    yield manager
    await manager.close()
    pixels.close()


@pytest.fixture
async def pixels() -> AsyncIterator[PixelThreads]:
    threads = PixelThreads(2)
    yield threads
    threads.close()


@pytest.fixture
def store(manager: ModelManager, pixels: PixelThreads) -> TrackingStore:
    return TrackingStore(manager, pixels, max_bytes=10_000, rules=Rules(patience=10), limits=TrackingLimits(3, 6, 2))


async def everything(frames: AsyncGenerator[TrackedFrame]) -> list[TrackedFrame]:
    async with aclosing(frames):
        return [frame async for frame in frames]


def box_of(frame: TrackedFrame, object_id: int) -> tuple[float, ...] | None:
    return next((each.box for each in frame.objects if each.object_id == object_id), None)


@pytest.mark.parametrize("model", ["segmenter", "detector"])
async def test_what_phrases_name_keeps_its_id_behind_a_post(store: TrackingStore, model: str) -> None:
    frames = await everything(store.keep(store.open(Crossing(), model, phrases=["red", "blue"])).track())
    assert [frame.frame_index for frame in frames] == list(range(24))
    labels = {each.object_id: each.label for frame in frames for each in frame.objects}
    assert sorted(labels.values(), key=str) == ["blue", "red"]
    (red,) = (object_id for object_id, label in labels.items() if label == "red")
    assert box_of(frames[0], red) == (2, 20, 12, 30) and box_of(frames[22], red) == (68, 20, 78, 30)
    assert box_of(frames[11], red) is None
    assert all((each.mask is not None) == (model == "segmenter") for frame in frames for each in frame.objects)


@pytest.mark.parametrize(
    "prompt",
    [
        ObjectPrompt(points=((5.0, 25.0), (60.0, 50.0)), point_labels=(1, 0)),
        ObjectPrompt(box=(1.0, 19.0, 13.0, 31.0)),
    ],
)
@pytest.mark.parametrize("model", ["segmenter", "detector"])
async def test_what_a_prompt_means_is_followed_and_nothing_else(
    store: TrackingStore, model: str, prompt: ObjectPrompt
) -> None:
    frames = await everything(store.keep(store.open(Crossing(), model, prompts=[TrackPrompt(0, 5, prompt)])).track())
    assert {each.object_id for frame in frames for each in frame.objects} == {5}
    assert box_of(frames[0], 5) == (2, 20, 12, 30) and box_of(frames[22], 5) == (68, 20, 78, 30)


async def test_a_mask_is_a_prompt(store: TrackingStore) -> None:
    mask = encode_mask((Crossing().frame(3) == colorful.COLORS["red"]).all(axis=2))
    frames = await everything(
        store.keep(store.open(Crossing(), "segmenter", prompts=[TrackPrompt(3, 1, mask=mask)])).track()
    )
    assert [frame.frame_index for frame in frames] == list(range(3, 24))
    assert box_of(frames[-2], 1) == (68, 20, 78, 30)


async def test_an_object_is_corrected_on_a_second_frame(store: TrackingStore) -> None:
    session = store.keep(store.open(Crossing(), "segmenter", prompts=[click(0, 5, 60, 50)]))
    before = await everything(session.track())
    assert box_of(before[20], 5) == (55, 40, 70, 55)
    session.add_prompts([click(18, 5, 58, 25)])
    after = await everything(session.track(start=10))
    assert [frame.frame_index for frame in after] == list(range(10, 24))
    assert box_of(after[7], 5) == (55, 40, 70, 55), "what was before the correction stays as it was"
    assert box_of(after[8], 5) == (56, 20, 66, 30) and box_of(after[12], 5) == (68, 20, 78, 30)


def click(frame_index: int, object_id: int, x: float, y: float) -> TrackPrompt:
    return TrackPrompt(frame_index, object_id, ObjectPrompt(((x, y),), (1,)))


async def test_backwards_the_last_frame_comes_first(store: TrackingStore) -> None:
    session = store.keep(store.open(Crossing(), "segmenter", prompts=[click(22, 1, 70, 25)]))
    frames = await everything(session.track(start=2, backward=True))
    assert [frame.frame_index for frame in frames] == list(range(22, 1, -1))
    assert box_of(frames[-1], 1) == (8, 20, 18, 30)


async def test_tracking_goes_on_where_it_ended(store: TrackingStore) -> None:
    video = Crossing()
    session = store.keep(store.open(video, "segmenter", phrases=["red"]))
    first = await everything(session.track(stop=8))
    second = await everything(session.track(start=8))
    assert video.decoded == 24
    assert {each.object_id for frame in (*first, *second) for each in frame.objects} == {1}


async def test_frames_come_one_by_one_and_closing_stops_the_work(store: TrackingStore) -> None:
    video = Crossing(frame_count=10_000)
    session = store.keep(store.open(video, "segmenter", phrases=["red"]))
    async with aclosing(session.track()) as frames:
        await anext(frames)
        with pytest.raises(Busy, match="tracked already"):
            await anext(session.track())
        await anext(frames)
    decoded, run = video.decoded, len(colorful.FORWARDS)
    await asyncio.sleep(0.05)
    assert video.decoded == decoded <= 4 and len(colorful.FORWARDS) == run <= 3
    assert len(await everything(session.track(stop=3))) == 3


async def test_cancelling_the_task_stops_the_work(store: TrackingStore) -> None:
    video = Crossing(frame_count=10_000)
    task = asyncio.create_task(everything(store.keep(store.open(video, "segmenter", phrases=["red"])).track()))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    decoded = video.decoded
    await asyncio.sleep(0.05)
    assert decoded == video.decoded < 10_000


async def test_a_long_video_takes_no_more_memory_than_a_short_one(store: TrackingStore) -> None:
    session = store.keep(store.open(Crossing(frame_count=300), "segmenter", phrases=["object"]))
    early = 0
    tracemalloc.start()
    async with aclosing(session.track()) as frames:
        async for frame in frames:
            if frame.frame_index == 100:
                early = tracemalloc.get_traced_memory()[0]
    late = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert late < early + 100_000


@pytest.mark.parametrize(("kind", "stop"), [("mp4", 6), ("gif", 4)])
async def test_a_clip_shows_what_was_tracked(
    store: TrackingStore, pixels: PixelThreads, kind: ClipKind, stop: int
) -> None:
    session = store.keep(store.open(Crossing(), "segmenter", phrases=["red", "green"]))
    clip = TrackClip(pixels, kind, 10)
    async with aclosing(session.watch(stop=stop)) as frames:
        async for image, tracked in frames:
            await clip.add(image, tracked)
    video = open_video(await clip.finish())
    assert (video.frame_count, video.width, video.height) == (stop, WIDTH, HEIGHT)
    for index, drawn in video.frames():
        changed = np.abs(drawn.astype(int) - Crossing().frame(index)).max(axis=2)
        assert changed[48:54, 56:69].mean() > 20 > changed[56:, :25].mean(), "what is found is painted, nothing else"


async def test_an_empty_clip_is_refused(pixels: PixelThreads) -> None:
    with pytest.raises(InvalidInput, match="at least one frame"):
        await TrackClip(pixels, "mp4", 10).finish()


async def test_a_correction_of_what_was_found_leaves_all_ids_as_they_were(store: TrackingStore) -> None:
    session = store.keep(store.open(Crossing(), "segmenter", phrases=["object"]))
    before = await everything(session.track())
    session.add_prompts([click(18, 2, 58, 25), click(20, 9, 60, 50)])
    after = await everything(session.track())
    assert [ids(frame) for frame in after[:18]] == [ids(frame) for frame in before[:18]]
    assert set(ids(after[23])) <= {1, 2, 3, 9}
    assert box_of(after[20], 9) == (55, 40, 70, 55)


def ids(frame: TrackedFrame) -> list[int]:
    return [each.object_id for each in frame.objects]


async def test_what_was_said_of_an_object_can_be_taken_back(store: TrackingStore) -> None:
    session = store.keep(store.open(Crossing(), "segmenter", prompts=[click(0, 1, 60, 50), click(0, 2, 5, 25)]))
    assert ids((await everything(session.track(stop=1)))[0]) == [1, 2]
    session.forget_prompts(2)
    assert ids((await everything(session.track(stop=1)))[0]) == [1]
    with pytest.raises(NotFound, match="No prompt is about object 2"):
        session.forget_prompts(2)


async def test_deleting_a_session_ends_its_tracking(store: TrackingStore) -> None:
    session = store.keep(store.open(Crossing(frame_count=10_000), "segmenter", phrases=["red"]))
    async with aclosing(store.watch(session)) as frames:
        await anext(frames)
        store.delete(session.session_id)
        with pytest.raises(NotFound, match="was deleted while"):
            await anext(frames)
    assert not session.tracking


async def test_refusals_say_what_to_do(store: TrackingStore) -> None:
    video = Crossing()
    with pytest.raises(NotFound, match="Unknown model_type"):
        store.keep(store.open(video, "nothing", phrases=["red"]))
    with pytest.raises(InvalidInput, match="a model for depth, which cannot track"):
        store.keep(store.open(video, "other", phrases=["red"]))
    with pytest.raises(InvalidInput, match="3 phrases; at most 2"):
        store.keep(store.open(video, "segmenter", phrases=["red", "green", "blue"]))
    with pytest.raises(InvalidInput, match="frame 24; the video has 24 frames"):
        store.keep(store.open(video, "segmenter", prompts=[click(24, 1, 5, 5)]))
    with pytest.raises(InvalidInput, match="At most 3 objects"):
        store.keep(store.open(video, "segmenter", prompts=[click(0, number, 5, 5) for number in range(4)]))
    with pytest.raises(InvalidInput, match="Say what to track"):
        await everything(store.keep(store.open(video, "segmenter")).track())
    with pytest.raises(InvalidInput, match=r"finds no object at the points of object 1 on frame 0\. Give a box"):
        await everything(store.keep(store.open(video, "segmenter", prompts=[click(0, 1, 1, 1)])).track())
    with pytest.raises(InvalidInput, match="No frame to track from 30"):
        await everything(store.keep(store.open(video, "segmenter", phrases=["red"])).track(start=30))


async def test_sessions_are_kept_within_bounds(store: TrackingStore) -> None:
    sessions = [store.keep(store.open(Crossing(nbytes=4000), "segmenter", phrases=["red"])) for _ in range(3)]
    assert len(store) == 2 and store.bytes_held == 8000
    with pytest.raises(NotFound, match="No tracking session"):
        store.get(sessions[0].session_id)
    assert store.get(sessions[2].session_id) is sessions[2]
    async with aclosing(store.watch(sessions[2], stop=2)) as watched:
        assert len([frame async for frame in watched]) == 2
    store.delete(sessions[2].session_id)
    with pytest.raises(NotFound):
        store.delete(sessions[2].session_id)
    with pytest.raises(TooLarge, match="The video takes 1 MB; the store holds 0 MB"):
        store.keep(store.open(Crossing(nbytes=20_000), "segmenter", phrases=["red"]))


async def test_a_session_for_once_is_not_kept_and_holds_to_the_same_limits(store: TrackingStore) -> None:
    strict = store.open(Crossing(), "detector", phrases=["red"], birth_score=1.1)
    assert len(store) == 0
    assert not any(frame.objects for frame in await everything(strict.track()))
    boxes = [TrackPrompt(0, index, ObjectPrompt(box=(1, 1, 9, 9))) for index in range(4)]
    with pytest.raises(InvalidInput, match="At most 3 objects"):
        store.open(Crossing(), "detector", prompts=boxes)
