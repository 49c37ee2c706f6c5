"""Which models are in memory: loads them once, evicts the idle, and runs requests on them.

All state belongs to the event loop and changes only between two awaits, so there are no locks. What blocks runs
elsewhere: downloads and reading weights in loader threads, pixels in the pixel threads, the network on its device's
thread.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from vision_model_repo.engine.cache import EncodingCache
from vision_model_repo.engine.concurrency import gather_or_cancel
from vision_model_repo.engine.devices import (
    DTYPE_BYTES,
    device_memory,
    resolve_dtype,
)
from vision_model_repo.engine.loading import ModelLoader
from vision_model_repo.engine.metrics import Metrics, Reason
from vision_model_repo.engine.pixels import PixelThreads
from vision_model_repo.engine.preload import Preload
from vision_model_repo.engine.runner import Runner
from vision_model_repo.engine.slots import Slot
from vision_model_repo.engine.timings import Timings
from vision_model_repo.engine.worker import DeviceWorker
from vision_model_repo.errors import (
    Busy,
    InsufficientMemory,
    InvalidInput,
    NotFound,
    RequestTimeout,
    is_out_of_memory,
)
from vision_model_repo.models.base import Checkpoint, Servable
from vision_model_repo.models.catalog import Catalog, ModelSpec
from vision_model_repo.models.hub import Hub
from vision_model_repo.settings import Settings

logger = logging.getLogger(__name__)

MEGABYTE = 2**20


@dataclass(frozen=True, slots=True)
class Answer:
    """Results and timings in the order of the requests, and which checkpoint gave them."""

    results: list[Any]
    timings: list[Timings]
    model_id: str


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """What there is to know about one model_type.

    Attributes:
        model_id: the checkpoint in memory; None if there is none.
        memory_bytes: held by its weights.
        idle_seconds: since its last request.
        fallback_reason: why the embedded checkpoint stands in for the default one, where it does.
        interface: how the model in memory says that it is called; None where it does not.
    """

    spec: ModelSpec
    loaded: bool = False
    loading: bool = False
    model_id: str | None = None
    device: str | None = None
    dtype: str | None = None
    memory_bytes: int = 0
    requests_in_flight: int = 0
    idle_seconds: float | None = None
    fallback_reason: str | None = None
    interface: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class _Loading:
    model_id: str | None
    device: str | None
    task: asyncio.Task[None]


class ModelManager:
    """Loads, evicts and runs models. Lives on one event loop.

    Args:
        settings: budgets, limits and defaults.
        catalog: which model families there are.
        hub: where their weights come from.
        pixels: threads for everything before and after the network.
        metrics: told of every batch and every answer.
    """

    def __init__(self, settings: Settings, catalog: Catalog, hub: Hub, pixels: PixelThreads, metrics: Metrics) -> None:
        self._settings = settings
        self.catalog = catalog
        self._metrics = metrics
        self.cache = EncodingCache(settings.cache_device_mb * MEGABYTE, settings.cache_host_mb * MEGABYTE, pixels)
        self._runner = Runner(pixels, self.cache, self._make_all_room)
        self._slots: dict[str, Slot] = {}
        self._loading: dict[str, _Loading] = {}
        self._workers: dict[str, DeviceWorker] = {}
        self._loader = ModelLoader(settings, hub)
        self._reaper: asyncio.Task[None] | None = None
        self._closing = False
        self.preload = Preload(self.load, [catalog[name].model_type for name in settings.preload_models])

    async def run(
        self,
        model_type: str,
        requests: Sequence[Any],
        *,
        model_id: str | None = None,
        on_progress: Callable[[int], None] | None = None,
    ) -> Answer:
        """Answers requests for one model, one for each image.

        Args:
            model_id: the checkpoint to use; None for the one in memory, or the default.
            on_progress: called with the number of requests answered so far.

        Raises:
            NotFound: no such model or checkpoint, or it is not loaded and AUTO_LOAD is off.
            InvalidInput: the model cannot answer such a request.
            InsufficientMemory: it does not fit, even with every idle model evicted.
            RequestTimeout: the deployment's time, or REQUEST_TIMEOUT_SECONDS, are over.
        """
        seconds = self._seconds(model_type)
        deadline = time.monotonic() + seconds
        try:
            async with asyncio.timeout(seconds):
                async with self._using(model_type, model_id) as slot:
                    answers = await self._answer_all(slot, requests, deadline, on_progress)
                    results, timings = zip(*answers, strict=True) if answers else ((), ())
                    return Answer(list(results), list(timings), slot.model.model_id)
        except TimeoutError:
            raise RequestTimeout(f"No answer within {seconds:g} s. Send fewer images, or submit it as a job.") from None

    async def stream(
        self, model_type: str, request: Any, *, model_id: str | None = None
    ) -> AsyncGenerator[tuple[Any, str]]:
        """A result as it grows, and which checkpoint gives it; the last one is whole.

        Closing the iterator, which `contextlib.aclosing` does, ends the work within a step of the model.

        Raises:
            What `run` raises.
        """
        name = self.catalog[model_type].model_type
        seconds, timings = self._seconds(name), Timings()
        deadline = time.monotonic() + seconds
        try:
            async with aclosing(self._grow(name, request, model_id, deadline, timings)) as results:
                while True:
                    # Not around the whole: whoever reads the results is not to be interrupted.
                    async with asyncio.timeout(deadline - time.monotonic()):
                        result = await anext(results, None)
                    if result is None:
                        break
                    yield result
        except TimeoutError:
            late = RequestTimeout(f"The answer was not complete within {seconds:g} s. Ask for fewer tokens.")
            self._metrics.failed(name, late)
            raise late from None
        except Exception as error:
            self._metrics.failed(name, error)
            raise
        self._metrics.answered(name, timings)

    def check_available(self, model_type: str, model_id: str | None = None) -> None:
        """Raises NotFound where `run` would, as far as that is known without asking the hub."""
        spec = self.catalog[model_type]
        slot = self._slots.get(spec.model_type)
        if not self._settings.auto_load and (slot is None or not slot.matches(model_id, None)):
            wanted = f" as {model_id}" if model_id and slot else ""
            raise NotFound(f"Model {spec.model_type} not loaded{wanted}. Call load_model() first.")

    async def load(self, model_type: str, model_id: str | None = None, device: str | None = None) -> ModelStatus:
        """Makes sure that a model is in memory; with a model_id or device, that very one there."""
        spec = self.catalog[model_type]
        wanted = await self._loader.device(device) if device else None
        await self._ensure(spec, model_id, wanted)
        return self._status(spec)

    async def unload(self, model_type: str) -> bool:
        """Takes a model out of memory after its requests in flight; answers whether there was one."""
        spec = self.catalog[model_type]
        slot = self._slots.pop(spec.model_type, None)
        if slot is None:
            return False
        await self._retire(slot)
        return True

    async def deploy(self, deployment: ModelSpec) -> ModelStatus:
        """Adds a model under a name of its own and loads it; one that cannot be loaded is not added.

        Raises:
            NameTaken: there is a model of that name.
            What `load` raises.
        """
        self.catalog.add(deployment)
        try:
            return await self.load(deployment.model_type)
        except BaseException:
            self._remove(deployment)
            raise

    async def undeploy(self, name: str) -> None:
        """Forgets a deployment and, after its requests in flight, frees its memory. Raises NotFound."""
        spec = self.catalog[name]
        self._remove(spec)
        if (loading := self._loading.get(spec.model_type)) is not None:
            await asyncio.wait([loading.task])
        if (slot := self._slots.pop(spec.model_type, None)) is not None:
            await self._retire(slot)

    def _remove(self, spec: ModelSpec) -> None:
        # In this order: of a model that the catalog does not have, nothing more is counted.
        self.catalog.remove(spec.model_type)
        self._metrics.forget(spec.model_type)

    async def unload_all(self) -> None:
        await asyncio.gather(*(self.unload(model_type) for model_type in list(self._slots)))

    def status(self) -> list[ModelStatus]:
        """Every model_type of the catalog, loaded or not."""
        return [self._status(spec) for spec in self.catalog.values()]

    def loaded(self) -> list[str]:
        """The model types in memory."""
        return list(self._slots)

    @property
    def healthy(self) -> bool:
        """Whether every device thread is alive."""
        return all(worker.alive for worker in self._workers.values())

    @property
    def degraded(self) -> bool:
        """Whether reading a checkpoint was given up and nothing has shown since that the next one can be read."""
        return self._loader.threads.degraded

    async def start(self) -> None:
        """Begins to load what settings want from the beginning, and to watch for idle models."""
        if self._settings.model_idle_seconds:
            self._reaper = asyncio.create_task(self._unload_idle(), name="idle-models")
        self.preload.start()

    async def close(self) -> None:
        """Unloads everything and ends the threads. Requests must have finished or been cancelled."""
        self._closing = True
        self.preload.stop()
        if self._reaper is not None:
            self._reaper.cancel()
        if self._loading:
            await asyncio.wait([loading.task for loading in self._loading.values()])
        await self.unload_all()
        for worker in self._workers.values():
            worker.stop()
        self._loader.close()

    # One request

    def _seconds(self, model_type: str) -> float:
        """The time for one request of a model."""
        return self.catalog[model_type].timeout_seconds or self._settings.request_timeout_seconds

    async def _answer_all(
        self, slot: Slot, requests: Sequence[Any], deadline: float, on_progress: Callable[[int], None] | None
    ) -> list[tuple[Any, Timings]]:
        done = 0

        async def answer(index: int, request: Any) -> tuple[Any, Timings]:
            nonlocal done
            try:
                result, timings = await self._runner.answer(slot, request, deadline)
            except Exception as error:
                self._metrics.failed(slot.spec.model_type, error)
                if isinstance(error, InvalidInput):
                    raise InvalidInput(error.message, index=index) from error
                raise
            self._metrics.answered(slot.spec.model_type, timings)
            done += 1
            if on_progress is not None:
                on_progress(done)
            return result, timings

        calls = [partial(answer, index, request) for index, request in enumerate(requests)]
        # All at once: the lanes make batches of them.
        return await gather_or_cancel(calls, at_once=max(1, len(calls)))

    async def _grow(
        self, model_type: str, request: Any, model_id: str | None, deadline: float, timings: Timings
    ) -> AsyncGenerator[tuple[Any, str]]:
        async with (
            self._using(model_type, model_id) as slot,
            aclosing(self._runner.stream(slot, request, deadline, timings)) as results,
        ):
            async for result in results:
                yield result, slot.model.model_id

    # Models in memory

    @asynccontextmanager
    async def _using(self, model_type: str, model_id: str | None) -> AsyncIterator[Slot]:
        self.check_available(model_type, model_id)
        slot = await self._ensure(self.catalog[model_type], model_id, None)
        slot.hold()
        try:
            yield slot
        finally:
            slot.release()

    async def _ensure(self, spec: ModelSpec, model_id: str | None, device: str | None) -> Slot:
        """The slot that matches, loaded if need be; loads of one model_type happen one after the other."""
        name = spec.model_type
        while True:
            slot = self._slots.get(name)
            if slot is not None and slot.matches(model_id, device):
                return slot
            if self._closing:
                raise Busy("The server is shutting down. Try again in a moment.", retry_after=5)
            current = self._loading.get(name)
            if current is None:
                # A task of its own: the load goes on for the others if the caller that began it hangs up.
                task = asyncio.create_task(self._load(spec, model_id, device), name=f"load-{name}")
                task.add_done_callback(partial(self._loaded_or_failed, name))
                current = self._loading[name] = _Loading(model_id, device, task)
            if (current.model_id, current.device) == (model_id, device):
                await asyncio.shield(current.task)
            else:
                await asyncio.wait([current.task])

    def _loaded_or_failed(self, name: str, task: asyncio.Task[None]) -> None:
        del self._loading[name]
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.warning("Loading %s failed: %s", name, error)

    async def _load(self, spec: ModelSpec, model_id: str | None, device: str | None) -> None:
        started = time.monotonic()
        checkpoint = await self._loader.find(spec, model_id)
        place = await self._loader.device(device or spec.device or self._settings.device)
        dtype = resolve_dtype(spec.dtype or self._settings.dtype, place)
        await self._make_room(spec, place, checkpoint.parameter_count * DTYPE_BYTES[dtype])
        try:
            model = await self._loader.read(spec, checkpoint, dtype, self._worker(place))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            await self._evict(place)
            model = await self._read_or_refuse(spec, checkpoint, place, dtype)
        replaced = self._slots.get(spec.model_type)
        self._install(spec, checkpoint, model)
        if replaced is not None:
            await self._retire(replaced)
        logger.info(
            "Loaded %s as %s on %s in %.1f s, %.0f MB, batches of up to %d",
            spec.model_type,
            model.model_id,
            place,
            time.monotonic() - started,
            model.memory_bytes() / MEGABYTE,
            model.max_batch,
        )

    def _install(self, spec: ModelSpec, checkpoint: Checkpoint, model: Servable) -> None:
        self.preload.loaded(spec.model_type)
        self._slots[spec.model_type] = Slot(
            spec,
            checkpoint,
            model,
            self._worker(model.device),
            wait_seconds=self._settings.batch_wait_ms / 1000,
            on_batch=partial(self._metrics.batched, spec.model_type),
        )

    def _worker(self, device: str) -> DeviceWorker:
        worker = self._workers.get(device)
        if worker is None:
            worker = self._workers[device] = DeviceWorker(device)
        return worker

    async def _read_or_refuse(self, spec: ModelSpec, checkpoint: Checkpoint, device: str, dtype: str) -> Servable:
        try:
            return await self._loader.read(spec, checkpoint, dtype, self._worker(device))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise InsufficientMemory(f"{checkpoint.model_id} does not fit in the memory of {device}.") from None

    # Room

    async def _make_room(self, spec: ModelSpec, device: str, needed: int) -> None:
        """Evicts idle models, least recently used first and the one to be replaced last, until the new one fits."""
        while not self._fits(device, needed):
            idle = sorted(self._idle(device), key=lambda slot: slot.spec is spec)
            if not idle:
                raise InsufficientMemory(
                    f"{spec.model_type} needs about {needed // MEGABYTE} MB, which {device} does not have beside the "
                    "models in use. Unload one, raise MEMORY_BUDGET_MB, or use a smaller checkpoint."
                )
            await self._drop(idle[0])

    def _fits(self, device: str, needed: int) -> bool:
        memory = device_memory(device)
        budget = self._settings.memory_budget_mb * MEGABYTE or memory.total * 9 // 10
        held = sum(slot.model.memory_bytes() for slot in self._slots.values() if slot.model.device == device)
        return held + needed <= budget and needed <= memory.free

    def _idle(self, device: str) -> list[Slot]:
        idle = [slot for slot in self._slots.values() if slot.model.device == device and not slot.users]
        return sorted(idle, key=lambda slot: slot.last_used)

    async def _evict(self, device: str, keep: Slot | None = None) -> None:
        for slot in self._idle(device):
            if slot is not keep:
                await self._drop(slot)

    async def _drop(self, slot: Slot, reason: Reason = "room") -> None:
        """Unloads an idle model, unless someone else did or it has found a user meanwhile."""
        if slot.users or self._slots.get(slot.spec.model_type) is not slot:
            return
        logger.info("Unloading idle %s (%s)", slot.spec.model_type, slot.model.model_id)
        del self._slots[slot.spec.model_type]
        await self._retire(slot, reason)

    async def _make_all_room(self, slot: Slot) -> None:
        """For a request that ran out of memory: gives up all that is kept on its device and not in use."""
        self.cache.clear_device()
        await self._evict(slot.model.device, keep=slot)

    async def _retire(self, slot: Slot, reason: Reason = "asked") -> None:
        self._metrics.unloaded(slot.spec.model_type, reason)
        before = device_memory(slot.model.device).free
        await slot.retire()
        self.cache.drop(slot)
        freed = max(0, device_memory(slot.model.device).free - before)
        logger.info("Unloaded %s (%s), %.0f MB freed", slot.spec.model_type, slot.model.model_id, freed / MEGABYTE)

    async def _unload_idle(self) -> None:
        limit = self._settings.model_idle_seconds
        while True:
            await asyncio.sleep(min(limit / 2, 30.0))
            now = time.monotonic()
            for slot in [slot for slot in self._slots.values() if not slot.users and now - slot.last_used > limit]:
                await self._drop(slot, "idle")

    def _status(self, spec: ModelSpec) -> ModelStatus:
        slot = self._slots.get(spec.model_type)
        loading = spec.model_type in self._loading
        if slot is None:
            return ModelStatus(spec, loading=loading)
        return ModelStatus(
            spec,
            loaded=True,
            loading=loading,
            model_id=slot.model.model_id,
            device=slot.model.device,
            dtype=slot.model.dtype,
            memory_bytes=slot.model.memory_bytes(),
            requests_in_flight=slot.users,
            idle_seconds=round(time.monotonic() - slot.last_used, 1) if not slot.users else 0.0,
            fallback_reason=slot.checkpoint.fallback_reason,
            interface=slot.model.interface,
        )
