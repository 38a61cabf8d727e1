"""The loaders: on tiny files of their formats, and on the real sets where they are."""

import doctest
import gzip
import json
import os
import subprocess
import sys
import wave
from collections import Counter

import numpy as np
import pytest

import fastnn.data
from fastnn.data import conll2003, mnist, multi30k, ptb, shakespeare, sources, spoken_digits
from fastnn.data.audio import mfcc
from fastnn.data.metrics import entities
from fastnn.errors import DataError, OptionError


def real(source):
    """Skips where `FASTNN_DATA` has not the set: tests don't download."""
    if not os.environ.get("FASTNN_DATA"):
        pytest.skip("FASTNN_DATA is not set")
    if not sources.available(source):
        pytest.skip(f"FASTNN_DATA has no {source.name}")


def examples(module):
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


# MNIST


def idx(array):
    sizes = np.array(array.shape, ">u4").tobytes()
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


@pytest.fixture
def tiny_mnist(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {}
    for part, count in {"train": 5, "t10k": 3}.items():
        arrays[part] = (
            rng.integers(0, 256, (count, 28, 28), np.uint8),
            rng.integers(0, 10, count).astype(np.uint8),
        )
        for kind, array in zip(["images-idx3", "labels-idx1"], arrays[part], strict=True):
            path = tmp_path / f"{part}-{kind}-ubyte.gz"
            path.write_bytes(gzip.compress(idx(array)))
    return tmp_path, arrays


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_mnist_format(tiny_mnist, dtype):
    folder, arrays = tiny_mnist
    for (x, y), (images, labels) in zip(
        mnist.load_mnist(dtype=dtype, folder=folder), arrays.values(), strict=True
    ):
        assert x.dtype == dtype
        assert y.dtype == np.int64
        np.testing.assert_array_equal(y, labels)
        expected = images / 255 if dtype == "float32" else images
        np.testing.assert_allclose(x, expected, rtol=1e-6)
        assert x.max() <= (1 if dtype == "float32" else 255)


def test_mnist_faults(tiny_mnist, tmp_path):
    with pytest.raises(OptionError, match="dtype: expected 'float32' or 'uint8', got 'int8'"):
        mnist.load_mnist(dtype="int8")
    folder, _ = tiny_mnist
    path = folder / "train-labels-idx1-ubyte.gz"
    path.write_bytes(idx(np.zeros(4, np.uint8)))  # needs no gzip
    with pytest.raises(DataError, match=r"got \(5, 28, 28\) and \(4,\)"):
        mnist.load_mnist(folder=folder)
    path.write_bytes(idx(np.zeros(5, np.uint8))[:-1])
    with pytest.raises(DataError, match=r"expected \(5,\) bytes, got 4; is it truncated"):
        mnist.load_mnist(folder=folder)
    path.write_bytes(gzip.compress(b"12345678")[:-6])
    with pytest.raises(DataError, match="cannot be decompressed"):
        mnist.load_mnist(folder=folder)
    path.write_bytes(b"12345678")
    with pytest.raises(DataError, match="expected an idx file of bytes"):
        mnist.load_mnist(folder=folder)
    with pytest.raises(DataError, match="mnist: expected train-images-idx3-ubyte"):
        mnist.load_mnist(folder=tmp_path / "nothing")


def test_mnist():
    real(sources.MNIST)
    (x, y), (x_test, y_test) = mnist.load_mnist()
    assert x.shape == (60000, 28, 28)
    assert x_test.shape == (10000, 28, 28)
    assert x.dtype == np.float32
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(y).tolist() == counts
    assert np.bincount(y_test).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert x.mean(dtype=np.float64) == pytest.approx(0.1307, abs=1e-4)
    assert x.std(dtype=np.float64) == pytest.approx(0.3081, abs=1e-4)
    assert (x.min(), x.max()) == (0, 1)
    examples(mnist)


# spoken digits


def record(folder, name, samples, rate=8000, channels=1):
    folder.mkdir(exist_ok=True)
    with wave.open(str(folder / name), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.array(samples, "<i2").tobytes())


@pytest.fixture
def tiny_recordings(tmp_path):
    folder = tmp_path / "recordings"
    k = 0
    for speaker in ("theo", "lucas", "ann"):
        for digit in (3, 0):
            for index in (10, 4, 5):
                record(folder, f"{digit}_{speaker}_{index}.wav", [k * 128] * (k + 1))
                k += 1
    return tmp_path


def test_spoken_digits_format(tiny_recordings):
    digits = spoken_digits.load_spoken_digits(folder=tiny_recordings)
    assert len(digits) == 18
    assert digits.labels.tolist() == [0, 0, 0, 3, 3, 3] * 3
    assert digits.indices.tolist() == [4, 5, 10] * 6
    assert digits.speakers.tolist() == ["ann"] * 6 + ["lucas"] * 6 + ["theo"] * 6
    assert digits.labels.dtype == digits.indices.dtype == np.int64
    last = digits.waveforms[-1]  # 3_theo_10, written first
    assert last.tolist() == [0]
    assert last.dtype == np.float32
    assert digits.waveforms[0].tolist() == [16 * 128 / 32768] * 17  # 0_ann_4, written last but one


def test_spoken_digits_splits(tiny_recordings):
    digits = spoken_digits.load_spoken_digits(folder=tiny_recordings)
    train, test = digits.official_split()
    assert set(test.indices.tolist()) == {4}
    assert set(train.indices.tolist()) == {5, 10}
    assert len(train) + len(test) == 18
    train, test = digits.split_by_speaker()
    assert set(test.speakers.tolist()) == {"lucas", "theo"}
    assert set(train.speakers.tolist()) == {"ann"}
    assert len(digits.split_by_speaker("ann")[1]) == 6
    with pytest.raises(OptionError, match=r"held_out: expected some of \['ann', .*\], got \['x'\]"):
        digits.split_by_speaker(["ann", "x"])
    some = digits.take([3, 1])
    assert some.labels.tolist() == [3, 0]
    np.testing.assert_array_equal(some.waveforms[1], digits.waveforms[1])


def test_spoken_digits_faults(tmp_path):
    folder = tmp_path / "recordings"
    folder.mkdir()
    with pytest.raises(DataError, match=r"got no \.wav file"):
        spoken_digits.load_spoken_digits(folder=tmp_path)
    record(folder, "1_theo_0.wav", [0, 0], channels=2)
    with pytest.raises(DataError, match=r"expected mono at 8000 .* got shape \(1, 2\) at 8000"):
        spoken_digits.load_spoken_digits(folder=tmp_path)
    record(folder, "1_theo_0.wav", [0, 0], rate=16000)
    with pytest.raises(DataError, match="at 16000"):
        spoken_digits.load_spoken_digits(folder=tmp_path)
    record(folder, "one.wav", [0, 0])
    with pytest.raises(DataError, match=r"expected a name like 7_theo_12\.wav"):
        spoken_digits.load_spoken_digits(folder=tmp_path)


def test_spoken_digits():
    real(sources.FSDD)
    digits = spoken_digits.load_spoken_digits()
    assert np.bincount(digits.labels).tolist() == [300] * 10
    assert Counter(digits.speakers.tolist()) == dict.fromkeys(spoken_digits.SPEAKERS, 500)
    lengths = np.array([len(w) for w in digits.waveforms]) / spoken_digits.RATE
    assert lengths.min() == pytest.approx(0.143, abs=1e-3)
    assert lengths.max() == pytest.approx(2.283, abs=1e-3)
    assert lengths.sum() == pytest.approx(1312, abs=1)
    train, test = digits.official_split()
    assert (len(train), len(test)) == (2700, 300)
    train, test = digits.split_by_speaker()
    assert (len(train), len(test)) == (2000, 1000)
    examples(spoken_digits)
    features = [mfcc(waveform, spoken_digits.RATE) for waveform in digits.waveforms]
    assert all(np.isfinite(f).all() for f in features)
    assert all(f.shape[1] == 13 for f in features)


# tiny Shakespeare


def test_shakespeare_format(tmp_path):
    (tmp_path / "input.txt").write_text("hello world ü", encoding="utf-8")
    plays = shakespeare.load_shakespeare(valid_fraction=0.25, folder=tmp_path)
    assert plays.text == "hello world ü"
    assert plays.vocabulary.symbols == (" ", "d", "e", "h", "l", "o", "r", "w", "ü")
    assert "".join(plays.vocabulary.decode(plays.train)) == "hello wor"
    assert "".join(plays.vocabulary.decode(plays.valid)) == "ld ü"
    for fraction in (0, 1):
        with pytest.raises(OptionError, match=r"valid_fraction: expected a number in \(0, 1\)"):
            shakespeare.load_shakespeare(valid_fraction=fraction, folder=tmp_path)


def test_shakespeare():
    real(sources.TINY_SHAKESPEARE)
    plays = shakespeare.load_shakespeare()
    assert len(plays.text) == 1_115_394
    assert len(plays.vocabulary) == 65
    assert (len(plays.train), len(plays.valid)) == (1_003_854, 111_540)
    assert plays.train.dtype == plays.valid.dtype == np.int64
    ids = np.concatenate([plays.train, plays.valid])
    assert "".join(plays.vocabulary.decode(ids)) == plays.text
    examples(shakespeare)


# Penn Treebank


def test_ptb_format(tmp_path):
    for part, text in {
        "train": " the cat <unk> \n the dog \n",
        "valid": " a cat \n",
        "test": " the the \n",
    }.items():
        (tmp_path / f"ptb.{part}.txt").write_text(text, encoding="utf-8")
    words = ptb.load_ptb(folder=tmp_path)
    assert words.vocabulary.symbols == ("<eos>", "the", "<unk>", "cat", "dog")
    assert words.vocabulary.unknown == "<unk>"
    assert words.train.tolist() == [1, 3, 2, 0, 1, 4, 0]
    assert words.valid.tolist() == [2, 3, 0]
    assert words.test.tolist() == [1, 1, 0]


def test_ptb():
    real(sources.PTB)
    words = ptb.load_ptb()
    sizes = [len(ids) for ids in (words.train, words.valid, words.test)]
    assert sizes == [929_589, 73_760, 82_430]
    assert len(words.vocabulary) == 10_000
    end = words.vocabulary["<eos>"]
    lines = [int((ids == end).sum()) for ids in (words.train, words.valid, words.test)]
    assert lines == [42_068, 3_370, 3_761]
    counts = np.bincount(words.train)
    assert len(counts) == 10_000
    assert (np.diff(counts) <= 0).all()
    examples(ptb)


# CoNLL-2003

CONLL = """-DOCSTART- -X- -X- O

EU NNP I-NP I-ORG
rejects VBZ I-VP O

-DOCSTART- -X- -X- O

Peter NNP I-NP I-PER
Blackburn NNP I-NP I-PER
Ann NNP I-NP B-PER


York NNP I-NP I-LOC"""


def test_conll_format(tmp_path):
    for part in ("train", "valid", "test"):
        (tmp_path / f"{part}.txt").write_text(CONLL, encoding="utf-8")
    news = conll2003.load_conll2003(folder=tmp_path)
    part = news.valid
    assert len(part) == 3
    assert part.words == [["EU", "rejects"], ["Peter", "Blackburn", "Ann"], ["York"]]
    assert part.pos[0] == ["NNP", "VBZ"]
    assert part.chunks[0] == ["I-NP", "I-VP"]
    assert part.tags == [["B-ORG", "O"], ["B-PER", "I-PER", "B-PER"], ["B-LOC"]]
    assert part.documents == [0, 1, 1]
    assert part.scheme == "IOB2"
    part = conll2003.load_conll2003(folder=tmp_path, scheme="IOBES").test
    assert part.tags == [["S-ORG", "O"], ["B-PER", "E-PER", "S-PER"], ["S-LOC"]]
    part = conll2003.load_conll2003(folder=tmp_path, scheme="IOB1").test
    assert part.tags[1] == ["I-PER", "I-PER", "B-PER"]


def test_two_columns(tmp_path):
    """Words and tags, as users have them: with tabs, a byte order mark, Windows' ends of lines."""
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffAnna\tB-PER\r\nЛена\tI-PER\r\n\r\n\r\nsings\tO".encode())
    found = conll2003.read_conll(path, scheme="IOBES")
    assert (found.words, found.tags) == ([["Anna", "Лена"], ["sings"]], [["B-PER", "E-PER"], ["O"]])
    assert found.pos == found.chunks == [["-", "-"], ["-"]]


def test_conll_faults(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("a b c O\n\na b c\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.txt, line 3: expected four columns, got 'a b c'"):
        conll2003.read_conll(path)
    path.write_text("a O\n\na O\nb X-Y\n\nc O\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.txt, sentence before line 5: .* got 'X-Y'"):
        conll2003.read_conll(path)
    path.write_text("a O\nb B-X\n\na b c O\n", encoding="utf-8")
    with pytest.raises(
        DataError, match=r"line 4: expected two columns .word and tag., as in the f"
    ):
        conll2003.read_conll(path)
    with pytest.raises(DataError, match="there is no such folder: check the path"):
        conll2003.load_conll2003(folder=tmp_path / "nowhere")
    with pytest.raises(OptionError, match="scheme: expected one of IOB1, IOB2, IOBES, got 'bio'"):
        conll2003.load_conll2003(scheme="bio", folder=tmp_path)


def test_conll2003():
    real(sources.CONLL2003)
    news = conll2003.load_conll2003()
    parts = (news.train, news.valid, news.test)
    assert [len(part) for part in parts] == [14_041, 3_250, 3_453]
    assert [sum(map(len, part.words)) for part in parts] == [203_621, 51_362, 46_435]
    assert [part.documents[-1] + 1 for part in parts] == [946, 216, 231]
    spans = [[span for tags in part.tags for span in entities(tags)] for part in parts]
    assert [len(part) for part in spans] == [23_499, 5_942, 5_648]
    assert {kind for kind, *_ in spans[0]} == {"LOC", "MISC", "ORG", "PER"}
    # the columns are as in the file, which has IOB2
    path = sources.find(sources.CONLL2003) / "train.txt"
    lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    lines = [line for line in lines if line and line[0] != conll2003.DOCUMENT]
    columns = [getattr(news.train, name) for name in ("words", "pos", "chunks", "tags")]
    flat = [[value for sentence in column for value in sentence] for column in columns]
    assert [list(line) for line in zip(*flat, strict=True)] == lines
    other = conll2003.load_conll2003(scheme="IOB1").train
    assert other.tags != news.train.tags
    assert [conll2003.convert_tags(tags, "IOB2") for tags in other.tags] == news.train.tags
    examples(conll2003)


# Multi30k (its format is tested in `test_translation.py`)


def test_multi30k():
    real(sources.MULTI30K)
    sentences = multi30k.load_multi30k()
    parts = (sentences.train, sentences.valid, sentences.test)
    assert [(len(a), len(b)) for a, b in parts] == [(n, n) for n in (29_000, 1_014, 1_000)]
    examples(multi30k)


# the package


def test_public_names():
    for name in fastnn.data.__all__:
        assert callable(getattr(fastnn.data, name))
    assert dir(fastnn.data) == sorted(fastnn.data.__all__)
    assert set(fastnn.data.__all__) == set(fastnn.data._PUBLIC)
    with pytest.raises(
        AttributeError, match=r"module 'fastnn\.data' has no attribute 'load_nothing'"
    ):
        fastnn.data.load_nothing  # noqa: B018


def test_import_is_light():
    code = (
        "import json, sys; import fastnn.data; print(json.dumps("
        "[m for m in sys.modules if m.startswith('fastnn.data.') or m in "
        "('sklearn', 'numpy', 'urllib.request', 'tarfile', 'soundfile', 'tqdm')]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
