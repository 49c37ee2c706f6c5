"""What this machine can compute on, and how much memory is left there.

torch is asked only when a model is loaded; until then NVIDIA's management library answers for the GPU, so that a
server starts, and reports its health, without importing torch.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from functools import cache
from typing import Any

import psutil
import pynvml

from vision_model_repo.errors import InvalidInput
from vision_model_repo.models.catalog import REMOTE

DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes on one device."""

    free: int
    total: int


def resolve_device(device: str) -> str:
    """The full name of a device, such as "cuda:0" for "cuda"; "auto" is the best one there is. Imports torch, unless
    another server computes, or the CPU is asked for: not every model there needs it.

    Raises:
        InvalidInput: this machine has no such device.
    """
    if device in (REMOTE, "cpu"):
        return device
    import torch

    present = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        present.append("mps")
    if device == "auto":
        return next((name for name in present if name != "cpu"), "cpu")
    name = "cuda:0" if device == "cuda" else device
    if name not in present:
        raise InvalidInput(f"device {device[:40]!r} is not on this machine. It has: {', '.join(present)}.")
    return name


def resolve_dtype(dtype: str, device: str) -> str:
    """The dtype that "auto" stands for on a device."""
    if dtype != "auto":
        return dtype
    return "bfloat16" if device.startswith("cuda") else "float32"


def device_memory(device: str) -> Memory:
    """Memory of a resolved device. Host memory for the CPU, and for MPS, which shares it."""
    if device.startswith("cuda"):
        import torch

        return Memory(*torch.cuda.mem_get_info(device))
    host = psutil.virtual_memory()
    return Memory(host.available, host.total)


def forward_threads() -> int:
    """Threads of one forward pass on the CPU: one fewer than the cores, which is left to whoever decodes meanwhile.

    The threads of a pass wait for each other many times, so a single one that has to share its core holds up all.
    """
    cores = psutil.cpu_count(logical=False) or 1
    # On a part of a machine, as in a container, fewer may be ours.
    ours = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    return max(1, min(cores, ours) - 1)


def gpu_memory() -> Memory | None:
    """Memory of the first visible NVIDIA GPU, None where there is none. Takes microseconds, without torch."""
    handle = _first_gpu()
    if handle is None:
        return None
    info = pynvml.nvmlDeviceGetMemoryInfo(handle)
    return Memory(int(info.free), int(info.total))


@cache
def _first_gpu() -> object | None:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    if visible in ("", "-1"):
        return None
    try:
        pynvml.nvmlInit()
        if visible.isdigit():
            return pynvml.nvmlDeviceGetHandleByIndex(int(visible))
        return pynvml.nvmlDeviceGetHandleByUUID(visible)
    except pynvml.NVMLError:
        return None


def restore_defaults() -> None:
    """Undoes what a loader that was stopped halfway may have left: some set another dtype for all threads."""
    torch: Any = sys.modules.get("torch")
    if torch is not None:
        torch.set_default_dtype(torch.float32)
