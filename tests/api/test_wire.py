"""JSON put together from bytes is the JSON that it stands for."""

from __future__ import annotations

import base64
import json
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from vision_model_repo.api.wire import (
    extend,
    write,
    write_array,
    write_base64,
    write_bits,
    write_list,
    write_npz,
    write_object,
)


@given(arrays.arrays(bool, arrays.array_shapes(min_dims=2, max_dims=2, max_side=40)))
def test_bits_are_rows_of_zero_and_one(mask: np.ndarray) -> None:
    assert json.loads(write_bits(mask)) == mask.astype(int).tolist()


@given(
    arrays.arrays(
        np.float32, arrays.array_shapes(max_dims=3, max_side=5), elements=st.floats(width=32, allow_infinity=False)
    )
)
def test_arrays_keep_every_digit(array: np.ndarray) -> None:
    read = np.array(json.loads(write_array(array)), dtype=float).astype(np.float32)
    np.testing.assert_array_equal(read, array)


def test_numbers_that_json_does_not_know_become_null() -> None:
    assert json.loads(write([float("nan"), float("inf"), 1.5])) == [None, None, 1.5]


@pytest.mark.parametrize("data", [b"", b"\x00\xff", np.arange(3, dtype="<f4")])
def test_base64_holds_the_bytes(data: bytes | np.ndarray) -> None:
    assert base64.b64decode(json.loads(write_base64(data))) == bytes(data)


def test_objects_and_lists_are_joined_from_finished_parts() -> None:
    assert json.loads(write_object(a=b"1", b=write_list([b"2", b'"x"']))) == {"a": 1, "b": [2, "x"]}


@pytest.mark.parametrize("document", [{}, {"a": 1}])
def test_an_object_is_extended(document: dict[str, int]) -> None:
    assert json.loads(extend(write(document), b=b"[2]", c=b"3")) == {**document, "b": [2], "c": 3}


def test_an_archive_holds_arrays_as_they_are() -> None:
    arrays = {
        "masks": np.eye(200, dtype=bool),
        "numbers": np.arange(6, dtype=">f4").reshape(2, 3),
        "words": np.array(["a", "bc"]),
        "none": np.zeros((0, 4, 5), bool),
        "scalar": np.array(0.5, np.float32),
    }
    data = write_npz(arrays)
    with np.load(BytesIO(data), allow_pickle=False) as file:
        assert set(file) == set(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(file[name], array, strict=True)
    assert len(data) < arrays["masks"].nbytes / 10, "masks are compressed"


def test_an_archive_never_needs_pickle() -> None:
    with pytest.raises(ValueError, match="Object arrays"):
        write_npz({"objects": np.array([{}, []], object)})
