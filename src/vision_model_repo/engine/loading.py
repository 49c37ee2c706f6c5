"""From the name of a checkpoint to a model that is ready to answer."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from vision_model_repo import garbage
from vision_model_repo.engine.devices import resolve_device
from vision_model_repo.engine.loader_threads import LoaderThreads
from vision_model_repo.engine.warmup import measure_batch, warm_batches, warm_up
from vision_model_repo.engine.worker import DeviceWorker
from vision_model_repo.errors import NotFound, contained
from vision_model_repo.models.base import Checkpoint, EncoderModel, GenerativeModel, Model, Servable
from vision_model_repo.models.catalog import REMOTE, ModelSpec
from vision_model_repo.models.hub import Hub, no_checkpoint
from vision_model_repo.settings import Settings
from vision_model_repo.tasks.examples import EXAMPLES, HEIGHT, WIDTH, examples

logger = logging.getLogger(__name__)

# A download is mostly waiting; a few may run beside each other.
DOWNLOADS_AT_ONCE = 4


class ModelLoader:
    """Finds, reads and warms up models, in threads of its own.

    Args:
        settings: defaults, and how models are tuned.
        hub: where their weights come from.
    """

    def __init__(self, settings: Settings, hub: Hub) -> None:
        self._settings = settings
        self._hub = hub
        self._downloads = ThreadPoolExecutor(DOWNLOADS_AT_ONCE, thread_name_prefix="download")
        self.threads = LoaderThreads(settings.model_load_timeout_seconds)

    async def device(self, name: str) -> str:
        """The device that a name means, such as "cuda:0" for "auto". Raises what `resolve_device` does."""
        return await self.threads.run(partial(resolve_device, name), "The list of devices")

    async def find(self, spec: ModelSpec, model_id: str | None) -> Checkpoint:
        """The files of a checkpoint, downloaded if need be.

        Args:
            model_id: None for the family's default.

        Raises:
            NotFound: there are none.
            NotAllowed: settings exclude it, or what a plugin's class was told to find.
        """
        loop = asyncio.get_running_loop()
        for name in spec.fetches:
            await loop.run_in_executor(self._downloads, contained(self._hub.check_allowed), name)
        if model_id is not None and spec.device == REMOTE:
            raise NotFound(f"{spec.model_type} is run by another server, with a checkpoint of its own. Name none.")
        if model_id is not None:
            return await loop.run_in_executor(self._downloads, contained(self._hub.resolve), model_id)
        preferred = self._settings.default_model_ids.get(spec.model_type)
        return await loop.run_in_executor(self._downloads, contained(self._hub.resolve_default), spec, preferred)

    async def read(self, spec: ModelSpec, checkpoint: Checkpoint, dtype: str, worker: DeviceWorker) -> Servable:
        """A model on the worker's device, ready to answer.

        Raises:
            NotFound: the checkpoint is damaged, or none of the family.
            RequestTimeout: it takes longer than MODEL_LOAD_TIMEOUT_SECONDS.
            What its library does when the memory runs out.
        """
        load = partial(_load, spec, checkpoint, worker.device, dtype)
        try:
            model = await self.threads.run(load, checkpoint.model_id, discard=lambda model: model.unload())
        except NotFound as error:
            if not checkpoint.on_server:
                raise
            logger.warning("%s cannot be loaded as %s: %s", checkpoint.model_id, spec.model_type, error.message)
            raise NotFound(no_checkpoint(checkpoint.model_id)) from None
        try:
            await self._make_ready(spec, model, worker)
        except BaseException:
            await worker.call(model.unload)
            raise
        garbage.spare()
        return model

    def close(self) -> None:
        """Ends the threads, after what they are doing."""
        self._downloads.shutdown()

    async def _make_ready(self, spec: ModelSpec, model: Servable, worker: DeviceWorker) -> None:
        """Tunes a model as settings want it, runs it once, and settles how many images make a batch."""
        settings = self._settings
        if max_batch := spec.max_batch or settings.max_batch_size:
            model.max_batch = min(model.max_batch, max_batch)
            if isinstance(model, EncoderModel):
                model.max_questions = min(model.max_questions, max_batch)
        if not isinstance(model, Model):
            return
        tune = partial(model.tune, compiled=settings.compile_models, channels_last=settings.channels_last)
        await worker.call(tune)
        wanted = model.device.startswith("cuda") or settings.compile_models
        if not (wanted if settings.warm_up == "auto" else settings.warm_up == "on") or spec.task not in EXAMPLES:
            return
        taken = await warm_up(model, worker, *examples(spec.task))
        if isinstance(model, GenerativeModel):
            # It takes one at a time, and compiles nothing.
            return
        if not max_batch:
            model.max_batch = await measure_batch(model, worker, taken[-1])
        if settings.compile_models:
            # From a second size on, code is compiled that takes any.
            await warm_up(model, worker, *examples(spec.task, WIDTH, HEIGHT))
            for request in taken:
                await warm_batches(model, worker, request)


def _load(spec: ModelSpec, checkpoint: Checkpoint, device: str, dtype: str) -> Servable:
    return spec.loader()(checkpoint, device=device, dtype=dtype)
