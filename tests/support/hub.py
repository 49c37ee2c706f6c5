"""A Hugging Face hub on this machine."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from functools import partial
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
"""The only one that each repository has."""
Files = Mapping[str, bytes]
"""Contents by path."""


class MockHub:
    """As much of the hub's API as a download takes: `with MockHub({"a/b": {"config.json": b"{}"}}) as hub:`.

    Attributes:
        repositories: the files of each; may change while it runs.
        fetched: what was downloaded, as "owner/name/path".
    """

    def __init__(self, repositories: Mapping[str, Files]) -> None:
        self.repositories = repositories
        self.fetched: set[str] = set()

    def __enter__(self) -> MockHub:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Pages, self))
        # It looks that often for whether it is to stop.
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        """Its endpoint."""
        return f"http://127.0.0.1:{self._server.server_port}"


class _Pages(BaseHTTPRequestHandler):
    def __init__(self, hub: MockHub, *args: Any) -> None:
        self.hub = hub
        super().__init__(*args)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = urlsplit(self.path).path.removeprefix("/api/models")
        repository = next((name for name in self.hub.repositories if path.startswith(f"/{name}/")), None)
        if repository is None:
            return self._answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        files, rest = self.hub.repositories[repository], path.removeprefix(f"/{repository}/")
        if rest.startswith("revision/"):
            return self._answer(200, json.dumps({"id": repository, "sha": COMMIT, "siblings": []}).encode())
        if rest.startswith("tree/"):
            entries = ({"path": name, "size": len(data), "oid": _tag(data)} for name, data in files.items())
            return self._answer(200, json.dumps([{"type": "file", **entry} for entry in entries]).encode())
        name = rest.removeprefix(f"resolve/{COMMIT}/")
        if name not in files:
            return self._answer(404, b"{}", {"X-Error-Code": "EntryNotFound"})
        if self.command == "GET":
            self.hub.fetched.add(f"{repository}/{name}")
        return self._answer(200, files[name], {"X-Repo-Commit": COMMIT, "ETag": f'"{_tag(files[name])}"'})

    def _answer(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


def _tag(data: bytes) -> str:
    return sha1(data).hexdigest()


def weights(numbers: int = 4) -> bytes:
    """A safetensors file with one tensor of that many bytes."""
    header = json.dumps({"weight": {"dtype": "U8", "shape": [numbers], "data_offsets": [0, numbers]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(numbers)
