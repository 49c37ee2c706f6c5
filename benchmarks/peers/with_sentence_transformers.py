"""sentence-transformers' `encode`, called for each request behind plain FastAPI.

python -m benchmarks.peers.with_sentence_transformers PORT
"""

from __future__ import annotations

import sys
from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import SentenceTransformer  # pyright: ignore[reportMissingImports]

from vision_model_repo.models.names import PACKAGES

app = FastAPI()
model = SentenceTransformer(str(PACKAGES["minilm"].path()), device="cpu")


class Body(BaseModel):
    text: str


@app.post("/embed")
def embed(body: Body) -> dict[str, Any]:
    return {"textEmbeddings": model.encode([body.text], normalize_embeddings=True).tolist()}


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), access_log=False)
