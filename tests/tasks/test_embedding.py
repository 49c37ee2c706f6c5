"""A request of many is split and its answers are joined; vectors are shortened to unit length."""

from __future__ import annotations

import numpy as np
import pytest

from vision_model_repo.errors import InvalidInput
from vision_model_repo.tasks.classification import ClassificationResult, softmax
from vision_model_repo.tasks.embedding import EmbeddingRequest, EmbeddingResult, shorten, unit_length

IMAGE = np.zeros((4, 6, 3), np.uint8)


def test_many_texts_are_split_in_order() -> None:
    request = EmbeddingRequest(texts=tuple("abcdefg"), normalize=False, prompt="query")
    parts = request.split(texts_at_once=3)
    assert [part.texts for part in parts] == [tuple("abc"), tuple("def"), ("g",)]
    assert {(part.normalize, part.prompt) for part in parts} == {(False, "query")}


def test_what_is_small_enough_stays_as_it_is() -> None:
    for request in (EmbeddingRequest(texts=("a", "b"), prompt="query"), EmbeddingRequest(images=(IMAGE,))):
        [part] = request.split(texts_at_once=2)
        assert part is request
    assert EmbeddingRequest().split() == []


def test_every_image_is_a_request_of_its_own() -> None:
    parts = EmbeddingRequest(images=(IMAGE, IMAGE)).split()
    assert [part.image.shape for part in parts] == [(4, 6, 3)] * 2


def test_answers_join_to_one_and_say_which_texts_were_cut() -> None:
    first = EmbeddingResult(np.zeros((2, 3), np.float32), truncated=(1,), tokens=5)
    second = EmbeddingResult(np.ones((2, 3), np.float32), truncated=(0,), tokens=2)
    joined = EmbeddingResult.join([first, second])
    assert joined.vectors[:, 0].tolist() == [0, 0, 1, 1]
    assert (joined.truncated, joined.tokens) == ((1, 2), 7)
    assert EmbeddingResult.join([first]) is first


@pytest.mark.parametrize(
    "request_", [EmbeddingRequest(texts=("a",)), EmbeddingRequest(), EmbeddingRequest(images=(IMAGE, IMAGE))]
)
def test_what_is_not_one_image_has_no_image(request_: EmbeddingRequest) -> None:
    with pytest.raises(InvalidInput):
        _ = request_.image


def test_shortened_vectors_have_unit_length_again() -> None:
    vectors = unit_length(np.array([[3.0, 4.0, 12.0]], np.float32))
    assert shorten(vectors, 2, normalize=True)[0] == pytest.approx([0.6, 0.8])
    assert shorten(vectors, 2, normalize=False)[0] == pytest.approx([3 / 13, 4 / 13])
    assert shorten(vectors, None, normalize=True) is vectors


@pytest.mark.parametrize("dimensions", [0, -1, 4])
def test_dimensions_that_a_vector_has_not_are_refused(dimensions: int) -> None:
    with pytest.raises(InvalidInput, match="3 dimensions"):
        shorten(np.ones((1, 3), np.float32), dimensions, normalize=True)


def test_a_vector_of_zeros_stays() -> None:
    assert unit_length(np.zeros((1, 3), np.float32)).tolist() == [[0, 0, 0]]


def test_probabilities_of_large_logits_are_numbers() -> None:
    assert softmax(np.array([1000.0, 1000.0, -1000.0], np.float32)).tolist() == [0.5, 0.5, 0]


def test_the_most_probable_come_first() -> None:
    result = ClassificationResult(np.array([0.1, 0.7, 0.2], np.float32), ("a", "b", "c"))
    assert [label for label, _ in result.top(2)] == ["b", "c"]
