"""The digits: types, ranges, and a split that is complete, stratified and always the same."""

import doctest
import sys

import numpy as np
import pytest

from fastnn.data import digits
from fastnn.data.digits import load_digits


@pytest.fixture(scope="module")
def sklearn_digits():
    datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn is not installed")
    return datasets.load_digits()


def test_types_and_ranges(sklearn_digits):
    for x, y in load_digits():
        assert x.dtype == np.float32
        assert x.shape == (len(y), 64)
        assert x.flags.c_contiguous
        assert y.dtype == np.int64
        assert (x.min(), x.max()) == (0, 1)
        assert set(y) == set(range(10))


def test_each_image_is_in_one_part_with_its_label(sklearn_digits):
    (x_train, y_train), (x_test, y_test) = load_digits()
    rows = np.column_stack(
        [np.concatenate([x_train, x_test]) * 16, np.concatenate([y_train, y_test])]
    )
    expected = np.column_stack([sklearn_digits.data, sklearn_digits.target])
    np.testing.assert_array_equal(
        rows[np.lexsort(rows.T)], expected[np.lexsort(expected.T)].astype(np.float32)
    )


@pytest.mark.parametrize("fraction", [0.2, 0.5])
def test_split_is_stratified(fraction, sklearn_digits):
    _, (_, y_test) = load_digits(fraction, seed=3)
    counts = np.bincount(sklearn_digits.target)
    np.testing.assert_allclose(np.bincount(y_test), fraction * counts, atol=0.5)


def test_split_depends_on_the_seed_alone(sklearn_digits):
    _, (first, labels) = load_digits()
    _, (again, _) = load_digits()
    _, (other, _) = load_digits(seed=1)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    # the split itself, so that a change of it does not go unnoticed
    assert labels[:12].tolist() == [2, 3, 1, 3, 5, 0, 1, 5, 0, 8, 0, 3]
    assert int((first * 16).sum()) == 112_174


def test_bad_fraction():
    with pytest.raises(ValueError, match="test_fraction must lie between 0 and 1, got 1"):
        load_digits(1)


def test_without_scikit_learn_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match=r"pip install scikit-learn$"):
        load_digits()


def test_examples(sklearn_digits):
    result = doctest.testmod(digits)
    assert result.attempted > 0
    assert result.failed == 0
