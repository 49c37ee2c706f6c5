"""mosec with one worker for JSON and one for raw bodies, no batching.

python -m benchmarks.peers.with_mosec PORT
"""

from __future__ import annotations

import sys
from typing import Any

import mosec  # pyright: ignore[reportMissingImports]

from benchmarks.peers.work import detect, detect_base64


class JsonDetector(mosec.Worker):
    def forward(self, data: dict[str, Any]) -> dict[str, Any]:
        return detect_base64(data["image"])


class RawDetector(mosec.Worker):
    def deserialize(self, data: bytes) -> bytes:
        return data

    def forward(self, data: bytes) -> dict[str, Any]:
        return detect(data)


if __name__ == "__main__":
    # It reads its options from the command line.
    sys.argv[1:] = ["--address", "127.0.0.1", "--port", sys.argv[1], "--timeout", "30000", "--log-level", "warning"]
    server = mosec.Server()
    server.append_worker(JsonDetector, route="/json")
    server.append_worker(RawDetector, route="/raw")
    server.run()
