"""Ray Serve with a FastAPI ingress in front of a deployment for the model, as vision servers use it.

python -m benchmarks.peers.with_ray_serve PORT
"""

# Without postponed annotations: replicas get the endpoints by value, and FastAPI could not look their names up there.
import os
import signal
import sys
from typing import Any, cast

import ray  # pyright: ignore[reportMissingImports]
from fastapi import FastAPI, UploadFile
from pydantic import BaseModel
from ray import serve  # pyright: ignore[reportMissingImports]

from benchmarks.peers.work import detect, detect_base64

app = FastAPI()
CORES = 4
"""Ray counts them by promise: it shall start all actors, however few cores there are."""


class Body(BaseModel):
    image: str


@serve.deployment(max_ongoing_requests=100)
class Detector:
    def from_base64(self, text: str) -> dict[str, Any]:
        return detect_base64(text)

    def from_bytes(self, picture: bytes) -> dict[str, Any]:
        return detect(picture)


@serve.deployment(max_ongoing_requests=100)
@serve.ingress(app)
class Ingress:
    def __init__(self, detector: Any) -> None:
        self.detector = detector

    @app.post("/json")
    async def from_json(self, body: Body) -> dict[str, Any]:
        return await self.detector.from_base64.remote(body.image)

    @app.post("/form")
    async def from_form(self, images: UploadFile) -> dict[str, Any]:
        return await self.detector.from_bytes.remote(await images.read())


if __name__ == "__main__":
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(num_cpus=CORES, include_dashboard=False, object_store_memory=200 * 2**20, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    ingress, detector = cast(Any, Ingress), cast(Any, Detector)
    serve.run(ingress.bind(detector.bind()))
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    ray.shutdown()
