"""The parts of the campaign, each of bounded time; a part gives lines to print, and what went wrong."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import psutil

from tests.hostile import checkpoints as hostile_checkpoints
from tests.hostile import connections
from tests.hostile.bodies import json_bodies
from tests.hostile.honest import WRITERS
from tests.hostile.media import Findings, mutated_images, run_images_in_process, run_videos_in_process
from vision_model_repo.demo.live import ServerProcess, live_server

MEGABYTE = 2**20
ANSWER_SECONDS = 30.0
"""Longest time to answer one hostile request, on a machine that has other things to do."""
MAX_GROWN_MB = 1600
"""Memory of the server beyond what it began with: IMAGE_STORE_MB and CACHE_HOST_MB are 512 each, a model has its own,
and a picture of MAX_IMAGE_PIXELS takes 200 MB or, of some formats, three times as much while it is decoded."""
HEALTH_MS = 2000.0
CHECKPOINT_SECONDS = 60.0


@dataclass
class Part:
    """What a part of the campaign saw.

    Attributes:
        lines: to print.
        failures: what must not happen.
    """

    name: str
    lines: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def media(seed: int, images: int, videos: int) -> Iterator[Part]:
    """Mutated pictures and videos, decoded in processes of their own, whose crash is a failure."""
    with _processes() as processes:
        running = {
            f"{images} pictures and bombs": processes.submit(run_images_in_process, seed, images),
            f"{videos} videos and bombs": processes.submit(run_videos_in_process, seed, videos),
        }
        for name, future in running.items():
            part = Part(name)
            try:
                findings: Findings = future.result()
            except Exception as error:
                part.failures.append(f"the process ended: {type(error).__name__}: {error}")
            else:
                slowest, seconds = findings.slowest
                part.lines.append(f"{findings.decoded} decoded, {findings.refused} refused")
                part.lines.append(f"slowest {seconds:.2f} s: {slowest}")
                part.failures += findings.failures
            yield part


def checkpoints() -> Iterator[Part]:
    """Hostile checkpoints of every loader, in processes of their own."""
    with _processes() as processes:
        running = {loader: processes.submit(hostile_checkpoints.run, loader) for loader in WRITERS}
        for loader, future in running.items():
            part = Part(f"checkpoints of {loader}")
            try:
                tried = future.result()
            except Exception as error:
                part.failures.append(f"the process ended: {type(error).__name__}: {error}")
            else:
                name, _, seconds = max(tried, key=lambda each: each[2])
                part.lines.append(f"{len(tried)} tried, slowest {seconds:.1f} s: {name}")
                part.failures += [f"{name}: {wrong}" for name, wrong, _ in tried if wrong is not None]
                if seconds > CHECKPOINT_SECONDS:
                    part.failures.append(f"{name}: {seconds:.1f} s")
            yield part


def _processes() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"), initializer=_quiet)


def _quiet() -> None:
    """Decoders in C, and loaders, say on standard error what is wrong with each file."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


@contextmanager
def attacked_server() -> Iterator[ServerProcess]:
    """A server with its defaults and the embedded checkpoints."""
    with TemporaryDirectory() as folder:
        settings = {"HF_HUB_OFFLINE": "1", "HF_ROOT_FOLDER": f"{folder}/cache", "DEVICE": "cpu", "LOG_LEVEL": "WARNING"}
        with live_server(Path(folder), settings) as server:
            yield server


def images_over_http(server: ServerProcess, seed: int, count: int) -> Part:
    """Mutated pictures to keep, and every tenth to be asked about."""
    part = Part(f"{count} pictures over HTTP")
    with _requests(server, part) as ask:
        for index, (name, data) in enumerate(mutated_images(seed + 1, count)):
            path, key = ("/inference/depth-anything/upload", "images") if index % 10 == 0 else ("/images", "image")
            ask(name, lambda client, path=path, key=key, data=data: client.post(path, files={key: data}), 200)
    return part


def bodies_over_http(server: ServerProcess, seed: int, count: int) -> Part:
    """Hostile JSON and forms to every protocol: none of them is a valid request."""
    part = Part(f"{count} bodies over HTTP")
    with _requests(server, part) as ask:
        for body in json_bodies(seed, count):
            headers = {"content-type": body.content_type}
            ask(
                f"{body.method} {body.path}, {body.name}",
                lambda client, body=body, headers=headers: client.request(
                    body.method, body.path, content=body.content, headers=headers
                ),
                400,
            )
    return part


def attacks_on_connections(server: ServerProcess) -> Iterator[Part]:
    """Connections that cost much or last for ever; an honest client is answered all the while."""
    for name, attack in connections.ATTACKS.items():
        part = Part(name)
        try:
            report = attack(server.url, server.process.pid)
        except Exception as error:
            part.failures.append(f"{type(error).__name__}: {error}")
        else:
            part.lines.append(str(report))
            if report.shut_out:
                part.failures.append(f"{report.shut_out:.0%} of the honest requests were not answered")
            if report.grown_mb > MAX_GROWN_MB:
                part.failures.append(f"the server grew by {report.grown_mb:.0f} MB")
            if report.cut_after is None:
                part.failures.append("connections stayed open")
        part.failures += _after(server)
        yield part


Ask = Callable[[str, Callable[[httpx.Client], httpx.Response], int], None]


@contextmanager
def _requests(server: ServerProcess, part: Part) -> Iterator[Ask]:
    """Asks, and takes down statuses, times and memory; nothing may be answered with a status of 500 or below least."""
    process = psutil.Process(server.process.pid)
    before = most = process.memory_info().rss
    statuses: Counter[int] = Counter()
    slowest = (0.0, "")
    with httpx.Client(base_url=server.url, timeout=ANSWER_SECONDS) as client:

        def ask(name: str, send: Callable[[httpx.Client], httpx.Response], least: int) -> None:
            nonlocal most, slowest
            started = time.perf_counter()
            try:
                status = send(client).status_code
            except httpx.HTTPError as error:
                part.failures.append(f"{name}: {type(error).__name__}: {error}")
                return
            slowest = max(slowest, (time.perf_counter() - started, name))
            most = max(most, process.memory_info().rss)
            statuses[status] += 1
            if not least <= status < 500:
                part.failures.append(f"{name}: answered {status}")

        yield ask
    part.lines.append(f"statuses {dict(sorted(statuses.items()))}, slowest {slowest[0]:.2f} s: {slowest[1]}")
    part.lines.append(f"the server grew by {(most - before) / MEGABYTE:.0f} MB")
    if most - before > MAX_GROWN_MB * MEGABYTE:
        part.failures.append(f"the server grew by more than {MAX_GROWN_MB} MB")
    part.failures += _after(server)


def _after(server: ServerProcess) -> list[str]:
    """What is wrong with a server after an attack."""
    if server.process.poll() is not None:
        return [f"the server ended with code {server.process.returncode}"]
    failures = []
    if (milliseconds := connections.honest_milliseconds(server.url)) > HEALTH_MS:
        failures.append(f"/health took {milliseconds:.0f} ms")
    if "Internal error" in server.log():
        failures.append("the log has internal errors")
    return failures
