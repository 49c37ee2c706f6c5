"""How the server starts, and how it refuses to."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import uvicorn

from tests.support.live import settings_of
from vision_model_repo.demo.live import ServerProcess, live_server
from vision_model_repo.serving import warn_if_open

ROOT = Path(__file__).parent.parent
SCRIPT = str(ROOT / "run_api_server.py")


def healthy(server: ServerProcess) -> bool:
    return httpx.get(f"{server.url}/health", timeout=30).json()["status"] == "healthy"


def test_the_script_starts_a_healthy_server(tmp_path: Path) -> None:
    # The other ways are the guide's (test_seed), and uvicorn's by hand (test_connections).
    command = (sys.executable, SCRIPT, "--port", "0")
    with live_server(tmp_path, {"HF_HUB_OFFLINE": "1"}, command=command) as server:
        assert healthy(server)
    assert server.process.returncode in (0, -15), server.log()


def test_the_server_leaves_with_code_0_when_told_to_stop(tmp_path: Path) -> None:
    with live_server(tmp_path, {"HF_HUB_OFFLINE": "1"}) as server:
        pass
    assert server.process.returncode in (0, -15), server.log()
    assert "Application shutdown complete." in server.log()


def test_several_workers_are_refused_with_the_reason(tmp_path: Path) -> None:
    # By uvicorn's own command, test_seed refuses them.
    command = (sys.executable, SCRIPT, "--workers", "2")
    with pytest.raises(RuntimeError, match="ended with code") as refusal, live_server(tmp_path, command=command):
        pass
    # argparse folds long lines.
    said = " ".join(str(refusal.value).split())
    assert "2 workers would be 2 registries, 2 job queues and 2 copies of every model" in said
    assert "Start it with one worker" in said


@pytest.mark.parametrize(
    ("arguments", "environment", "reason"),
    [
        (("--port", "99999"), {}, "API_PORT: Input should be less than or equal to 65535"),
        ((), {"MAX_IMAGES": "-1", "LOG_LEVEL": "chatty"}, "MAX_IMAGES: Input should be greater than or equal to 1"),
        ((), {"DEFAULT_MODEL_IDS": "facebook/sam3"}, "default_model_ids"),
        ((), {"ROOT_PROTOCOL": "soap"}, "No protocol 'soap' to put at the root. There are: native"),
        ((), {"CONFIG_FILE": "nowhere.toml"}, "There is no configuration file "),
    ],
)
def test_settings_that_make_no_sense_are_refused_with_the_reason(
    arguments: tuple[str, ...], environment: dict[str, str], reason: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, *arguments],
        cwd=tmp_path,
        env={**os.environ, "API_PORT": "0", **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert reason in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("host", "keys", "warned"),
    [
        ("0.0.0.0", (), True),
        ("::", (), True),
        ("vision.example", (), True),
        ("127.0.0.1", (), False),
        ("::1", (), False),
        ("localhost", (), False),
        ("0.0.0.0", ("key",), False),
    ],
)
def test_a_server_that_anybody_can_use_says_so_loudly(
    host: str, keys: tuple[str, ...], warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    warn_if_open(settings_of(api_keys=keys), uvicorn.Config("x:app", host=host))
    warn_if_open(settings_of(api_keys=keys, api_host=host), None)
    assert len(caplog.records) == 2 * warned
    assert all(f"listens on {host} and API_KEYS is not set" in record.message for record in caplog.records)


def test_a_socket_file_is_not_open_to_other_machines(caplog: pytest.LogCaptureFixture) -> None:
    warn_if_open(settings_of(), uvicorn.Config("x:app", host="0.0.0.0", uds="server.sock"))
    assert not caplog.records
