"""What a thread may do while it reads a checkpoint: open its files and those of installed packages, and no more.

A library that is misled by a checkpoint's data may want to read another file, to ask the hub for a second repository,
or to start a program. Python tells of each such step before it is done, which is where it is refused here
(https://docs.python.org/3/library/audit_events.html). That is no sandbox for code: a checkpoint's code is never run.
"""

from __future__ import annotations

import functools
import logging
import os
import site
import sys
import sysconfig
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

logger = logging.getLogger(__name__)

_confinement = threading.local()
_hook_lock = threading.Lock()
_hook_is_there = False
LIBRARIES = (
    "torch torchvision transformers tokenizers huggingface_hub timm open_clip sentencepiece depth_anything_3 numpy PIL"
).split()
"""What reads checkpoints, and may have files of its own to read."""
_PACKAGE = str(Path(__file__).parents[1])
_CODE = (".py", ".pyc", ".so")
_SYSTEM = (
    "/etc/ld.so.",
    "/etc/localtime",
    "/etc/nv_tegra_release",
    "/etc/os-release",
    "/proc/cpuinfo",
    "/proc/driver/",
    "/proc/meminfo",
    "/proc/mounts",
    "/proc/self/cgroup",
    "/proc/self/maps",
    "/proc/self/mountinfo",
    "/proc/self/stat",
    "/proc/stat",
    "/proc/sys/",
    "/proc/version",
    "/sys/",
    "/usr/lib/os-release",
    "/usr/share/zoneinfo/",
    "/dev/null",
    "/dev/urandom",
    "/dev/shm/",
)
_REFUSED = frozenset(
    {
        "socket.connect",
        "socket.getaddrinfo",
        "socket.gethostbyname",
        "socket.sendto",
        "subprocess.Popen",
        "os.system",
        "os.exec",
        "os.posix_spawn",
        "os.fork",
        "os.forkpty",
    }
)
"""By their names in https://docs.python.org/3/library/audit_events.html."""
_PROBES = ("ldconfig", "lscpu", "nvidia-smi", "rocm-smi", "rocminfo", "uname")
"""Programs by which libraries ask what machine this is, such as Triton where it looks for the driver of a GPU."""
_PROGRAM_FOLDERS = ("", "/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/local/bin", "/opt/rocm/bin")


class OutsideOfCheckpoint(PermissionError):
    """A library wanted to leave the checkpoint that it reads."""


@contextmanager
def confined(folder: Path) -> Iterator[None]:
    """Keeps this thread to the files of a folder and of installed packages while the block runs."""
    _install_hook()
    previous = getattr(_confinement, "folders", None)
    _confinement.folders = (*_installed(), f"{folder}{os.sep}", f"{folder.resolve()}{os.sep}")
    try:
        yield
    finally:
        _confinement.folders = previous


@contextmanager
def released() -> Iterator[None]:
    """Lifts the confinement of this thread for something of ours."""
    previous = getattr(_confinement, "folders", None)
    _confinement.folders = None
    try:
        yield
    finally:
        _confinement.folders = previous


@functools.cache
def _installed() -> tuple[str, ...]:
    """Where Python's own files and those of packages are; those of libraries wherever they are installed."""
    found = (find_spec(name) for name in LIBRARIES)
    places = [str(Path(spec.origin).parent) for spec in found if spec is not None and spec.origin]
    standard = [*sysconfig.get_paths().values(), sys.prefix, sys.base_prefix, site.getusersitepackages()]
    return (*_SYSTEM, *_both_forms([*standard, *places, _PACKAGE]))


def _both_forms(places: Iterable[str]) -> tuple[str, ...]:
    """Folders as they are called and as they really are."""
    forms = {
        f"{form}{os.sep}" for place in places if place.startswith("/") for form in (place, os.path.realpath(place))
    }
    return tuple(forms - {os.sep, 2 * os.sep})


def _install_hook() -> None:
    global _hook_is_there
    with _hook_lock:
        if not _hook_is_there:
            sys.addaudithook(_audit)
            _hook_is_there = True


def _audit(event: str, args: tuple[Any, ...]) -> None:
    folders = getattr(_confinement, "folders", None)
    if folders is None:
        return
    if event in _REFUSED and not _is_probe(event, args):
        raise OutsideOfCheckpoint(f"{event} while a checkpoint is read")
    if event == "open" and isinstance(args[0], str | bytes | os.PathLike):
        # Not resolved: the links in the folder lead where they may.
        path = os.path.normpath(Path.cwd() / os.fsdecode(cast(Any, args[0])))
        # Code of packages that are installed where they are developed; none of a checkpoint's is there.
        if path.startswith(folders) or (path.endswith(_CODE) and path.startswith(_both_forms(sys.path))):
            return
        with released():
            logger.warning("A library was kept from opening %s while it read a checkpoint", path)
        raise OutsideOfCheckpoint(f"{path} is outside of the checkpoint")


def _is_probe(event: str, args: tuple[Any, ...]) -> bool:
    """Whether a program is one of those, as the system has it."""
    if event not in ("subprocess.Popen", "os.posix_spawn"):
        return False
    program = args[0] or (args[1][0] if isinstance(args[1], list | tuple) and args[1] else "")
    folder, name = os.path.split(os.fsdecode(program))
    return name in _PROBES and folder in _PROGRAM_FOLDERS
