"""What a thread may do while it reads a checkpoint."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from vision_model_repo.models.confinement import OutsideOfCheckpoint, confined, released


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint, with a secret and a program called uname beside it."""
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / "config.json").write_text("{}")
    shutil.copy("/bin/true", checkpoint / "uname")
    (tmp_path / "secret").write_text("secret")
    return checkpoint


def test_its_own_files_and_those_of_packages_are_read(folder: Path) -> None:
    with confined(folder):
        assert (folder / "config.json").read_text() == "{}"
        assert Path(os.__file__).read_bytes()
        assert Path("/proc/cpuinfo").exists() and Path("/proc/meminfo").read_text()


OUTSIDE: dict[str, Callable[[Path], object]] = {
    "a file beside it": lambda folder: (folder.parent / "secret").read_text(),
    "a file beside it, by a path that climbs": lambda folder: Path(f"{folder}/../secret").read_text(),
    "a file of the system": lambda folder: Path("/etc/passwd").read_text(),
    "the environment": lambda folder: Path("/proc/self/environ").read_bytes(),
    "a file that it would write": lambda folder: (folder.parent / "new").write_text("x"),
    "a connection": lambda folder: socket.create_connection(("127.0.0.1", 9)),
    "a name": lambda folder: socket.getaddrinfo("localhost", 80),
    "a program": lambda folder: subprocess.run(["true"]),
    "a shell": lambda folder: subprocess.run("uname", shell=True),
    "a program of its own that is called as a harmless one": lambda folder: subprocess.run([str(folder / "uname")]),
    "a program by system": lambda folder: os.system("true"),
}


@pytest.mark.parametrize("what", OUTSIDE)
def test_nothing_else_is_done(folder: Path, what: str) -> None:
    with confined(folder), pytest.raises(OutsideOfCheckpoint):
        OUTSIDE[what](folder)


def test_libraries_may_ask_what_machine_this_is(folder: Path) -> None:
    with confined(folder):
        assert subprocess.run(["uname"], capture_output=True).stdout


def test_it_holds_for_this_thread_and_ends_with_the_block(folder: Path) -> None:
    read: list[str] = []
    with confined(folder):
        other = threading.Thread(target=lambda: read.append((folder.parent / "secret").read_text()))
        with released():
            read.append((folder.parent / "secret").read_text())
        other.start()
        other.join()
    assert [*read, (folder.parent / "secret").read_text()] == ["secret"] * 3
