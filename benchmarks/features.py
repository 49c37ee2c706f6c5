"""The tokens of eight images from a DINOv3 of the size of ViT-B/16, in every form that they are answered in.

The server has seen the images, so what is measured is writing, sending and reading, until the client has an array.

python -m benchmarks.features
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import httpx
import numpy as np
import pybase64
from numpy.typing import NDArray

from benchmarks.checkpoints import write_dinov3
from benchmarks.pictures import fresh_base64
from benchmarks.report import print_table
from benchmarks.server import our_server

NPZ = {"Accept": "application/x-npz"}


class Form(NamedTuple):
    """A way to ask for features, and to read the answer as an array (N, T, D)."""

    name: str
    options: dict[str, Any]
    headers: dict[str, str]
    read: Callable[[httpx.Response], NDArray[np.floating]]


def from_lists(response: httpx.Response) -> NDArray[np.floating]:
    return np.array(response.json()["features"]["last_hidden_state"], np.float32)


def from_base64(response: httpx.Response) -> NDArray[np.floating]:
    answer = response.json()
    data = pybase64.b64decode(answer["features"]["last_hidden_state"], validate=True)
    dtype = "<f4" if answer["dtype"] == "float32" else "<f2"
    return np.frombuffer(data, dtype).reshape(answer["last_hidden_state_shape"])


def from_npz(response: httpx.Response) -> NDArray[np.floating]:
    return np.load(io.BytesIO(response.content))["last_hidden_state"]


FORMS = (
    Form("nested lists", {"encoding": "list"}, {}, from_lists),
    Form("base64 of float32", {"encoding": "base64"}, {}, from_base64),
    Form("base64 of float16", {"encoding": "base64", "dtype": "float16"}, {}, from_base64),
    Form("npz of float32", {}, NPZ, from_npz),
    Form("npz of float16", {"dtype": "float16"}, NPZ, from_npz),
)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--layers", type=int, default=12, help="of the network; they change no byte of the answer")
    options = parser.parse_args()
    images = list(islice(fresh_base64(224, 224), options.images))
    answered: dict[str, list[float]] = {form.name: [] for form in FORMS}
    received: dict[str, list[float]] = {form.name: [] for form in FORMS}
    size: dict[str, int] = {}
    shape: tuple[int, ...] = ()
    with TemporaryDirectory() as folder:
        body = {
            "images": images,
            "include": ["last_hidden_state"],
            "model_id": write_dinov3(Path(folder), layers=options.layers),
        }
        with our_server() as server, httpx.Client(base_url=server.url, timeout=300) as client:
            client.post("/inference/dinov3", json=body).raise_for_status()
            for _ in range(options.repeats):
                for form in FORMS:
                    started = time.perf_counter()
                    response = client.post("/inference/dinov3", json={**body, **form.options}, headers=form.headers)
                    answered[form.name].append(time.perf_counter() - started)
                    shape = form.read(response.raise_for_status()).shape
                    received[form.name].append(time.perf_counter() - started)
                    size[form.name] = len(response.content)
    slowest = median(received[FORMS[0].name])
    print_table(
        f"Features {' x '.join(map(str, shape))} of {options.images} images that the server knows, "
        f"median of {options.repeats}",
        ("form", "bytes", "ms until answered", "ms until an array", "times as fast"),
        (
            (
                name,
                f"{size[name]:,}",
                f"{1000 * median(answered[name]):.1f}",
                f"{1000 * median(times):.1f}",
                f"{slowest / median(times):.1f}",
            )
            for name, times in received.items()
        ),
    )


if __name__ == "__main__":
    main()
