"""Examples of the protocol's documentation, and of this project's page about it, with real models behind them.

Of the documentation's examples three things are changed: the address, the names of models, and where the image is.
The models are the embedded ones, whose weights need no network.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import ingrain
import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer, CLIPModel, CLIPProcessor

from tests.code_blocks import Block, code_blocks, run_python, run_shell, write_pictures
from tests.support.pictures import b64
from vision_model_repo.demo.captions import caption, layout
from vision_model_repo.demo.live import ServerProcess, live_server
from vision_model_repo.demo.scenes import View, render, sample_scene
from vision_model_repo.formats.images import encode_png
from vision_model_repo.models.hub import Hub
from vision_model_repo.models.names import PACKAGES

ROOT = Path(__file__).parents[2]
FOUND = sorted((ROOT.parent / "shared" / "seeds").glob("004*.txt"))
BLOCKS = code_blocks(FOUND[0].read_text()) if FOUND else []
MODELS = {"demo/minilm": "sentence_transformers", "demo/clip": "open_clip", "demo/efficientnet-lite0": "timm"}
REPAIRS = {'"intfloat/e5-small-v2" "text"': '"intfloat/e5-small-v2", "text"', '.jpg",}': '.jpg"}'}
"""Two bodies are no JSON as printed: one lacks a comma, one has a comma too many."""
CLIP_SIDE = 112
"""Of the pictures that the embedded CLIP sees: one of that size reaches it as it is."""

needs_packages = pytest.mark.skipif(
    any(package.path() is None for package in PACKAGES.values()), reason="the packages with weights are not installed"
)
needs_seed = pytest.mark.skipif(not FOUND, reason="the documentation is not beside this checkout")


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A web server with `image.jpg`."""
    folder = tmp_path_factory.mktemp("site")
    write_pictures(folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """The protocol at the root, as its clients expect it, with every model that is at hand."""
    folder = tmp_path_factory.mktemp("server")
    settings = {"ROOT_PROTOCOL": "ingrain", "ALLOW_PRIVATE_URLS": "true", "HF_HUB_OFFLINE": "1", "DEVICE": "cpu"}
    with live_server(folder, {**settings, "TORCH_THREADS": "1", "HF_ROOT_FOLDER": str(folder)}) as server:
        with httpx.Client(base_url=server.url, timeout=120) as http:
            for name, library in MODELS.items():
                if name.removeprefix("demo/") not in PACKAGES or PACKAGES[name.removeprefix("demo/")].path():
                    assert http.post("/load_model", json={"name": name, "library": library}).status_code == 200
        yield server


@pytest.fixture
def client(server: ServerProcess) -> ingrain.Client:
    return ingrain.Client(server.url, server.url)


@pytest.fixture(scope="module")
def scenes() -> list[View]:
    return [render(sample_scene(index), CLIP_SIDE) for index in range(8)]


@pytest.fixture(scope="module")
def clip() -> tuple[Any, Any]:
    """transformers' own network and processor of the embedded CLIP."""
    folder = Hub(offline=True).resolve("demo/clip").folder
    network: Any = CLIPModel.from_pretrained(folder, dtype=torch.float32)
    return network.eval(), CLIPProcessor.from_pretrained(folder)


def at(code: str, url: str, site: str) -> str:
    """An example of the documentation for this server, its models, and an image that is there."""
    pair = "demo/efficientnet-lite0" if "classify_image" in code else "demo/clip"
    for old, new in {
        "http://127.0.0.1:8686": url,
        "ingrain.Client()": f'ingrain.Client("{url}", "{url}")',
        "intfloat/e5-small-v2": "demo/minilm",
        "hf-hub:apple/MobileCLIP-S1-OpenCLIP": pair,
        "http://example.com": site,
        # As many as that model has; the embedded one has no more than 128.
        '"nDims": 512': '"nDims": 128',
    }.items():
        code = code.replace(old, new)
    return code


def repaired(code: str) -> str:
    for printed, valid in REPAIRS.items():
        code = code.replace(printed, valid)
    return code


def examples(language: str) -> list[Any]:
    """The documentation's examples; the one of /embed stands under the heading of /infer, which is tried as well."""
    blocks = [block for block in BLOCKS if block.language == language]
    blocks += [Block(language, block.code.replace('/embed"', '/infer"')) for block in blocks if '/embed"' in block.code]
    return blocks


def keys_of(code: str) -> set[str]:
    """What the documentation shows that the answer has."""
    if "embed_" in code:
        return {"embeddings", "processingTimeMs"}
    if "/embed" in code or "/infer" in code:
        return {"textEmbeddings", "imageEmbeddings", "processingTimeMs"}
    if "classify_image" in code:
        return {"probabilities", "processingTimeMs"}
    return {"modelStats"} if "metrics" in code else {"message"}


@needs_seed
@needs_packages
@pytest.mark.parametrize("block", examples("bash"), ids=lambda block: block.code.split('"')[1].rpartition("/")[2])
def test_the_documentations_examples_of_curl(block: Block, server: ServerProcess, site: str, tmp_path: Path) -> None:
    code = at(repaired(block.code), server.url, site).replace("curl", "curl --silent --show-error --fail")
    answer = json.loads(run_shell(Block("bash", code), tmp_path, server.url))
    assert set(answer) == keys_of(block.code)
    assert all(answer.values())


@needs_seed
@pytest.mark.parametrize("printed", REPAIRS)
def test_a_body_that_is_no_json_is_told_so(printed: str, server: ServerProcess, site: str, tmp_path: Path) -> None:
    [block] = [block for block in BLOCKS if printed in block.code]
    answer = json.loads(run_shell(Block("bash", at(block.code, server.url, site)), tmp_path, server.url))
    assert answer["detail"][0]["type"] == "json_invalid"


@needs_seed
@needs_packages
def test_the_documentations_examples_in_python(server: ServerProcess, site: str, tmp_path: Path) -> None:
    blocks = examples("python")
    assert len(blocks) == 6
    run_python([Block("python", at(block.code, server.url, site)) for block in blocks], tmp_path, server.url)


def test_the_embedded_clip_embeds_as_transformers_does(
    client: ingrain.Client, scenes: list[View], clip: tuple[Any, Any]
) -> None:
    network, processor = clip
    texts = ["", *(caption(layout(view), index) for index, view in enumerate(scenes)), "a red cube " * 40]
    images = [b64(encode_png(view.image)) for view in scenes]
    with torch.inference_mode():
        tokens = processor.tokenizer(texts, return_tensors="pt", padding=True, truncation=True, max_length=48)
        said = network.get_text_features(**tokens).pooler_output.numpy()
        pixels = processor(images=[view.image for view in scenes], return_tensors="pt")["pixel_values"]
        seen = network.get_image_features(pixel_values=pixels).pooler_output.numpy()
    both = client.embed("demo/clip", text=texts, image=images, normalize=False)
    assert np.abs(np.array(both.text_embeddings) - said).max() < 1e-5
    assert np.abs(np.array(both.image_embeddings) - seen).max() < 1e-5
    said, seen = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in (said, seen))
    assert np.abs(np.array(client.embed_text("demo/clip", texts).embeddings) - said).max() < 1e-5
    assert np.abs(np.array(client.embed_image("demo/clip", images).embeddings) - seen).max() < 1e-5


def test_captions_find_their_scenes(client: ingrain.Client, scenes: list[View]) -> None:
    captions = [caption(layout(view), index) for index, view in enumerate(scenes)]
    both = client.embed("demo/clip", text=captions, image=[b64(encode_png(view.image)) for view in scenes])
    likeness = np.array(both.text_embeddings) @ np.array(both.image_embeddings).T
    assert (likeness.argmax(axis=1) == np.arange(len(scenes))).mean() >= 0.75


def test_an_image_is_the_same_by_url_and_as_base64(client: ingrain.Client, site: str) -> None:
    url = f"{site}/image.jpg"
    fetched = client.embed_image("demo/clip", url, image_download_headers={"X-Key": "none"}).embeddings
    assert fetched == client.embed_image("demo/clip", b64(httpx.get(url).content)).embeddings


@needs_packages
def test_vectors_of_texts_are_those_of_transformers(client: ingrain.Client) -> None:
    texts = ["", "hi", "Hello, world!", "word " * 400, "\N{GRINNING FACE} naïve \N{SNOWMAN}"]
    folder = Hub(offline=True).resolve("demo/minilm").folder
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    network: Any = AutoModel.from_pretrained(folder).eval()
    expected = []
    for text in texts:
        tokens = tokenizer(text, truncation=True, max_length=256, padding=False, return_tensors="pt")
        with torch.inference_mode():
            vector = network(**tokens).last_hidden_state[0].mean(0).numpy()
        expected.append(vector / np.linalg.norm(vector))
    batch = client.embed_text("demo/minilm", [*texts, *texts]).embeddings
    alone = [client.embed_text("demo/minilm", text).embeddings[0] for text in texts]
    assert np.abs(np.array(batch) - np.array(expected * 2)).max() < 1e-5
    assert np.abs(np.array(alone) - np.array(expected)).max() < 1e-5


@needs_packages
def test_the_examples_of_the_page_run_as_written(server: ServerProcess, tmp_path: Path) -> None:
    write_pictures(tmp_path)
    blocks = code_blocks((ROOT / "docs" / "ingrain.md").read_text())
    for block in blocks:
        if block.language == "python":
            run_python([block], tmp_path, server.url)
        elif block.language == "bash" and "vision-model-repo serve" not in block.code:
            run_shell(block, tmp_path, server.url)
