"""FastAPI as one begins with it: plain functions as endpoints, which run in its threads.

python -m benchmarks.peers.plain_fastapi PORT
"""

from __future__ import annotations

import sys
from typing import Any

import uvicorn
from fastapi import FastAPI, UploadFile
from pydantic import BaseModel

from benchmarks.peers.work import detect, detect_base64

app = FastAPI()


class Body(BaseModel):
    image: str


@app.post("/json")
def from_json(body: Body) -> dict[str, Any]:
    return detect_base64(body.image)


@app.post("/form")
def from_form(images: UploadFile) -> dict[str, Any]:
    return detect(images.file.read())


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), access_log=False)
