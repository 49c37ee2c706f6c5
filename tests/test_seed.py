"""The usage guide that the native protocol comes from: each of its examples works as written, but for the port."""

from __future__ import annotations

import re
import shlex
import sys
from importlib.metadata import distribution
from pathlib import Path

import httpx
import pytest

from tests.code_blocks import Block, code_blocks, run_python, run_shell, write_pictures
from tests.conftest import Server
from vision_model_repo.demo.live import live_server
from vision_model_repo.engine.jobs import JobQueue

ROOT = Path(__file__).parent.parent
FOUND = sorted((ROOT.parent / "shared" / "seeds").glob("002*.txt"))
BLOCKS = code_blocks(FOUND[0].read_text()) if FOUND else []

pytestmark = pytest.mark.skipif(not FOUND, reason="the guide is not beside this checkout")


def only(language: str, containing: str) -> list[Block]:
    return [block for block in BLOCKS if block.language == language and containing in block.code]


def commands(containing: str) -> list[str]:
    lines = [line for block in only("bash", containing) for line in block.code.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def test_the_python_examples_run_in_order(server: Server, tmp_path: Path) -> None:
    write_pictures(tmp_path)
    said = run_python(only("python", "requests."), tmp_path, server.url)
    assert "Results: 2 detections" in said
    assert "Depth map shape: [1, 120, 160]" in said
    assert re.search(r"Pooled shape: \(1, \d+\)", said)
    assert "Processed 3 images in" in said
    assert "Result: {" in said
    assert (tmp_path / "depth_output.png").stat().st_size > 0
    assert "Internal error" not in server.log()


@pytest.mark.parametrize("block", only("bash", "curl"), ids=lambda block: block.code.split()[-1])
def test_the_curl_examples_run(block: Block, server: Server, tmp_path: Path) -> None:
    assert run_shell(block, tmp_path, server.url).startswith("{")


def test_health_has_the_fields_that_are_shown(server: Server) -> None:
    shown = next(block for block in BLOCKS if block.language == "json" and '"status"' in block.code)
    answer = httpx.get(f"{server.url}/health", timeout=30).json()
    assert set(re.findall(r'"(\w+)":', shown.code)) <= set(answer)


@pytest.mark.parametrize("line", commands("--reload"))
def test_the_commands_for_development_start_a_healthy_server(line: str, tmp_path: Path) -> None:
    (tmp_path / "run_api_server.py").symlink_to(ROOT / "run_api_server.py")
    with live_server(tmp_path, {"API_PORT": "0", "HF_HUB_OFFLINE": "1"}, command=as_command(line)) as started:
        url = started.url.replace("0.0.0.0", "127.0.0.1")
        assert httpx.get(f"{url}/health", timeout=30).json()["status"] == "healthy"


@pytest.mark.parametrize("line", commands("--workers"))
def test_the_command_with_several_workers_is_refused_with_the_reason(line: str, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="Start it with one worker"), live_server(tmp_path, command=as_command(line)):
        pass


def as_command(line: str) -> list[str]:
    """The command in this environment and on a free port."""
    words = shlex.split(line.replace("--port 8000", "--port 0"))
    return [sys.executable, *words[1:]] if words[0] == "python" else [sys.executable, "-m", *words]


def test_what_the_installation_steps_need_is_there() -> None:
    assert {"pip install -e .", "pip install -r requirements.api.txt"} <= set(commands("pip install"))
    assert "cp .env.example .env" in commands("cp ")
    assert (ROOT / ".env.example").is_file() and (ROOT / "CONFIG.md").is_file()
    lines = (ROOT / "requirements.api.txt").read_text().splitlines()
    for line in lines:
        if line and not line.startswith("#"):
            assert distribution(re.split(r"[\[><=]", line)[0])


async def test_the_job_queue_takes_the_shown_argument() -> None:
    [block] = only("python", "JobQueue(")
    namespace = {"JobQueue": JobQueue}
    exec(block.code, namespace)
    assert isinstance(namespace["_job_queue"], JobQueue)
