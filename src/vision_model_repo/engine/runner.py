"""One request on one loaded model: through the pixel threads, over the device and back.

The threads hand a request on to each other, so that no event loop is waited for in between: what is prepared begins to
wait for the device at once, and what comes from there is finished by the next free pixel thread.

A model with an encoder takes two passes over the device. The first, over the image, is skipped where the image's
encoding is at hand, and shared by all requests that want it at once. Each request's second pass begins to wait in
the very moment in which the first has ended, on the device's own thread: so what was encoded together is also
answered together.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from concurrent.futures import Future
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar
from weakref import ref

from vision_model_repo.engine.batching import Entry, Lane
from vision_model_repo.engine.cache import EncodingCache
from vision_model_repo.engine.pixels import PixelThreads
from vision_model_repo.engine.slots import Slot
from vision_model_repo.engine.timings import Timings
from vision_model_repo.errors import InsufficientMemory, as_exception, is_out_of_memory
from vision_model_repo.formats.images import pixel_digest
from vision_model_repo.models.base import EncoderModel, Encoding, GenerativeModel, Model, RemoteModel

logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(slots=True)
class _Flight:
    """An image on its way through the encoder, and how many requests wait for it."""

    entry: Entry
    prepared: float = 0.0
    """Seconds that its preparation took."""
    encoded: Future[Encoding] = field(default_factory=Future)
    passengers: int = 0
    task: asyncio.Task[None] | None = None


class Runner:
    """Runs requests. Lives on one event loop.

    Args:
        pixels: threads for everything before and after the network.
        cache: of encodings.
        make_room: frees the memory of the slot's device from all that is not in use.
    """

    def __init__(
        self, pixels: PixelThreads, cache: EncodingCache, make_room: Callable[[Slot], Awaitable[None]]
    ) -> None:
        self._pixels = pixels
        self._cache = cache
        self._make_room = make_room
        self._flights: dict[tuple[Slot, str], _Flight] = {}

    async def answer(self, slot: Slot, request: Any, deadline: float) -> tuple[Any, Timings]:
        """A request's result, and where its time went.

        Args:
            deadline: by `time.monotonic`; what would be late does not reach the device.

        Raises:
            InvalidInput: the model cannot answer such a request.
            InsufficientMemory: it does not fit the device, with everything idle evicted.
            RequestTimeout: the deadline cannot be met.
        """
        timings, model = Timings(), slot.model
        if isinstance(model, Model) and not isinstance(model, GenerativeModel):
            return await self._whole(slot, model, request, deadline, timings), timings
        last = None
        async with aclosing(self.stream(slot, request, deadline, timings)) as results:
            async for result in results:
                last = result
        return last, timings

    async def _whole(self, slot: Slot, model: Model, request: Any, deadline: float, timings: Timings) -> Any:
        """The result of a model that answers at once."""
        if isinstance(model, EncoderModel):
            return await self._ask(slot, model, request, deadline, timings)
        return await self._run(slot, model, request, deadline, timings)

    async def stream(self, slot: Slot, request: Any, deadline: float, timings: Timings) -> AsyncGenerator[Any]:
        """A result as it grows, if the model's do; the last one is whole. Closing the iterator ends the work within a
        step of the model.

        Args:
            deadline: by `time.monotonic`; a first pass that would be late does not reach the device.
            timings: completed as things happen.

        Raises:
            What `answer` raises.
        """
        if isinstance(slot.model, Model) and not isinstance(slot.model, GenerativeModel):
            yield await self._whole(slot, slot.model, request, deadline, timings)
            return
        async with slot.places:
            if isinstance(slot.model, RemoteModel):
                item, timings.prepare = await self._timed(slot.model.preprocess, request)
                async with aclosing(slot.model.stream(item)) as results:
                    async for result in results:
                        yield result
            elif isinstance(slot.model, GenerativeModel):
                async with aclosing(self._carry_on(slot, slot.model, request, deadline, timings)) as results:
                    async for result in results:
                        yield result

    async def _carry_on(
        self, slot: Slot, model: GenerativeModel, request: Any, deadline: float, timings: Timings
    ) -> AsyncGenerator[Any]:
        """Queues anew for every pass, so that other requests have their turn in between."""
        item, timings.prepare = await self._timed(model.preprocess, request)
        try:
            finished = False
            while not finished:
                entry = Entry(item, None, deadline)
                slot.worker.put(slot.forward, entry)
                raw = await self._settled(slot, slot.forward, entry)
                # What has begun is not too late for its next pass; whoever waits for the end has a clock of his own.
                deadline = math.inf
                timings.queue += entry.queued
                timings.prompt += entry.ran
                finished = model.finished(raw)
                result, seconds = await self._timed(model.postprocess, raw, item)
                timings.post += seconds
                yield result
        finally:
            model.abandon(item)

    async def _run(self, slot: Slot, model: Model, request: Any, deadline: float, timings: Timings) -> Any:
        """The result of a model that sees all in one pass."""
        async with slot.places:
            entry, started = Entry(None, None, deadline), time.monotonic()
            self._pixels.submit(_set_out, slot, model, request, entry)
            result, timings.post = await self._settled(slot, slot.forward, entry, partial(self._finished, model))
        timings.prepare, timings.queue, timings.prompt = entry.since - started, entry.queued, entry.ran
        return result

    async def _ask(self, slot: Slot, model: EncoderModel, request: Any, deadline: float, timings: Timings) -> Any:
        """The answer to a question about an image, whose encoding is at hand or made first."""
        (item, digest), timings.prepare = await self._timed(_question, model, request)
        entry = Entry(item, None, deadline)
        if (encoding := self._cache.get(slot, digest)) is not None:
            timings.cached = True
            _follow(slot, model, entry, encoding)
        else:
            await self._board(slot, model, entry, digest, request.image, timings)
        result, timings.post = await self._settled(slot, slot.forward, entry, partial(self._finished, model))
        timings.queue += entry.queued
        timings.prompt = entry.ran
        return result

    # The first pass

    async def _board(
        self, slot: Slot, model: EncoderModel, entry: Entry, digest: str, image: Any, timings: Timings
    ) -> None:
        """Waits until an image is encoded for a question, whose entry goes on from there by itself."""
        key = (slot, digest)
        flight = self._flights.get(key)
        timings.cached = flight is not None
        if flight is None:
            flight = self._flights[key] = _Flight(Entry(None, None, entry.deadline))
            flight.task = asyncio.create_task(self._fly(slot, model, flight, digest, image))
        flight.entry.deadline = max(flight.entry.deadline, entry.deadline)
        boarded = time.monotonic()
        flight.passengers += 1
        landed: Future[None] = Future()
        flight.encoded.add_done_callback(partial(_disembark, slot, model, entry, landed))
        try:
            await asyncio.wrap_future(landed)
        finally:
            flight.passengers -= 1
            if not flight.passengers and not flight.encoded.done() and flight.task is not None:
                flight.task.cancel()
                self._land(key, flight)
        if timings.cached:
            timings.queue = max(0.0, flight.entry.finished - boarded)
        else:
            timings.prepare += flight.prepared
            timings.queue, timings.encode = flight.entry.queued, flight.entry.ran

    async def _fly(self, slot: Slot, model: EncoderModel, flight: _Flight, digest: str, image: Any) -> None:
        """Encodes an image, for all who are aboard and for the cache."""
        assert slot.encode is not None
        entry = flight.entry
        try:
            async with slot.places:
                entry.item, flight.prepared = await self._timed(model.prepare, image)
                entry.key = model.image_key(entry.item)
                entry.future.add_done_callback(partial(_pass_on, flight.encoded))
                slot.worker.put(slot.encode, entry)
                encoding = await self._settled(slot, slot.encode, entry)
            if not flight.encoded.done():
                flight.encoded.set_result(encoding)
            if not slot.retired:
                self._cache.put(slot, digest, encoding)
        except Exception as error:
            flight.encoded.set_exception(error)
        finally:
            entry.item = None
            self._land((slot, digest), flight)

    def _land(self, key: tuple[Slot, str], flight: _Flight) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]

    # Both passes

    async def _settled(
        self, slot: Slot, lane: Lane, entry: Entry, follow: Callable[[Entry], Future[Any]] = lambda entry: entry.future
    ) -> Any:
        """Waits for an entry's output, or for what follows from it; when the memory runs out in the pass, tries once
        more with all the room there is."""
        try:
            return await _outcome(entry, follow)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        logger.warning("%s ran out of memory on %s; retrying", slot.spec.model_type, slot.model.device)
        await self._make_room(slot)
        entry.future = Future()
        slot.worker.put(lane, entry)
        try:
            return await _outcome(entry, follow)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise InsufficientMemory(
                f"The request does not fit in the memory of {slot.model.device}. Send smaller images or fewer prompts."
            ) from None

    def _finished(self, model: Model, entry: Entry) -> Future[tuple[Any, float]]:
        """The result of an entry, and the seconds from the end of its pass to it."""
        result: Future[tuple[Any, float]] = Future()
        # Held by its own future, the entry with its pixels would be there until the garbage collector came.
        it = ref(entry)

        def carry_on(output: Future[Any]) -> None:
            if output.cancelled():
                result.cancel()
            elif (error := output.exception()) is not None:
                _fail(result, error)
            elif (entry := it()) is not None:
                self._pixels.submit(_finish, model, entry, result, time.monotonic())

        entry.future.add_done_callback(carry_on)
        return result

    async def _timed(self, function: Callable[..., T], *args: Any) -> tuple[T, float]:
        """The outcome of a function in a pixel thread, and the seconds it took there and on the way."""
        started = time.monotonic()
        outcome = await self._pixels.run(function, *args)
        return outcome, time.monotonic() - started


async def _outcome(entry: Entry, follow: Callable[[Entry], Future[Any]]) -> Any:
    """Waits for what follows from an entry. Whoever waits no more frees its place in the lane."""
    try:
        return await asyncio.wrap_future(follow(entry))
    except asyncio.CancelledError:
        entry.future.cancel()
        raise


def _set_out(slot: Slot, model: Model, request: Any, entry: Entry) -> None:
    """Prepares a request and lets it wait for its pass."""
    if entry.future.cancelled():
        return
    try:
        entry.item = model.preprocess(request)
        entry.key, entry.weight = model.batch_key(entry.item), model.weight(entry.item)
    except BaseException as error:
        # Out of memory here is the host's, and no pass that could be tried again.
        _fail(entry.future, _no_room() if is_out_of_memory(error) else as_exception(error))
    else:
        slot.worker.put(slot.forward, entry)


def _finish(model: Model, entry: Entry, result: Future[tuple[Any, float]], since: float) -> None:
    """Turns an entry's output into its result."""
    if not result.set_running_or_notify_cancel():
        return
    try:
        result.set_result((model.postprocess(entry.future.result(), entry.item), time.monotonic() - since))
    except BaseException as error:
        result.set_exception(as_exception(error))


def _no_room() -> InsufficientMemory:
    return InsufficientMemory("The server has no memory left to prepare the request. Send less, or try again later.")


def _fail(future: Future[Any], error: BaseException) -> None:
    """Ends a future with an error, unless its caller has hung up meanwhile."""
    if future.set_running_or_notify_cancel():
        future.set_exception(error)


def _question(model: EncoderModel, request: Any) -> tuple[Any, str]:
    return model.preprocess(request), request.digest or pixel_digest(request.image)


def _follow(slot: Slot, model: EncoderModel, entry: Entry, encoding: Encoding) -> None:
    """Lets a question about an encoded image wait for its pass, or answers it where the encoding is the answer."""
    entry.item = model.attach(entry.item, encoding)
    if model.answers_alike:
        entry.future.set_result(model.forward([entry.item])[0])
    else:
        entry.key, entry.weight = model.batch_key(entry.item), model.weight(entry.item)
        slot.worker.put(slot.forward, entry)


def _disembark(slot: Slot, model: EncoderModel, entry: Entry, landed: Future[None], encoded: Future[Encoding]) -> None:
    """Sends a question on once its image is encoded. Runs on the device's thread."""
    if not landed.set_running_or_notify_cancel():
        return
    try:
        _follow(slot, model, entry, encoded.result())
    except BaseException as error:
        landed.set_exception(as_exception(error))
    else:
        landed.set_result(None)


def _pass_on(encoded: Future[Encoding], outcome: Future[Encoding]) -> None:
    """Hands a success on at once; with a failure, the flight has plans of its own."""
    if not outcome.cancelled() and outcome.exception() is None:
        encoded.set_result(outcome.result())
