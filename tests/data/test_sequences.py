"""Sequences of different lengths, padded and packed."""

import numpy as np
import pytest

from fastnn.data import pack, pad, unpack, unpad
from fastnn.errors import DataError


def test_pad():
    array, lengths = pad([[1, 2], [], [3, 4, 5]], value=-1)
    assert array.tolist() == [[1, 2, -1], [-1, -1, -1], [3, 4, 5]]
    assert array.dtype == np.int64
    assert lengths.tolist() == [2, 0, 3]
    assert lengths.dtype == np.int64


def test_pad_features():
    rng = np.random.default_rng(0)
    sequences = [rng.random((n, 4), np.float32) for n in (3, 1, 5)]
    array, lengths = pad(sequences, length=6)
    assert array.shape == (3, 6, 4)
    assert array.dtype == np.float32
    for row, sequence, n in zip(array, sequences, lengths, strict=True):
        np.testing.assert_array_equal(row[:n], sequence)
        assert (row[n:] == 0).all()


def test_pad_errors():
    with pytest.raises(DataError, match="expected at most 2 steps, got 3"):
        pad([[1, 2, 3]], length=2)
    with pytest.raises(DataError, match="at least one sequence"):
        pad([])
    with pytest.raises(DataError, match="differ in their first number only"):
        pad([np.zeros((2, 3)), np.zeros((2, 4))])
    with pytest.raises(DataError, match="differ in their first number only"):
        pad([1, 2])


def sequences(inner=(4,)):
    rng = np.random.default_rng(0)
    return [rng.random((n, *inner), np.float32) for n in (3, 1, 0, 5)]


@pytest.mark.parametrize("inner", [(), (1,), (4,), (2, 3)])
def test_there_and_back(inner):
    given = sequences(inner)
    for make, undo in ((pad, unpad), (pack, unpack)):
        array, lengths = make(given)
        assert lengths.tolist() == [3, 1, 0, 5]
        back = undo(array, lengths)
        assert len(back) == len(given)
        for got, want in zip(back, given, strict=True):
            np.testing.assert_array_equal(got, want)
            assert got.dtype == np.float32
            assert got.size == 0 or np.shares_memory(got, array)


def test_packed_is_without_padding():
    packed, lengths = pack(sequences())
    assert packed.shape == (9, 4)
    assert lengths.dtype == np.int64
    assert unpack(packed[:0], lengths[:0]) == []
    assert unpad(np.zeros((0, 3)), np.zeros(0, int)) == []


def test_errors():
    with pytest.raises(DataError, match="at least one sequence"):
        pack([])
    with pytest.raises(DataError, match="pack: expected shapes that differ in their first number"):
        pack([np.zeros((2, 3)), np.zeros((2, 4))])
    with pytest.raises(DataError, match="add up to the array's first number, got 4"):
        unpack(np.zeros(5), [3, 1])
    with pytest.raises(DataError, match="lengths of at most 3 steps, got 4"):
        unpad(np.zeros((2, 3)), [4, 1])
    with pytest.raises(DataError, match="expected 2 lengths, one for each row, got 1"):
        unpad(np.zeros((2, 3)), [1])
    with pytest.raises(DataError, match="whole numbers >= 0"):
        unpad(np.zeros((2, 3)), [-1, 2])
    with pytest.raises(DataError, match="whole numbers >= 0"):
        unpack(np.zeros(3), [1.5, 1.5])
    with pytest.raises(DataError, match="sequences, steps"):
        unpad(np.zeros(3), [1])
