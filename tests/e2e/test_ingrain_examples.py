"""Examples of the protocol's documentation, and of this project's page about it, with real models behind them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from tests.api.conftest import b64
from tests.code_blocks import Block, code_blocks, run_python, run_shell
from tests.conftest import Server
from vision_model_repo.demo.scenes import render, sample_scene
from vision_model_repo.formats.images import encode_jpeg
from vision_model_repo.models.names import PACKAGES

PAGE = Path(__file__).parents[2] / "docs" / "ingrain.md"
MINILM = str(PACKAGES["minilm"].path())
CURL = [
    ("GET", "/health", None),
    ("POST", "/embed_text", '{"name": "demo/minilm", "text": "sample text", "normalize": true, "nDims": null}'),
    ("POST", "/embed", '{"name": "demo/minilm", "text": "sample text", "normalize": true, "nDims": 256}'),
    ("POST", "/infer", '{"name": "demo/minilm", "text": "sample text", "normalize": true, "nDims": 256}'),
    ("GET", "/metrics", None),
]
PYTHON = """
import ingrain

client = ingrain.Client("http://localhost:8000/ingrain", "http://localhost:8000/ingrain")
client.health()
client.load_model("demo/minilm", "sentence_transformers")
client.load_model("demo/efficientnet-lite0", "timm")

response = client.embed_text(
    name="demo/minilm",
    text="sample text",
)
assert len(response.embeddings[0]) == 384
response = client.embed(
    name="demo/minilm",
    text="sample text"
)
assert response.image_embeddings is None
image = "IMAGE"
response = client.embed_image(
    name="demo/efficientnet-lite0",
    image=image
)
assert len(response.embeddings[0]) == 1280
response = client.classify_image(
    name="demo/efficientnet-lite0",
    image=image
)
assert abs(sum(response.probabilities[0]) - 1) < 1e-4
assert len(client.model_classification_labels("demo/efficientnet-lite0").labels) == 1000

metrics = client.metrics()
assert {stats.name for stats in metrics.model_stats} >= {"demo/minilm", "demo/efficientnet-lite0"}
"""

needs_packages = pytest.mark.skipif(
    any(package.path() is None for package in PACKAGES.values()), reason="the packages with weights are not installed"
)


@needs_packages
def test_the_examples_in_python(server: Server, tmp_path: Path) -> None:
    image = b64(encode_jpeg(render(sample_scene(3), 160, 120).image))
    run_python([Block("python", PYTHON.replace("IMAGE", image))], tmp_path, server.url)


@needs_packages
@pytest.mark.parametrize(("method", "path", "body"), CURL, ids=[path for _, path, _ in CURL])
def test_the_examples_of_curl(server: Server, tmp_path: Path, method: str, path: str, body: str | None) -> None:
    load = json.dumps({"name": "demo/minilm", "library": "sentence_transformers"})
    run_shell(Block("bash", f"curl -sf {server.url}/load_model -d '{load}'"), tmp_path, server.url)
    data = f"-H 'Content-Type: application/json' -d '{body}'" if body else "-H 'accept: application/json'"
    answer = json.loads(
        run_shell(Block("bash", f"curl -sf -X {method} {server.url}{path} {data}"), tmp_path, server.url)
    )
    assert answer


@needs_packages
def test_vectors_are_those_of_transformers(server: Server, tmp_path: Path) -> None:
    texts = ["", "hi", "Hello, world!", "word " * 400, "\N{GRINNING FACE} naïve \N{SNOWMAN}"]
    tokenizer: Any = AutoTokenizer.from_pretrained(MINILM)
    network: Any = AutoModel.from_pretrained(MINILM).eval()
    expected = []
    for text in texts:
        tokens = tokenizer(text, truncation=True, max_length=256, padding=False, return_tensors="pt")
        with torch.inference_mode():
            vector = network(**tokens).last_hidden_state[0].mean(0).numpy()
        expected.append(vector / np.linalg.norm(vector))
    with httpx.Client(base_url=f"{server.url}/ingrain", timeout=120) as http:
        http.post("/load_model", json={"name": "demo/minilm", "library": "sentence_transformers"})
        given = [*texts, *texts]
        batch = http.post("/embed_text", json={"name": "demo/minilm", "text": given}).json()["embeddings"]
        alone = [
            http.post("/embed_text", json={"name": "demo/minilm", "text": text}).json()["embeddings"][0]
            for text in texts
        ]
    assert np.abs(np.array(batch) - np.array(expected * 2)).max() < 1e-5
    assert np.abs(np.array(alone) - np.array(expected)).max() < 1e-5


@needs_packages
def test_the_examples_of_the_page_run_as_written(server: Server, tmp_path: Path) -> None:
    (tmp_path / "image.jpg").write_bytes(encode_jpeg(render(sample_scene(3), 160, 120).image))
    blocks = [block for block in code_blocks(PAGE.read_text()) if block.language in ("python", "bash")]
    for block in blocks:
        if "vision-model-repo serve" in block.code:
            continue
        (
            run_shell(block, tmp_path, server.url)
            if block.language == "bash"
            else run_python([block], tmp_path, server.url)
        )
