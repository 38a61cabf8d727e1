"""Vocabularies, and sequences as batches."""

import doctest
import json

import numpy as np
import pytest

from fastnn.data import text
from fastnn.data.text import Vocabulary, batchify, bucket_batches, windows
from fastnn.errors import DataError, OptionError

WORDS = "b a c a b a d <unk> <unk>".split()  # noqa: SIM905


def test_ids_are_places():
    vocabulary = Vocabulary("xyz")
    assert len(vocabulary) == 3
    assert list(vocabulary) == ["x", "y", "z"]
    assert vocabulary["y"] == 1
    assert "z" in vocabulary
    assert "w" not in vocabulary
    ids = vocabulary.encode("zyx")
    assert ids.dtype == np.int64
    assert ids.tolist() == [2, 1, 0]
    assert vocabulary.decode(ids) == ["z", "y", "x"]
    assert vocabulary.encode("").tolist() == vocabulary.decode([]) == []
    assert vocabulary.encode("").dtype == np.int64


def test_unknown_symbols():
    vocabulary = Vocabulary(["a", "?"], unknown="?")
    assert vocabulary.encode("abc").tolist() == [0, 1, 1]
    assert vocabulary["c"] == 1
    for read in (lambda v: v.encode("ab"), lambda v: v["b"]):
        with pytest.raises(DataError, match="'b' is not in the vocabulary of 1 symbols"):
            read(Vocabulary("a"))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "a <unk> b c d"),  # by count, then by alphabet
        ({"unknown": None}, "a <unk> b c d"),
        ({"unknown": "?"}, "? a <unk> b c d"),
        ({"padding": "_"}, "_ a <unk> b c d"),
        ({"padding": "_", "unknown": "?", "special": ["<s>"]}, "_ <s> ? a <unk> b c d"),
        ({"padding": "d"}, "d a <unk> b c"),
        ({"min_count": 2}, "a <unk> b"),
        ({"min_count": 3}, "a <unk>"),
        ({"max_size": 3}, "a <unk> b"),
        ({"max_size": 1}, "<unk>"),
        ({"max_size": 2, "unknown": "c"}, "c a"),
        ({"max_size": 3, "unknown": None, "padding": "_"}, "_ a <unk>"),
        ({"max_size": 99}, "a <unk> b c d"),
    ],
)
def test_build(options, expected):
    assert " ".join(Vocabulary.build(WORDS, **options)) == expected


def test_build_without_room():
    with pytest.raises(OptionError, match="max_size: expected room for"):
        Vocabulary.build(WORDS, max_size=1, padding="_", special=["<s>"])
    with pytest.raises(OptionError, match="max_size: expected room for"):
        Vocabulary.build(WORDS, max_size=1, padding="_")
    with pytest.raises(OptionError, match="max_size: expected 1 or more"):
        Vocabulary.build(WORDS, max_size=0)


def test_wrong_vocabularies():
    with pytest.raises(DataError, match="each symbol once, got 'a' again"):
        Vocabulary("aba")
    with pytest.raises(DataError, match="padding '_' is not among the symbols"):
        Vocabulary("ab", padding="_")


def test_decode_checks_its_ids():
    for ids in ([2], [-1]):
        with pytest.raises(DataError, match=r"expected ids in 0\.\.1"):
            Vocabulary("ab").decode(ids)
    for ids in ([0.5], [[0]]):
        with pytest.raises(DataError, match="expected a sequence of ids"):
            Vocabulary("ab").decode(ids)


def test_save_and_load(tmp_path):
    vocabulary = Vocabulary(["_", "?", "ä", "\n", '"'], unknown="?", padding="_")
    vocabulary.save(tmp_path / "v.json")
    again = Vocabulary.load(tmp_path / "v.json")
    assert again == vocabulary
    assert hash(again) == hash(vocabulary)
    assert (again.unknown, again.padding) == ("?", "_")
    assert again != Vocabulary(vocabulary, unknown="?")
    assert "5 symbols" in repr(again)


@pytest.mark.parametrize(
    "content",
    ["no json", "[]", "{}", json.dumps({"symbols": [1], "unknown": None, "padding": None})],
)
def test_load_something_else(tmp_path, content):
    (tmp_path / "v.json").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match="not a vocabulary"):
        Vocabulary.load(tmp_path / "v.json")


@pytest.mark.parametrize("symbols", [7, 24, 25, 26, 31, 100])
@pytest.mark.parametrize(("batch", "steps"), [(1, 6), (2, 3), (3, 2)])
def test_streams_go_on(symbols, batch, steps):
    ids = np.arange(symbols) + 10
    x, y = batchify(ids, batch, steps)
    chunks = (symbols - 1) // (batch * steps)
    assert x.shape == y.shape == (chunks, batch, steps)
    assert x.dtype == y.dtype == np.int64
    assert x.flags.c_contiguous
    assert y.flags.c_contiguous
    streams = x.swapaxes(0, 1).reshape(batch, -1)
    np.testing.assert_array_equal(streams.ravel(), ids[: chunks * batch * steps])
    np.testing.assert_array_equal(y, x + 1)


@pytest.mark.parametrize("symbols", [2, 3, 7, 8, 24, 25, 26, 31, 100])
@pytest.mark.parametrize(("batch", "steps"), [(1, 6), (2, 3), (3, 2), (7, 1)])
def test_nothing_is_lost_with_ignore(symbols, batch, steps):
    ids = np.arange(symbols) + 10
    x, y = batchify(ids, batch, steps, ignore=-100)
    assert x.shape == y.shape
    assert x.shape[1:] == (batch, steps)
    assert len(x) == -(-(symbols - 1) // (batch * steps))
    counted = y != -100
    assert sorted(y[counted].tolist()) == ids[1:].tolist()
    np.testing.assert_array_equal(x[counted] + 1, y[counted])
    assert (x[~counted] == 0).all()
    streams = y.swapaxes(0, 1).reshape(batch, -1)
    for stream in streams:  # without gaps
        real = stream[stream != -100]
        np.testing.assert_array_equal(np.diff(real), 1)
        assert (stream[: len(real)] != -100).all()


def test_too_short_texts():
    with pytest.raises(DataError, match="expected at least 7 symbols for batch=2, steps=3, got 6"):
        batchify(range(6), 2, 3)
    with pytest.raises(DataError, match="expected at least 7 symbols for batch=2, steps=3, got 0"):
        batchify([], batch=2, steps=3)
    with pytest.raises(DataError, match="expected at least 2 symbols"):
        batchify([1], 2, 3, ignore=-100)
    with pytest.raises(DataError, match="expected more than 3 symbols, got 3"):
        windows(range(3), 3)
    with pytest.raises(OptionError, match="steps: expected 1 or more, got 0"):
        windows(range(3), 0)
    with pytest.raises(OptionError, match="batch: expected 1 or more, got 0"):
        batchify(range(9), 0, 2)
    for wrong in ([[1, 2]], [0.5, 1.0]):
        with pytest.raises(DataError, match="expected a text as a sequence of ids"):
            windows(wrong, 1)


@pytest.mark.parametrize(
    ("symbols", "steps", "stride"), [(4, 3, 1), (9, 3, 1), (9, 3, 2), (9, 2, 5)]
)
def test_windows(symbols, steps, stride):
    ids = np.arange(symbols)
    x, y = windows(ids, steps, stride)
    starts = range(0, symbols - steps, stride)
    assert x.tolist() == [list(range(s, s + steps)) for s in starts]
    np.testing.assert_array_equal(y, x + 1)
    assert x.base is not None
    assert not x.flags.writeable


def test_windows_don_t_overlap_by_default():
    x, y = windows(range(10), 3)
    assert x.tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert y[-1].tolist() == [7, 8, 9]


@pytest.mark.parametrize("count", [1, 2, 31, 32, 33, 500])
@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_buckets_hold_everything_once(count, batch_size):
    lengths = np.random.default_rng(0).integers(1, 50, count)
    batches = bucket_batches(lengths, batch_size, seed=1)
    assert sorted(np.concatenate(batches).tolist()) == list(range(count))
    sizes = sorted(len(rows) for rows in batches)
    assert sizes[1:] == [batch_size] * (len(sizes) - 1)
    assert all(rows.dtype == np.int64 for rows in batches)


def test_buckets_depend_on_seed_and_epoch_alone():
    lengths = np.random.default_rng(0).integers(1, 50, 300)
    order = [rows.tolist() for rows in bucket_batches(lengths, 8, seed=1, epoch=2)]
    assert order == [rows.tolist() for rows in bucket_batches(lengths, 8, seed=1, epoch=2)]
    for other in ({"seed": 1, "epoch": 3}, {"seed": 2, "epoch": 2}):
        assert order != [rows.tolist() for rows in bucket_batches(lengths, 8, **other)]
    assert [len(lengths[rows]) for rows in order] != sorted(len(rows) for rows in order)


def test_buckets_save_padding():
    lengths = np.random.default_rng(0).integers(1, 100, 3000)

    def steps(batches):
        return sum(len(rows) * lengths[rows].max() for rows in batches) / lengths.sum()

    assert steps(bucket_batches(lengths, 16)) < 1.05
    assert steps(np.arange(3000).reshape(-1, 15)) > 1.5
    # long mini-batches do not all come last
    longest = [lengths[rows].max() for rows in bucket_batches(lengths, 16)]
    assert longest != sorted(longest)


def test_buckets_that_are_full():
    lengths = np.random.default_rng(0).integers(1, 50, 103)
    left_out = set()
    for epoch in range(30):
        batches = bucket_batches(lengths, 10, epoch=epoch, drop_last=True)
        assert [len(rows) for rows in batches] == [10] * 10
        rows = np.concatenate(batches)
        assert len(np.unique(rows)) == 100
        left_out |= set(range(103)) - set(rows.tolist())
    assert len(left_out) > 30


def test_bucket_errors():
    with pytest.raises(DataError, match=r"expected lengths \(N,\)"):
        bucket_batches([], 2)
    with pytest.raises(OptionError, match="batch_size: expected 1 or more"):
        bucket_batches([1], 0)


def test_examples():
    result = doctest.testmod(text)
    assert result.attempted > 0
    assert result.failed == 0
