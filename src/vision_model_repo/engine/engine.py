"""The whole engine as one object: what a protocol gets to work with."""

from __future__ import annotations

import asyncio
import logging
import os

from vision_model_repo.engine.admission import Admission
from vision_model_repo.engine.association import Rules
from vision_model_repo.engine.devices import forward_threads
from vision_model_repo.engine.images import ImageStore, MaskStore
from vision_model_repo.engine.jobs import JobQueue
from vision_model_repo.engine.manager import MEGABYTE, ModelManager
from vision_model_repo.engine.metrics import Metrics
from vision_model_repo.engine.pixels import PixelThreads
from vision_model_repo.engine.tracking import TrackingStore
from vision_model_repo.engine.tracking_session import TrackingLimits
from vision_model_repo.formats.download import Downloader
from vision_model_repo.formats.images import use_block_cache
from vision_model_repo.formats.video import VideoLimits
from vision_model_repo.models.catalog import Catalog
from vision_model_repo.models.hub import Hub
from vision_model_repo.settings import Settings

logger = logging.getLogger(__name__)

# 16 MB each: enough for the images that a handful of threads decode at once.
IMAGE_BLOCKS = 16


class Engine:
    """Builds the engine's parts from settings, and ends them in the right order.

    Args:
        settings: all of the server's settings.
        catalog: model families; those installed if None.
    """

    def __init__(self, settings: Settings, catalog: Catalog | None = None) -> None:
        self.settings = settings
        self.pixels = PixelThreads(settings.pixel_threads)
        self.admission = Admission(settings.max_pending_requests, address_share=settings.address_share)
        self.downloader = Downloader(
            allow_private=settings.allow_private_urls,
            timeout_seconds=settings.url_timeout_seconds,
            max_bytes=settings.max_url_mb * MEGABYTE,
            max_connections=settings.max_images,
        )
        self.images = ImageStore(
            max_bytes=settings.image_store_mb * MEGABYTE,
            max_images=settings.max_stored_images,
            ttl_seconds=settings.image_ttl_seconds,
        )
        self.masks = MaskStore(max_bytes=settings.click_memory_mb * MEGABYTE, ttl_seconds=settings.image_ttl_seconds)
        self.jobs = JobQueue(
            max_concurrent_jobs=settings.max_concurrent_jobs,
            max_queued_jobs=settings.max_queued_jobs,
            max_queued_bytes=settings.max_queued_job_mb * MEGABYTE,
            max_jobs=settings.max_jobs,
            max_result_bytes=settings.max_job_results_mb * MEGABYTE,
            ttl_seconds=settings.job_ttl_seconds,
        )
        hub = Hub(
            root=settings.hf_root_folder,
            token=settings.hf_token.get_secret_value() if settings.hf_token else None,
            offline=settings.hf_hub_offline,
            allowed=settings.allowed_model_ids,
            roots=settings.model_roots,
        )
        catalog = catalog or Catalog.installed()
        self.metrics = Metrics(known=catalog.__contains__)
        self.manager = ModelManager(settings, catalog, hub, self.pixels, self.metrics)
        self.tracking = TrackingStore(
            self.manager,
            self.pixels,
            max_bytes=settings.tracking_store_mb * MEGABYTE,
            max_sessions=settings.max_tracking_sessions,
            ttl_seconds=settings.tracking_ttl_seconds,
            rules=Rules(
                birth_score=settings.track_birth_score,
                patience=settings.track_patience_frames,
                max_objects=settings.max_tracked_objects,
            ),
            limits=TrackingLimits(
                max_objects=settings.max_tracked_objects,
                max_prompts=settings.max_track_prompts,
                max_phrases=settings.max_prompts,
            ),
        )
        self.video_limits = VideoLimits(
            max_bytes=settings.max_video_mb * MEGABYTE,
            max_frames=settings.max_video_frames,
            max_pixels=settings.max_video_pixels,
            max_seconds=settings.max_video_seconds,
        )
        self._add_gauges()

    async def start(self) -> None:
        use_block_cache(IMAGE_BLOCKS)
        # Read by torch when it is imported, which no model has caused yet.
        if self.settings.torch_threads:
            os.environ["OMP_NUM_THREADS"] = str(self.settings.torch_threads)
        else:
            os.environ.setdefault("OMP_NUM_THREADS", str(forward_threads()))
        await self.manager.start()

    async def close(self) -> None:
        """Refuses new work, lets what runs finish within the grace time, then frees everything."""
        grace = self.settings.shutdown_grace_seconds
        left, _ = await asyncio.gather(self.admission.close(grace), self.jobs.close(grace))
        if left:
            logger.warning("%d requests did not finish in time and are dropped", left)
        await self.manager.close()
        await self.downloader.aclose()
        self.pixels.close()

    def _add_gauges(self) -> None:
        gauge = self.metrics.gauge
        gauge("vision_requests_inside", "Requests in the house.", (), lambda: {(): self.admission.inside})
        gauge(
            "vision_model_bytes",
            "Memory of the weights of each model.",
            ("model_type", "device"),
            lambda: {
                (status.spec.model_type, status.device): status.memory_bytes
                for status in self.manager.status()
                if status.device
            },
        )
        gauge(
            "vision_encoding_cache_bytes",
            "Encodings of recent images in memory.",
            ("place",),
            lambda: {(place,): held for place, held in self.manager.cache.bytes_held.items()},
        )
        gauge(
            "vision_store_bytes",
            "What callers have left to refer to by id.",
            ("kind",),
            lambda: {
                ("images",): self.images.bytes_held,
                ("masks",): self.masks.bytes_held,
                ("videos",): self.tracking.bytes_held,
            },
        )
        gauge(
            "vision_jobs",
            "Jobs remembered, by status.",
            ("status",),
            lambda: {(status,): count for status, count in self.jobs.counts().items()},
        )
