"""LitServe with its defaults: one worker process, no batching.

python -m benchmarks.peers.with_litserve PORT
"""

from __future__ import annotations

import sys
from typing import Any

import litserve  # pyright: ignore[reportMissingImports]

from benchmarks.peers.work import detect, detect_base64


class Detector(litserve.LitAPI):
    def setup(self, device: str) -> None:
        """There is no model."""

    # Where it finds annotations it makes FastAPI parameters of them, so two methods have none.
    def decode_request(self, request, **_: Any):
        return detect_base64(request["image"])

    def predict(self, x: dict[str, Any], **_: Any) -> dict[str, Any]:
        return x

    def encode_response(self, output, **_: Any):
        return output


class FormDetector(Detector):
    def decode_request(self, request, **_: Any):
        return detect(request["images"].file.read())


if __name__ == "__main__":
    server = litserve.LitServer([Detector(api_path="/json"), FormDetector(api_path="/form")], accelerator="cpu")
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
