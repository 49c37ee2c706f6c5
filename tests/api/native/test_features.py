"""POST /inference/{a backbone}: feature arrays on the wire."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import numpy as np
import pytest

from tests.api.conftest import IMAGE, Serve, b64, png
from vision_model_repo.api.native.features import FeatureAnswer

URL = "/inference/backbone"
# Of an image eight rows high: the whole image's token and two more, three numbers each.
TOKENS = np.arange(9, dtype=np.float32).reshape(3, 3) + 0.5


async def features(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    response = await client.post(URL, json={"images": [IMAGE], **body})
    assert response.status_code == 200, response.text
    FeatureAnswer.model_validate_json(response.content, strict=True, extra="forbid")
    return response.json()


async def test_nested_lists_become_arrays(client: httpx.AsyncClient) -> None:
    answer = await features(client, images=[IMAGE, IMAGE])
    np.testing.assert_array_equal(np.array(answer["features"]["last_hidden_state"], np.float32), [TOKENS, TOKENS])
    np.testing.assert_array_equal(np.array(answer["features"]["pooler_output"], np.float32), [TOKENS[0]] * 2)
    assert (answer["last_hidden_state_shape"], answer["pooler_output_shape"]) == ([2, 3, 3], [2, 3])
    assert answer["patch_grid"] == [2, 1]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
async def test_base64_is_read_by_its_shape(client: httpx.AsyncClient, dtype: str) -> None:
    answer = await features(client, images=[IMAGE, IMAGE], encoding="base64", dtype=dtype)
    raw = base64.b64decode(answer["features"]["last_hidden_state"])
    array = np.frombuffer(raw, np.dtype(dtype).newbyteorder("<")).reshape(answer["last_hidden_state_shape"])
    np.testing.assert_array_equal(array, [TOKENS, TOKENS])
    assert (answer["encoding"], answer["dtype"]) == ("base64", dtype)


async def test_only_what_is_included_is_given(client: httpx.AsyncClient) -> None:
    answer = await features(client, include=["pooler_output"])
    assert list(answer["features"]) == ["pooler_output"]


async def test_normalized_vectors_have_unit_length(client: httpx.AsyncClient) -> None:
    answer = await features(client, normalize=True)
    np.testing.assert_allclose(np.linalg.norm(answer["features"]["last_hidden_state"], axis=-1), 1, rtol=1e-6)


async def test_images_with_different_numbers_of_tokens_make_no_array(client: httpx.AsyncClient) -> None:
    images = [IMAGE, b64(png(16, 40))]
    response = await client.post(URL, json={"images": images})
    assert response.status_code == 400
    assert "different numbers of tokens (3, 11)" in response.json()["detail"]
    answer = await features(client, images=images, include=["pooler_output"])
    assert answer["pooler_output_shape"] == [2, 3]


async def test_long_lists_are_refused_in_favour_of_base64(serve: Serve) -> None:
    async with serve(max_dense_values=10) as client:
        response = await client.post(URL, json={"images": [IMAGE]})
        assert (response.status_code, "encoding base64" in response.json()["detail"]) == (413, True)
        await features(client, encoding="base64")
